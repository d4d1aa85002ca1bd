# ruff: noqa: E501
"""Hostile inputs by name, each with what becomes of it. Time and memory are measured in a process of their own."""

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.config import TrainConfig, load_config
from pipeline.corpus import read_examples
from pipeline.corrections import read_corrections
from pipeline.errors import ConfigError, HepatagError, InputError
from pipeline.readers import read
from pipeline.records import Record, Reject

ROOT = Path(__file__).parents[2]
LONG = bool(os.environ.get("HEPATAG_ABUSE"))
ARTICLE = (
    "<PubmedArticle><MedlineCitation><PMID Version='{version}'>{pmid}</PMID><Article><ArticleTitle>{title}</ArticleTitle>"
    "{more}</Article></MedlineCitation></PubmedArticle>"
)
PROBE = """
import json, resource, sys
from pathlib import Path
from pipeline.errors import HepatagError
from pipeline.readers import read
kinds, reasons, error = [], [], ""
for gate in (False, True):
    try:
        for entry in read(Path(sys.argv[1]), gate=gate):
            kinds.append(type(entry).__name__)
            reasons.append(getattr(entry, "reason", ""))
    except HepatagError as found:
        error = str(found)
used = resource.getrusage(resource.RUSAGE_SELF)
# Not ru_maxrss: a process inherits that of the one that started it.
peak = next(int(line.split()[1]) >> 10 for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(json.dumps([kinds[:50], reasons[:50], error, peak, used.ru_utime + used.ru_stime]))
"""


def article(title="Liver", pmid=5, version=1, more=""):
    return ARTICLE.format(title=title, pmid=pmid, version=version, more=more)


def document(*records, head=""):
    return f"{head}<PubmedArticleSet>{''.join(records)}</PubmedArticleSet>".encode("utf-8", "surrogatepass")


@pytest.fixture
def put(tmp_path):
    def write(data, name="file.xml"):
        path = tmp_path / name
        path.write_bytes(data)
        return path

    return write


def probe(path, *, most_mb=600, seconds=10):
    """What a process of its own makes of a file, with the gate and without: kinds, reasons, error."""
    done = subprocess.run([sys.executable, "-c", PROBE, path], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-2000:]
    kinds, reasons, error, peak, used = json.loads(done.stdout)
    assert peak < most_mb and used < seconds, (peak, used)
    return kinds, reasons, error


def test_entity_bombs_and_external_entities_are_refused(put):
    bomb = '<!DOCTYPE a [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]>'
    outside = '<!DOCTYPE a [<!ENTITY a SYSTEM "file:///etc/passwd">]>'
    for head in (bomb, outside, "<?xml version='1.0'?>" + bomb):
        for encoding in ("utf-8", "utf-16"):
            path = put(document(article("&b;"), head=head).decode().encode(encoding))
            with pytest.raises(InputError, match="declarations inside"):
                list(read(path))


def test_an_entity_declared_late_is_refused(put):
    record = article("<!DOCTYPE a [<!ENTITY b SYSTEM 'file:///etc/passwd'>]>&b; liver")
    with pytest.raises(InputError, match="closing tag"):
        list(read(put(document(record))))


GB2 = 2_000_000_000


@pytest.mark.parametrize("size", [GB2 if LONG else 20_000_000])
@pytest.mark.parametrize(
    ("name", "start", "unit"),
    [
        ("records.xml.gz", b"<PubmedArticleSet>", article("x").encode() * 1000),
        ("one.xml.gz", b"<PubmedArticleSet><PubmedArticle>", b"<a/>" * 50_000),
        ("large.xml.gz", b"<PubmedArticleSet>", b"<PubmedArticle>" + b" " * 30_000_000 + b"</PubmedArticle>"),
        ("line.csv.gz", b"title,abstract\n", b"x" * 100_000),
        ("line.jsonl.gz", b'{"title":"', b"x" * 100_000),
        ("line.nbib.gz", b"PMID- 5\nTI  - ", b"x" * 100_000),
        ("fields.nbib.gz", b"PMID- 5\n", b"TI  - xx\n" * 20_000),
        ("text.txt.gz", b"The liver. ", b"liver and tumour " * 5_000),
    ],
)
def test_gzip_bombs_leave_memory_flat(tmp_path, size, name, start, unit):
    path = tmp_path / name
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(start)
        if unit.startswith((b"<PubmedArticle><", b"TI")):  # it is the number of records and fields that takes time here
            size //= 10
        for _ in range(size // len(unit)):
            file.write(unit)
    assert path.stat().st_size < size / 20
    probe(path, seconds=900 if LONG else 30)


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("a record of 50 MB", lambda: document(article("x " * 25_000_000)), "beside persons"),
        ("a title of a megabyte and more", lambda: document(article("x " * 900_000)), "at most 1,000,000 characters"),
        ("60 MB of empty elements", lambda: document(article(more="<a/>" * 15_000_000)), "beside persons"),
        ("millions of entities", lambda: document(article(more="&a;" * 5_000_000)), "beside persons"),
        ("two million attributes", lambda: document(article(more="<a b='' c='' d=''/>" * 700_000)), "beside persons"),
        ("depth", lambda: document(article(more="<a>" * 5_000 + "</a>" * 5_000)), "well-formed"),
    ],
)
def test_records_out_of_all_size_are_rejected(put, name, data, reason):
    kinds, reasons, error = probe(put(data()))
    assert (kinds[0], error) == ("Reject", "") and reason in reasons[0], name


