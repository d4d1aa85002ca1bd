"""Real HTTP servers on 127.0.0.1 that misbehave on demand, for the tests of what fetches."""

import hashlib
import json
import re
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs

LISTED = "2020-01-15 14:05"


@dataclass
class Request:
    method: str
    path: str
    start: int | None
    form: dict
    at: float
    agent: str


@dataclass
class Site:
    """Files by path; ``faults`` lists, per path, what goes wrong with its next requests (the last one stays if "!")."""

    files: dict = field(default_factory=dict)
    faults: dict = field(default_factory=dict)
    dates: dict = field(default_factory=dict)
    requests: list = field(default_factory=list)
    eutils: object = None
    url: str = ""

    def add(self, folder, name, content, digest=None):
        """A dump file with its sidecar, as NLM gives them."""
        self.files[f"/{folder}/{name}"] = content
        digest = digest or hashlib.md5(content).hexdigest()
        self.files[f"/{folder}/{name}.md5"] = f"MD5({name})= {digest}\n".encode()

    def listing(self, folder):
        rows = [f'<a href="{name}">{name}</a>      {self.dates.get(name, LISTED)}   19M' for name in self.names(folder)]
        return ("<html><body><pre><a href='../'>Parent Directory</a>\n" + "\n".join(rows) + "\n<hr></pre>").encode()

    def names(self, folder):
        return [path.split("/")[2] for path in self.files if path.startswith(f"/{folder}/")]

    def fault(self, path):
        left = self.faults.get(path, [])
        if not left:
            return ""
        return left[0] if left[0].startswith("!") else left.pop(0)

    def asked(self, path):
        return [one for one in self.requests if one.path == path]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *words):
        pass

    def note(self, form):
        span = re.match(r"bytes=(\d+)-$", self.headers.get("Range", ""))
        start = int(span[1]) if span else None
        agent = self.headers.get("User-Agent", "")
        self.server.site.requests.append(Request(self.command, self.path, start, form, time.monotonic(), agent))
        return start

    def do_GET(self):
        site, start = self.server.site, self.note({})
        fault = site.fault(self.path).removeprefix("!")
        folder = self.path.strip("/")
        body = site.files.get(self.path)
        if body is None and self.path.endswith("/") and folder in ("baseline", "updatefiles"):
            body = site.listing(folder)
        if self.broken(fault):
            return
        if body is None:
            self.reply(404, b"nothing here")
        elif start is None or "no range" in fault:
            self.reply(200, body, fault=fault)
        elif start >= len(body):
            self.reply(416, b"", {"Content-Range": f"bytes */{len(body)}"})
        else:
            first = start + 1 if "other range" in fault else start
            self.reply(206, body[first:], {"Content-Range": f"bytes {first}-{len(body) - 1}/{len(body)}"}, fault)

    def do_POST(self):
        site = self.server.site
        raw = self.rfile.read(int(self.headers["Content-Length"])).decode()
        form = {name: values[0] for name, values in parse_qs(raw).items()}
        self.note(form)
        fault = site.fault(self.path).removeprefix("!")
        if not self.broken(fault):
            self.reply(*site.eutils(self.path, form), fault=fault)

    def broken(self, fault):
        if fault.startswith("drop"):
            self.close_connection = True
            self.connection.close()
            return True
        if status := re.match(r"(\d{3})(?: after (.+))?$", fault):
            body = json.dumps({"error": "API rate limit exceeded", "api-key": "SECRETKEY"}).encode()
            self.reply(int(status[1]), body, {"Retry-After": status[2]} if status[2] else {})
            return True
        return False

    def reply(self, status, body, headers=None, fault=""):
        size = len(body) + (100 if "too long" in fault else -7 if "too short" in fault else 0)
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(size))
        self.end_headers()
        cut = re.search(r"cut (\d+)", fault)
        self.wfile.write(body[: int(cut[1])] if cut else body[:size])
        if cut or "too long" in fault:
            self.close_connection = True


@contextmanager
def serving(site):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.site, server.daemon_threads = site, True
    server.handle_error = lambda *request: None  # connections that a test cuts
    site.url = f"http://127.0.0.1:{server.server_port}/"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@dataclass
class PubMed:
    """E-utilities that hold made-up citations: PMID → (date of entry, DOI). It lists 9,999 of a search, as PubMed."""

    citations: dict
    hidden: set = field(default_factory=set)
    shy: set = field(default_factory=set)
    refuse_key: str = ""
    extra: dict = field(default_factory=dict)

    def __call__(self, path, form):
        if self.refuse_key and form.get("api_key") == self.refuse_key:
            return 400, json.dumps({"error": f"API key {self.refuse_key} invalid"}).encode()
        return (200, self.search(form)) if path.endswith("esearch.fcgi") else self.fetch(form)

    def search(self, form):
        dois, unknown = re.findall(r'"(10\.[^"]+)"\[doi\]', form["term"]), []
        found = []
        first, last = (date(*map(int, form.get(name, "1/1/1").split("/"))) for name in ("mindate", "maxdate"))
        for pmid, (entered, doi) in self.citations.items():
            if "mindate" in form and not first <= entered <= last:
                continue
            if (dois and doi in dois) or (not dois and "nothing" not in form["term"]):
                found.append(str(pmid))
        if "misspelt" in form["term"]:
            unknown = ["misspelt"]
        listed = found[: int(form["retmax"])]
        answer = {"count": str(len(found)), "idlist": listed, "errorlist": {"phrasesnotfound": unknown}} | self.extra
        return json.dumps({"header": {}, "esearchresult": answer}).encode()

    def fetch(self, form):
        ids = [int(one) for one in form["id"].split(",")]
        if ids == [0]:
            return 400, b"<eFetchResult><ERROR>ID list is empty! Possibly it has no correct IDs.</ERROR></eFetchResult>"
        here = [one for one in ids if one in self.citations and one not in self.hidden and one not in self.shy]
        self.shy -= set(ids)
        head = (
            '<?xml version="1.0" ?>\n'
            '<!DOCTYPE PubmedArticleSet PUBLIC "-//NLM//DTD PubMedArticle, 1st January 2025//EN"'
            ' "https://dtd.nlm.nih.gov/ncbi/pubmed/out/pubmed_250101.dtd">\n<PubmedArticleSet>'
        )
        return 200, (head + "".join(map(self.article, here)) + "</PubmedArticleSet>").encode()

    def article(self, pmid):
        doi = self.citations[pmid][1]
        return (
            f'<PubmedArticle><MedlineCitation Status="MEDLINE"><PMID Version="1">{pmid}</PMID><Article>'
            f"<Journal><JournalIssue><PubDate><Year>2021</Year></PubDate></JournalIssue></Journal>"
            f"<ArticleTitle>Made-up study {pmid} &amp; its α &nbsp;sequel</ArticleTitle>"
            + (f'<ELocationID EIdType="doi">{doi}</ELocationID>' if doi else "")
            + f"<Abstract><AbstractText>Nobody wrote <i>number</i> {pmid} &lt; the next.</AbstractText></Abstract>"
            f"<Language>eng</Language></Article></MedlineCitation></PubmedArticle>"
        )


def made_up(count, first=99_100_000, day=date(2021, 5, 4)):
    """PMIDs in a row, all taken up on one day."""
    return {first + number: (day, f"10.99999/x.{first + number}") for number in range(count)}
