"""E-utilities: searches, batches, limits and breaks, against a server that behaves like NCBI's on its bad days."""

import gzip
import json
import socket
from datetime import date, timedelta

import pytest
from servers import PubMed, Site, made_up, serving

from pipeline.entrez import SEARCH_LIMIT, Entrez, elements_of
from pipeline.errors import ConfigError, InputError, NetworkError, OutputError
from pipeline.fetch import fetch, read_pmids
from pipeline.lock import hold
from pipeline.pubmed import read_pubmed
from pipeline.web import Patience, Unusable

WAITS = Patience(tries=3, pause=0.01, longest=5, timeout=5)
SEARCH, EFETCH = "/esearch.fcgi", "/efetch.fcgi"
FIRST = 99_100_000
KEY = "SECRETKEY"


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("NCBI_API_KEY", raising=False)
    monkeypatch.delenv("NCBI_EMAIL", raising=False)


@pytest.fixture
def site():
    with serving(Site(eutils=PubMed(made_up(450)))) as site:
        yield site


def client(site, **options):
    return Entrez(site.url, patience=WAITS, interval=0, **options)


def pmids(count, first=FIRST):
    return [str(first + number) for number in range(count)]


def read(path):
    return [entry.pmid for entry in read_pubmed(path)]


def test_pmids_in_batches_of_200(site, tmp_path):
    out = tmp_path / "new" / "some.xml"
    wanted = pmids(450)[::-1]
    done = fetch(out, client(site), pmids=[*wanted, wanted[0]])
    assert (done.wanted, done.citations, done.missing, done.missing_file, done.reused) == (450, 450, (), "", 0)
    assert read(out) == [int(pmid) for pmid in wanted]
    assert [one.method for one in site.requests] == ["POST"] * 3
    assert [len(one.form["id"].split(",")) for one in site.requests] == [200, 200, 50]
    assert [path.name for path in out.parent.iterdir()] == ["some.xml"]


def test_what_label_reads(site, tmp_path):
    out = tmp_path / "some.xml.gz"
    fetch(out, client(site), pmids=pmids(2))
    first, second = read_pubmed(out)
    assert first.title.startswith(f"Made-up study {FIRST} & its α ")
    assert first.abstract_text() == f"Nobody wrote number {FIRST} < the next."
    assert (first.year, second.doi) == (2021, f"10.99999/x.{FIRST + 1}")
    assert len(elements_of(gzip.decompress(out.read_bytes()))) == 2


def test_missing_pmids_are_named(site, tmp_path):
    site.eutils.hidden = {FIRST + 3, FIRST + 400}
    out = tmp_path / "some.xml"
    done = fetch(out, client(site), pmids=["99199999", *pmids(450)])
    assert done.missing == ("99199999", str(FIRST + 3), str(FIRST + 400))
    assert done.citations == 448
    assert (tmp_path / "some.xml.missing.txt").read_text().split() == list(done.missing)
    site.eutils.hidden = set()
    assert fetch(out, client(site), pmids=pmids(450)).missing == ()
    assert not (tmp_path / "some.xml.missing.txt").exists()


def test_citations_left_out_once_are_asked_for_again(site, tmp_path):
    site.eutils.shy = {FIRST + 7, FIRST + 8}
    done = fetch(tmp_path / "some.xml", client(site), pmids=pmids(20))
    assert (done.citations, done.missing) == (20, ())
    assert site.requests[-1].form["id"] == f"{FIRST + 7},{FIRST + 8}"


def test_not_one_citation(site, tmp_path):
    for wanted in (["99199999"], ["0"]):
        with pytest.raises(InputError, match="found none for 1 PMIDs"):
            fetch(tmp_path / "some.xml", client(site), pmids=wanted)
    assert list(tmp_path.iterdir()) == []


def test_a_query(site, tmp_path):
    out = tmp_path / "some.xml"
    done = fetch(out, client(site), query="made-up[ti]")
    assert (done.found, done.wanted, done.citations) == (450, 450, 450)
    assert len(read(out)) == 450
    assert site.asked(SEARCH)[0].form["term"] == "made-up[ti]"


def test_a_query_that_finds_nothing(site, tmp_path):
    with pytest.raises(InputError, match="found none \\(PubMed does not know: misspelt\\)"):
        fetch(tmp_path / "some.xml", client(site), query="nothing misspelt")
    with pytest.raises(ConfigError, match="query"):
        client(site).search("  ")
    assert list(tmp_path.iterdir()) == []