def test_a_million_authors(put):
    authors = "<AuthorList>" + "<Author><LastName>x</LastName></Author>" * 1_000_000 + "</AuthorList>"
    kinds, _, error = probe(put(document(article("Hepatocellular carcinoma", more=authors))))
    assert (kinds, error) == (["Record", "Record"], "")


@pytest.mark.parametrize(
    "data",
    [
        b"<PubmedArticleSet><PubmedArticle>" + b"<PubmedArticle " * 300_000,
        b"<PubmedArticleSet><PubmedArticle " + b"a " * 10_000_000,
        b"<PubmedArticleSet><PubmedArticle " + b"a=\"'" * 3_000_000,
        b"<PubmedArticleSet><PubmedArticle>" + b"!" * 10_000_000,
        b"<PubmedArticleSet><PubmedArticle>" + b"dA" * 10_000_000,
        b"<PubmedArticleSet><PubmedArticle>" + b"<!--" * 1_000_000,
    ],
    ids=["start tags", "one tag", "quotes", "signs", "words", "comments"],
)
def test_tags_without_end_take_no_time(put, data):
    assert "closing tag" in probe(put(data))[2]


@pytest.mark.parametrize(
    "title", ["<" * 300_000, "[" * 300_000, "[" + "." * 300_000 + "x", "<!--" * 100_000, "&" * 300_000]
)
def test_titles_made_for_patterns_take_no_time(put, title):
    kinds, _, error = probe(put(document(article(title))))
    assert len(kinds) == 2 or "closing tag" in error


def test_a_line_of_names_made_for_patterns_takes_no_time(put):
    text = "1. J Liver. 2020 Jan;1(1):1-2.\n\nA title.\n\n" + "Aa   , " * 300 + "!\n\nThe liver is studied here.\n"
    assert len(probe(put(text.encode(), "page.txt"))[0]) == 2


@pytest.mark.parametrize("encoding", ["idna", "undefined", "hex", "unicode_escape", "utf-7", "no-such", "punycode"])
def test_names_that_are_no_encoding_are_refused(put, encoding):
    with pytest.raises(InputError):
        list(read(put(document(article(), head=f"<?xml version='1.0' encoding='{encoding}'?>"))))


@pytest.mark.parametrize(("declared", "used"), [("utf-16", "utf-8"), ("utf-8", "utf-16"), ("utf-8", "latin-1")])
def test_a_wrong_encoding_declared_costs_characters_at_most(put, declared, used):
    text = document(article("Größe of the liver"), head=f"<?xml version='1.0' encoding='{declared}'?>").decode()
    (entry,) = read(put(text.encode(used)))
    assert isinstance(entry, Record) and entry.title.endswith("e of the liver")


def test_an_encoding_of_its_own_is_gated_and_mended_as_any(put):
    head = "<?xml version='1.0' encoding='iso-8859-1'?>"
    path = put(document(article("Größe"), article("Hepatoma", pmid=6), head=head).decode().encode("latin-1"))
    assert [type(entry).__name__ for entry in read(path, gate=True)] == ["Skipped", "Record"]
    assert [entry.title for entry in read(path)] == ["Größe", "Hepatoma"]


def test_lone_surrogates_nul_and_control_codes_cost_a_character(put):
    first, second = read(put(document(article("a\ud800b"), article("a\0\x1bb"))))
    assert "a" in first.title and "b" in first.title and "\ufffd" in second.title
    row = {"title": "a\ud800\0\x1b[31m\x9b31m", "doi": "10.1234/\ud800\x1b[31m", "pmid": 5, "version": 10**12}
    (entry,) = read(put(json.dumps(row).encode(), "a.jsonl"))
    assert not set("\ud800\0\x1b\x9b") & set(entry.title + entry.doi) and entry.version == 1


