# ruff: noqa: E501
"""Mutated inputs: our own samples, changed as a hostile or an unlucky world would change them.

`mutated` gives a file's name and bytes for a kind of input and a random number generator; the same seed gives the same
bytes. `XML_SOUND` changes keep a PubMed file well-formed, so that a plain parse can say what is in it.
"""

from __future__ import annotations

import gzip
import io
import json
import re
from copy import deepcopy
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "data" / "sample"
REAL = ROOT.parent / "shared" / "xml"
KINDS = ("xml", "sound", "nbib", "csv", "tsv", "jsonl", "parquet", "text", "yaml", "labels", "corrections", "card")
"""What is mutated: eight forms of input, configs, labelled files, curators' files, cards of models."""
RECORDS = ("xml", "sound", "nbib", "csv", "tsv", "jsonl", "parquet", "text")
"""The kinds that `readers.read` reads."""

TEXTS = (
    "", " ", "\0", "\x1b[31mred\x1b[0m", "\ud800", "\ufeff", "\u202eltr", "\x85", "\x9b31m", "肝細胞癌", "=1+1", "'", '"',
    "\r", "\n", "\r\nER  - ", "PMID- 7", "<b>", "</AbstractText>", "]]>", "<!--", "&nbsp;", "&#0;", "&#x6c;iver", "[red]",
    "9" * 30, "9" * 5000, "-1", "0", "1e400", "nan", "99999", "99999-99-99", "2020-13-45", "PubmedArticle", "dAdAdA",
    "</PubmedArticle", "hepatocellular carcinoma", "x" * 200_000, "(" * 3000, "[" * 3000, "a, " * 800, "Aa   , " * 60 + "!",
    "true", "null", "!!python/object:os.system x", "*a", "&a [*a]", "{{", "%s", "../../etc/passwd", "x" * 300,
)  # fmt: skip
BYTES = (*(one.encode("utf-8", "surrogatepass") for one in TEXTS), b"\xff", b"\xc3", b"\xfe\xff", b"\x1f\x8b")


def mutated(kind, draw):
    """The name and the bytes of one mutated input."""
    name, data = MAKERS[kind](draw)
    if kind == "sound":
        return name, data
    if draw.random() < 0.35:
        for _ in range(draw.choice((1, 1, 2, 5))):
            data = bytewise(data, draw)
    if kind not in ("parquet", "yaml", "corrections", "card") and draw.random() < 0.25:
        name, data = f"{name}.gz", packed(data, draw)
    return name, data


def bytewise(data, draw):
    """One change that knows nothing of the format."""
    if not data:
        return data
    at, end = sorted((draw.randrange(len(data) + 1), draw.randrange(len(data) + 1)))
    way = draw.randrange(6)
    if way == 0:
        return data[:at]
    if way == 1:
        return data[:at] + data[min(end, at + 200) :]
    if way == 2:
        return data[:at] + draw.choice(BYTES) + data[at:]
    if way == 3:
        return data[:at] + bytes([draw.randrange(256)]) + data[at + 1 :]
    if way == 4:
        return data[:at] + data[at : at + 500] * draw.choice((2, 3, 50)) + data[at:]
    return data[:at] + data[end : end + 300] + data[at:]


def packed(data, draw):
    """As gz: whole, in several members, damaged, cut, or with rubbish behind."""
    cut = draw.randrange(len(data) + 1)
    whole = gzip.compress(data[:cut], 1) + gzip.compress(data[cut:], 1)
    way = draw.randrange(5)
    if way == 0:
        return whole[: draw.randrange(len(whole))]
    if way == 1:
        return whole + draw.choice(BYTES)
    return bytewise(whole, draw) if way == 2 else whole


# PubMed XML


@cache
def xml_seeds():
    """Records of our samples, and of real files where they lie beside the checkout."""
    pattern = re.compile(r"<(PubmedArticle|PubmedBookArticle|DeleteCitation)\b.*?</\1>", re.DOTALL)
    texts = [
        (SAMPLE / "pubmed99n0001.xml").read_text(),
        gzip.decompress((SAMPLE / "pubmed99n0002.xml.gz").read_bytes()).decode(),
    ]
    texts += [path.read_text("utf-8", "replace") for path in sorted(REAL.glob("*.xml"))[:40]]
    return [found[0] for text in texts for found in pattern.finditer(text) if len(found[0]) < 30_000]