def test_more_than_a_search_gives(site):
    site.eutils = PubMed(
        {FIRST + n: (date(1950, 1, 1) + timedelta(days=n % 25_000), "") for n in range(2 * SEARCH_LIMIT + 4_000)}
    )
    found = client(site).search("made-up[ti]")
    assert found.count == len(found.pmids) == len(set(found.pmids)) == 2 * SEARCH_LIMIT + 4_000
    assert set(found.pmids) == {str(pmid) for pmid in site.eutils.citations}
    assert found.requests == len(site.requests) < 40
    assert all(one.form["datetype"] == "edat" for one in site.requests[1:])


def test_more_on_one_day_than_a_search_gives(site):
    site.eutils = PubMed(made_up(SEARCH_LIMIT + 1))
    with pytest.raises(InputError, match=r"10,000 on 2021-05-04.*hepatag mirror"):
        client(site).search("made-up[ti]")


def test_exactly_what_a_search_gives(site):
    site.eutils = PubMed(made_up(SEARCH_LIMIT))
    assert len(client(site).search("made-up[ti]").pmids) == SEARCH_LIMIT
    assert len(site.requests) == 1


def test_a_break_costs_no_batch_twice(site, tmp_path):
    out = tmp_path / "some.xml.gz"
    site.faults[EFETCH] = ["", "", "drop", "drop", "drop"]
    with pytest.raises(NetworkError, match="again later"):
        fetch(out, client(site), query="made-up[ti]")
    assert not out.exists()
    site.requests.clear()
    site.eutils.citations |= made_up(5, first=FIRST + 1_000)
    done = fetch(out, client(site), query="made-up[ti]")
    assert [one.path for one in site.requests] == [EFETCH]
    assert (done.reused, done.citations) == (400, 450)
    assert len(read(out)) == 450
    assert [path.name for path in tmp_path.iterdir()] == ["some.xml.gz"]
    assert fetch(out, client(site), query="made-up[ti]").citations == 455


def test_another_wish_starts_anew(site, tmp_path):
    out = tmp_path / "some.xml"
    site.faults[EFETCH] = ["", "drop", "drop", "drop"]
    with pytest.raises(NetworkError):
        fetch(out, client(site), pmids=pmids(450))
    done = fetch(out, client(site), pmids=pmids(300, FIRST + 100))
    assert (done.reused, done.citations) == (0, 300)
    assert read(out)[0] == FIRST + 100


def test_a_spoilt_batch_is_fetched_again(site, tmp_path):
    out = tmp_path / "some.xml"
    site.faults[EFETCH] = ["", "", "drop", "drop", "drop"]
    with pytest.raises(NetworkError):
        fetch(out, client(site), pmids=pmids(450))
    part = tmp_path / "some.xml.parts" / "000001.xml"
    part.write_bytes(part.read_bytes()[:500])
    assert (fetch(out, client(site), pmids=pmids(450)).reused, len(read(out))) == (200, 450)


@pytest.mark.parametrize("fault", ["503", "429 after 0", "500", "drop", "cut 700", "too long", "too short"])
def test_bad_days(site, tmp_path, fault):
    site.faults = {SEARCH: [fault], EFETCH: ["", fault, fault]}
    done = fetch(tmp_path / "some.xml", client(site), query="made-up[ti]")
    assert (done.citations, done.missing) == (450, ())
    assert len(site.asked(EFETCH)) == 5


def test_retry_after(site):
    site.faults = {SEARCH: ["429 after 1"]}
    client(site).search("made-up[ti]")
    first, second = (one.at for one in site.requests)
    assert second - first >= 1


def test_requests_keep_their_distance(site, tmp_path):
    fetch(tmp_path / "some.xml", Entrez(site.url, patience=WAITS, interval=0.2), query="made-up[ti]")
    times = [one.at for one in site.requests]
    assert len(times) == 4
    assert times[-1] - times[0] > 0.5  # the server notes a request a little after it was sent
    assert (Entrez()._client.interval, Entrez(key=KEY)._client.interval) == (0.34, 0.105)


def test_key_and_address_come_from_the_environment_and_stay_out_of_sight(site, tmp_path, monkeypatch):
    monkeypatch.setenv("NCBI_API_KEY", KEY)
    monkeypatch.setenv("NCBI_EMAIL", "me@example.org")
    said = []
    entrez = Entrez.from_environment(site.url, patience=WAITS, interval=0, on_wait=said.append)
    site.faults = {SEARCH: ["429"], EFETCH: ["!429"]}
    with pytest.raises(NetworkError) as error:
        fetch(tmp_path / "some.xml", entrez, query="made-up[ti]")
    assert all(one.form["api_key"] == KEY for one in site.requests)
    assert all((one.form["email"], one.form["tool"]) == ("me@example.org", "hepatag") for one in site.requests)
    assert all("?" not in one.path for one in site.requests)
    written = [path.read_text() for path in tmp_path.rglob("*") if path.is_file()]
    assert KEY not in " ".join([*said, *written, str(error.value)])