def test_tags_inside_cdata_comments_and_instructions_are_text(put):
    title = "<![CDATA[</PubmedArticle>]]><!-- </PubmedArticle> --><?x </PubmedArticle>?> liver"
    (entry,) = read(put(document(article(title))))
    assert entry.title == "</PubmedArticle> liver"


def test_a_title_in_an_instruction_does_not_gate(put):
    record = article("Hepatocellular carcinoma").replace(
        "<Article>", "<Article><?x <ArticleTitle>Mice</ArticleTitle>?>"
    )
    assert [type(entry).__name__ for entry in read(put(document(record)), gate=True)] == ["Record"]


@pytest.mark.parametrize("version", ["99999999999999", "2147483648", "0", "x"])
def test_versions_that_are_none_count_as_one(put, version):
    for gate in (False, True):
        (entry,) = read(put(document(article("Heart", version=version))), gate=gate)
        assert entry.version == 1


@pytest.mark.parametrize("pmid", ["9" * 19, "9" * 5000, "0", "-1", "1e400"])
def test_numbers_beyond_bounds_are_rejected(put, pmid):
    assert isinstance(next(iter(read(put(document(article(pmid=pmid)))))), Reject)
    assert isinstance(next(iter(read(put(f'{{"title":"a","pmid":{pmid}}}'.encode(), "a.jsonl")))), Reject)


def test_csv_fields_of_megabytes_and_quotes_without_end(put):
    rows = f'title,pmid\n"{"x" * 10_000_000}",1\nliver,2\n"never closed,3\nliver,4\n'
    entries = list(read(put(rows.encode(), "a.csv")))
    assert [type(entry).__name__ for entry in entries] == ["Reject", "Record", "Record"]
    with pytest.raises(InputError, match="column names"):
        list(read(put(f"title,{'x' * 200_000}\na,b\n".encode(), "b.csv")))


def test_json_in_depth(put):
    lines = ['{"title":"a","abstract":' + "[" * depth + "]" * depth + "}" for depth in (2, 480, 5_000)]
    kinds = [type(entry).__name__ for entry in read(put("\n".join(lines).encode(), "a.jsonl"))]
    assert kinds == ["Record", "Reject", "Reject"]
    for line in (*lines[1:], '{"title": ' + "9" * 5_000 + "}"):
        with pytest.raises(InputError):
            read_examples([put(line.encode(), "labels.jsonl")])
        with pytest.raises(HepatagError):
            read_corrections(put(b"[" + line.encode() + b"]", "export.json"))


def test_parquet_of_impossible_dates_costs_the_row(put, tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    years = pa.array([0, 2**28, None], pa.int32()).cast(pa.date32())
    pq.write_table(pa.table({"title": ["a", "b", "c"], "date": years}), tmp_path / "a.parquet")
    assert [type(entry).__name__ for entry in read(tmp_path / "a.parquet")] == ["Record", "Reject", "Record"]
    zone = pa.array([1, 2, 3]).cast(pa.timestamp("us", tz="No/Where"))
    pq.write_table(pa.table({"title": ["a", "b", "c"], "date": zone}), tmp_path / "b.parquet")
    assert len(list(read(tmp_path / "b.parquet"))) == 3


@pytest.mark.parametrize(
    "text",
    [
        "a: &a [x, x]\n" + "".join(f"b{i}: &b{i} [*a, *a]\n" for i in range(30)),
        "a: &a {x: 1}\nb: {<<: [*a, *a]}\n",
        "a: " + "[" * 5_000,
        "a: 2026-13-45",
        "a: " + "9" * 5_000,
        "a: !!python/object/apply:os.system [x]",
        'data: {train: "a\\0b", dev: c}',
        "x" * 100_000,
    ],
)
def test_configs_made_to_harm(put, text):
    with pytest.raises(ConfigError) as caught:
        load_config(TrainConfig, put(text.encode(), "a.yaml"))
    assert len(str(caught.value)) < 1_000


@pytest.mark.parametrize(
    "annotations",
    [1, "x", [1], ["x"], [{"result": 1}], [{"result": [{"type": "choices", "value": 1, "from_name": "a"}]}]],
)
def test_annotations_that_are_none(put, annotations):
    with pytest.raises(InputError, match="choices"):
        read_corrections(put(json.dumps([{"data": {"id": "1"}, "annotations": annotations}]).encode(), "a.json"))