ASIDES = (
    "<!-- <PubmedArticle> -->", "<!-- </PubmedArticle> -->", "<?x <PubmedArticle> ?>", "<?x </PubmedArticle>?>", "<!---->",
    "<?x <ArticleTitle>mice</ArticleTitle>?>", "<!-- <ArticleTitle>mice</ArticleTitle> -->", "<!-- hepatoma -->", "<?y?>",
)  # fmt: skip
INLINE = (
    *ASIDES, "<![CDATA[</PubmedArticle>]]>", "<![CDATA[<ArticleTitle>x</ArticleTitle>]]>", "<![CDATA[]]>", "dAdA", "&lt;",
    "PubmedArticle", " > ", "'", '"', "&amp;", "&#x6c;iver tumours", "<i>hep</i>atoma", "<![CDATA[hepatoma]]>", "&nbsp;",
    "\u202e", "é", "肝", "/PubmedArticle&gt;", "<sub>2</sub>", "-->", "?>", "hepat&#111;cellular carcinoma",
)  # fmt: skip
BETWEEN = (
    *ASIDES, "\n", "<PubmedArticle/>", "<PubmedArticle />", "<Other><PubmedArticle></PubmedArticle ></Other>", "dA",
    "<DeleteCitation><PMID Version='1'>77</PMID><PMID>x</PMID></DeleteCitation>", "<PubmedArticleX></PubmedArticleX>",
    "<DeleteCitation/>", '<PubmedArticle a="b>c" b=\'"/>\'></PubmedArticle>', "<Odd/>", "&gt;", "<Foo a='>'/>",
)  # fmt: skip
NESTED = (
    "<ReferenceList><Reference><PubmedArticle><MedlineCitation><PMID>556</PMID></MedlineCitation></PubmedArticle>"
    "</Reference></ReferenceList>"
)


def xml_sound(draw):
    """A well-formed PubMed file."""
    parts = []
    for record in draw.choices(xml_seeds(), k=draw.randint(1, 6)):
        for _ in range(draw.choice((0, 1, 1, 3, 6))):
            record = sound_change(record, draw)
        parts += [draw.choice(BETWEEN) if draw.random() < 0.4 else "", record]
    root = draw.choice(("<PubmedArticleSet>", '<PubmedArticleSet a="x" >', '<PubmedArticleSet xmlns:x="urn:x">'))
    head = draw.choice(("", '<?xml version="1.0" encoding="utf-8"?>\n', "<!-- made up --><!DOCTYPE PubmedArticleSet>"))
    return "sound.xml", f"{head}{root}{''.join(parts)}{draw.choice(('', ' '))}</PubmedArticleSet >".encode()


def sound_change(record, draw):
    """A record with one change after which it is still well-formed."""
    way = draw.randrange(6)
    if way == 0:  # in a text
        places = [
            found.end() for found in re.finditer(r"<(?:AbstractText|ArticleTitle|Title|LastName)(?: [^>]*)?>", record)
        ]
        return insert(record, places, draw.choice(INLINE), draw)
    if way == 1:  # between elements
        return insert(
            record, [found.start() for found in re.finditer(r"<[A-Z]", record)][1:], draw.choice(ASIDES), draw
        )
    if way == 2:  # another record within
        return insert(
            record, [found.start() for found in re.finditer(r"</PubmedData>|<History>", record)], NESTED, draw
        )
    if way == 3:  # an element leaves
        found = draw.choice(list(re.finditer(r"<([A-Z]\w+)(?: [^>]*)?>[^<]*</\1>", record)) or [None])
        return record[: found.start()] + record[found.end() :] if found else record
    if way == 4:  # white space in tags
        tag = draw.choice(("</PubmedArticle>", "</ArticleTitle>", "</PMID>", "</Abstract>"))
        return record.replace(tag, f"{tag[:-1]}\n>", 1)
    number = draw.choice(("0", "007", "99999999999999999999", "x", " 12 ", "2147483648"))
    pattern = draw.choice((r"(<PMID[^>]*>)\d+(?=<)", r'(Version=")\d+', r"(<Year>)\d+"))
    return re.sub(pattern, lambda found: found[1] + number, record, count=1)


def insert(text, places, what, draw):
    at = draw.choice(places) if places else None
    return text if at is None else text[:at] + what + text[at:]