def test_a_key_that_ncbi_refuses(site, monkeypatch):
    site.eutils.refuse_key = KEY
    with pytest.raises(ConfigError, match="NCBI_API_KEY") as error:
        client(site, key=KEY).search("made-up[ti]")
    assert KEY not in str(error.value)
    with pytest.raises(ConfigError, match="NCBI_API_KEY"):
        client(site, key=KEY).records(pmids(2))
    assert len(site.requests) == 2


def test_an_error_in_the_answer(site):
    site.eutils.extra = {"ERROR": "Search Backend failed: Exception:\n'retstart' cannot be larger"}
    with pytest.raises(NetworkError, match=r"Search Backend failed: Exception: 'retstart'.*3 tries"):
        client(site).search("made-up[ti]")


@pytest.mark.parametrize("answer", [b"", b"[]", b"<html>", b'{"esearchresult": {"count": "x", "idlist": []}}'])
def test_an_answer_that_is_no_search(site, answer):
    site.eutils = lambda path, form: (200, answer)
    with pytest.raises(NetworkError, match="no search result"):
        client(site).search("made-up[ti]")


@pytest.mark.parametrize(
    "answer",
    [
        b"", b"<html>Sorry</html>", b"<PubmedArticleSet><PubmedArticle>", b"<r><PubmedArticleSet/></r>",
        b'<!DOCTYPE PubmedArticleSet [<!ENTITY a "b">]><PubmedArticleSet>&a;</PubmedArticleSet>',
    ],
)  # fmt: skip
def test_an_answer_that_is_no_batch(site, tmp_path, answer):
    site.eutils = lambda path, form: (200, answer)
    with pytest.raises(NetworkError, match="3 tries"):
        fetch(tmp_path / "some.xml", client(site), pmids=pmids(2))


def test_batches_are_parsed_without_entities(tmp_path):
    (tmp_path / "secret").write_text("not for you")
    bomb = (
        f'<!DOCTYPE PubmedArticleSet [<!ENTITY a SYSTEM "{(tmp_path / "secret").as_uri()}">]>'
        "<PubmedArticleSet><PubmedArticle>&a;</PubmedArticle></PubmedArticleSet>"
    )
    with pytest.raises(Unusable):
        elements_of(bomb.encode())


def test_no_server(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(NetworkError, match="no connection"):
        fetch(tmp_path / "some.xml", Entrez(url, patience=WAITS, interval=0), query="made-up[ti]")
    assert list(tmp_path.iterdir()) == []


def test_places_that_do_not_do(site, tmp_path):
    with pytest.raises(OutputError, match="folder"):
        fetch(tmp_path, client(site), pmids=pmids(1))
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="choose another place"):
        fetch(tmp_path / "file" / "some.xml", client(site), pmids=pmids(1))
    (tmp_path / "some.xml.parts").mkdir()
    with hold(tmp_path / "some.xml.parts"), pytest.raises(OutputError, match="no other run"):
        fetch(tmp_path / "some.xml", client(site), pmids=pmids(1))


def test_files_of_pmids(tmp_path):
    file = tmp_path / "pmids.txt"
    file.write_text("\ufeff99000001\r\n99000002, 99000003; PMID: 99000004 PMID99000005 # a note\n\n0099000001\n")
    assert read_pmids(file) == [f"9900000{number}" for number in range(1, 6)]


@pytest.mark.parametrize("content", [b"", b"# none\n", b"99000001\n10.99999/x", b"0", b"1234567890", b"\xff\xfe9"])
def test_files_without_pmids(tmp_path, content):
    file = tmp_path / "pmids.txt"
    file.write_bytes(content)
    with pytest.raises(InputError, match=r"pmids\.txt"):
        read_pmids(file)
    with pytest.raises(InputError, match="check the path"):
        read_pmids(tmp_path / "none.txt")


def test_the_command(site, tmp_path, monkeypatch, command_line):
    def run(*words):
        return command_line("fetch", *words, "--url", site.url)

    site.eutils.hidden = {FIRST}
    (tmp_path / "pmids.txt").write_text("\n".join(pmids(5)))
    out = tmp_path / "some.xml"
    code, document, err = run("--pmids", tmp_path / "pmids.txt", "--out", out, "--json")
    assert code == 0
    assert json.loads(document)["missing"] == [str(FIRST)]
    assert "4 citations of 5 PMIDs" in err
    assert f"1 are not in the source: {FIRST}" in err
    code, document, err = run("--query", "misspelt made-up", "--out", out)
    assert (code, document) == (0, "")
    assert "left them out: misspelt" in err
    assert run("--out", out)[0] == 2
    assert run("--query", "x", "--pmids", tmp_path / "pmids.txt", "--out", out)[0] == 2