def xml(draw):
    """A PubMed file, most often damaged."""
    text = xml_sound(draw)[1].decode()
    for _ in range(draw.choice((0, 1, 2, 4))):
        places = [found.start() for found in re.finditer("[<>\"' ]", text)]
        text = insert(text, places, draw.choice((*TEXTS, *INLINE, *BETWEEN)), draw)
    declared = draw.choice(
        ("utf-8", "utf-16", "iso-8859-1", "windows-1252", "hex", "idna", "undefined", "utf-7", "big5")
    )
    used = draw.choice(("utf-8", "utf-8", "utf-16", "utf-16-le", "utf-16-be", "latin-1", "utf-8-sig", "utf-32"))
    if draw.random() < 0.3:
        text = f'<?xml version="1.0" encoding="{declared}"?>\n{re.sub(r"^<[?]xml.*?[?]>", "", text)}'
    else:
        used = "utf-8"
    if draw.random() < 0.05:
        text = '<!DOCTYPE PubmedArticleSet [<!ENTITY a SYSTEM "file:///etc/passwd">]>' + text.split("?>\n", 1)[-1]
    return "file.xml", text.encode(used, "surrogatepass" if used.startswith("utf") else "replace")


# Lines and tables


def lines_of(name, count=40):
    return (SAMPLE / name).read_text(encoding="utf-8").splitlines(keepends=True)[:count]


def linewise(lines, draw):
    lines = list(lines)
    for _ in range(draw.choice((0, 1, 2, 5))):
        at = draw.randrange(len(lines))
        way = draw.randrange(5)
        if way == 0:
            lines.insert(at, draw.choice(TEXTS) + draw.choice(("\n", "")))
        elif way == 1:
            lines[at] = lines[at].rstrip("\n") + draw.choice(TEXTS) + "\n"
        elif way == 2:
            del lines[at]
            lines = lines or [""]
        elif way == 3:
            lines[at] = re.sub(r"[\w.]+", lambda _: draw.choice(TEXTS), lines[at], count=1)
        else:
            lines[at], lines[0] = lines[0], lines[at]
    return "".join(lines).encode(draw.choice(("utf-8",) * 6 + ("utf-16", "utf-16-le", "utf-8-sig")), "surrogatepass")


def nbib(draw):
    return "file.nbib", linewise(lines_of("citation.nbib", 200), draw)


def text(draw):
    return "file.txt", linewise(lines_of("page.txt", 200), draw)


def csv_table(draw):
    lines = lines_of("records.csv")
    if draw.random() < 0.3:
        lines = [line.replace(",", draw.choice((";", "|", ",,"))) for line in lines]
    return "file.csv", linewise(lines, draw)


def tsv(draw):
    rows = ["title\tabstract\tpmid\tyear\n"] + [
        "\t".join(draw.choice((*TEXTS[:30], "liver tumour", "99000001")) for _ in range(draw.randint(2, 5))) + "\n"
        for _ in range(5)
    ]
    return "file.tsv", linewise(rows, draw)


VALUES = (
    None, True, 0, -1, 1.5, float("inf"), float("nan"), 2**63, 10**400, "", "x", [], {}, [[]], ["a", {"label": "B"}],
    {"label": "A", "text": "b"}, {"a": {"b": "c"}}, [[[[["deep"]]]]], ["x"] * 20_000, {"label": [1]}, [None], "\ud800\0",
)  # fmt: skip


def changed(row, draw, values=VALUES):
    """A JSON object with values or keys exchanged, at any depth."""
    row = json.loads(json.dumps(row))
    for _ in range(draw.choice((0, 1, 1, 3))):
        place = row
        while isinstance(place, dict) and place:
            key = draw.choice(list(place))
            if isinstance(place[key], dict) and place[key] and draw.random() < 0.6:
                place = place[key]
                continue
            if draw.random() < 0.2:
                del place[key]
            elif draw.random() < 0.15:
                place[draw.choice(TEXTS)[:50]] = deepcopy(draw.choice(values))
            else:
                place[key] = deepcopy(draw.choice((*values, *TEXTS)))
            break
    return row


def dumped(row):
    try:
        return json.dumps(row)
    except ValueError:  # more digits than Python writes
        return '{"title": ' + "9" * 5000 + "}"


def jsonl(draw):
    rows = [json.loads(line) for line in lines_of("train.jsonl", 8)]
    lines = [dumped(changed({**row, "version": 1}, draw)) + "\n" for row in rows]
    if draw.random() < 0.1:
        lines[0] = '{"title":"a","abstract":' + "[" * 2000 + "]" * 2000 + "}\n"
    return "file.jsonl", linewise(lines, draw) if draw.random() < 0.3 else "".join(lines).encode()


def labels(draw):
    name, data = jsonl(draw)
    return name.replace("file", "labels"), data


def parquet(draw):
    import pyarrow as pa
    import pyarrow.parquet as pq

    def column(kind):
        texts = pa.array([draw.choice(TEXTS[:30]).encode("utf-8", "replace").decode() for _ in range(4)])
        return {
            "text": lambda: texts,
            "bytes": lambda: pa.array([draw.choice(BYTES) for _ in range(4)]),
            "int": lambda: pa.array([1, -1, None, 2**62]),
            "float": lambda: pa.array([1.0, float("nan"), None, 1e300]),
            "list": lambda: pa.array([["a"], [], None, ["b", "c"]]),
            "struct": lambda: pa.array([{"label": "A", "text": "t"}, None, {"label": None, "text": ""}, None]),
            "date": lambda: pa.array([1, 2**30, -(2**31), None], pa.int32()).cast(pa.date32()),
            "moment": lambda: pa.array([1, 2**52, -(2**52), None]).cast(pa.timestamp(draw.choice(("s", "us", "ns")))),
            "zone": lambda: pa.array([1, 2, 3, None]).cast(pa.timestamp("us", tz=draw.choice(("UTC", "No/Where")))),
            "words": lambda: texts.dictionary_encode(),
            "map": lambda: pa.array([[("a", "b")], None, [], [("c", "d")]], pa.map_(pa.string(), pa.string())),
            "null": lambda: pa.nulls(4),
            "decimal": lambda: pa.array([1, 2, 3, None]).cast(pa.decimal128(38, 2)),
        }[kind]()

    kinds = (
        "text",
        "bytes",
        "int",
        "float",
        "list",
        "struct",
        "date",
        "moment",
        "zone",
        "words",
        "map",
        "null",
        "decimal",
    )
    names = draw.sample(("title", "abstract", "pmid", "year", "doi", "language", "publication_types", "id", "other"), 5)
    if draw.random() < 0.1:
        names[0] = names[1]
    table = pa.Table.from_arrays(
        [column("text" if draw.random() < 0.4 else draw.choice(kinds)) for _ in names], names=names
    )
    out = io.BytesIO()
    pq.write_table(table, out, compression=draw.choice(("zstd", "none", "snappy")))
    data = out.getvalue()
    if draw.random() < 0.3:  # in the footer, which says how long everything is
        at = len(data) - 9 - draw.randrange(min(200, len(data) - 9))
        data = data[:at] + bytes([draw.randrange(256)]) + data[at + 1 :]
    return "file.parquet", data


# What is no record


def yaml_file(draw):
    path = draw.choice(sorted((ROOT / "configs").glob("*.yaml")))
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    if draw.random() < 0.1:
        return "bomb.yaml", ("a: &a [x, x]\n" + "".join(f"b{i}: &b{i} [*a, *a]\n" for i in range(9))).encode()
    if draw.random() < 0.05:
        return "deep.yaml", b"a: " + b"[" * 3000
    return "file.yaml", linewise(lines, draw)


def corrections(draw):
    from pipeline.taxonomy import load_taxonomy

    axes = [axis.name for axis in load_taxonomy().axes]
    if draw.random() < 0.5:
        lines = [",".join(["reviewed", "id", "pmid", "title", *axes]) + "\n", "x,99,99,title" + "," * len(axes) + "\n"]
        return "file.csv", linewise(lines * draw.choice((1, 2)), draw)
    result = {"type": "choices", "from_name": axes[0], "value": {"choices": ["hcc"]}}
    task = {"data": {"id": "1", "pmid": 1}, "annotations": [{"result": [result], "updated_at": "2026"}]}
    task["annotations"] = draw.choice((task["annotations"], *VALUES, [draw.choice(VALUES)]))
    if draw.random() < 0.5 and isinstance(task["annotations"], list) and task["annotations"]:
        one = task["annotations"][0]
        if isinstance(one, dict) and "result" in one:
            one["result"] = draw.choice((*VALUES, [draw.choice(VALUES)], [{**result, "value": draw.choice(VALUES)}]))
    return "file.json", dumped([changed(task, draw)]).encode()


def card(draw):
    settings = json.loads((ROOT / "data" / "models" / "hepatag-mini" / "hepatag.json").read_text(encoding="utf-8"))
    return "hepatag.json", dumped(changed(settings, draw, (*VALUES, -0.1, 1.0, 2, 1e308))).encode()


MAKERS = {
    "xml": xml, "sound": xml_sound, "nbib": nbib, "csv": csv_table, "tsv": tsv, "jsonl": jsonl, "parquet": parquet,
    "text": text, "yaml": yaml_file, "labels": labels, "corrections": corrections, "card": card,
}  # fmt: skip
