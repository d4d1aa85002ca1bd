"""Formats are told by content, whatever the name; the gate; one clear sentence for what is no input."""

import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import InputError
from pipeline.readers import FORMATS, detect_format, read
from pipeline.records import Record, Skipped

XML = (
    "<?xml version='1.0'?>\n<PubmedArticleSet><PubmedArticle><MedlineCitation><PMID>1</PMID><Article><ArticleTitle>On "
    "hepatoma</ArticleTitle></Article></MedlineCitation></PubmedArticle></PubmedArticleSet>"
)
CONTENT = {
    "pubmed": XML,
    "nbib": "\nPMID- 1\nTI  - On hepatoma\n",
    "jsonl": json.dumps({"pmid": 1, "title": "On hepatoma"}) + "\n",
    "csv": "\ufeffpmid;Title\n1;On hepatoma\n",
    "text": "1. J Made Up. 2020;1:2.\n\nOn hepatoma\n\nPMID: 1\n",
}


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("packed", [False, True])
def test_every_format_by_content(tmp_path, kind, packed):
    path = tmp_path / "input.dat"
    if kind == "parquet":
        pq.write_table(pa.table({"pmid": [1], "title": ["On hepatoma"]}), path)
    else:
        data = CONTENT[kind].encode()
        path.write_bytes(gzip.compress(data) if packed else data)
    assert detect_format(path) == kind
    for format in (None, kind):
        (entry,) = read(path, format=format)
        assert isinstance(entry, Record) and (entry.pmid, entry.title) == (1, "On hepatoma")
        assert list(read(path, format=format, gate=True)) == [entry]


@pytest.mark.parametrize("kind", CONTENT)
def test_gate_leaves_the_number(tmp_path, kind):
    path = tmp_path / "input"
    path.write_text(CONTENT[kind].replace("hepatoma", "hearts"))
    (entry,) = read(path, gate=True)
    assert isinstance(entry, Skipped) and (entry.pmid, entry.version) == (1, 1)


def test_gate_leaves_the_id_where_there_is_no_number(tmp_path):
    path = tmp_path / "input.jsonl"
    path.write_text('{"id": "a", "title": "On hearts"}')
    assert list(read(path, gate=True)) == [Skipped(None, 1, "a")]


def test_utf16(tmp_path):
    path = tmp_path / "x"
    for kind in ("pubmed", "csv", "text", "jsonl", "nbib"):
        path.write_bytes(CONTENT[kind].lstrip("\ufeff").encode("utf-16"))
        assert detect_format(path) == kind
        assert [entry.pmid for entry in read(path)] == [1]


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"", "an empty file"),
        (gzip.compress(b"", mtime=0), "an empty file"),
        (b"%PDF-1.7\n%stuff", "a PDF"),
        (b"PK\x03\x04rest", "Office"),
        (bytes(range(256)) * 40, "binary data"),
        (b"1 2 3\n4 5 6\n", "no words"),
        (b"<html><body>Words of a page</body></html>", "<html>"),
        (gzip.compress(b"words " * 9000, mtime=0)[:-20], "gz"),
    ],
)
def test_content_that_does_not_tell(tmp_path, data, word):
    path = tmp_path / "input"
    path.write_bytes(data)
    with pytest.raises(InputError, match="expected") as caught:
        list(read(path))
    assert word in str(caught.value) and "found" in str(caught.value)


def test_missing_folder_and_unknown_format(tmp_path):
    with pytest.raises(InputError, match="found nothing"):
        detect_format(tmp_path / "none")
    with pytest.raises(InputError, match="found a folder"):
        list(read(tmp_path))
    (tmp_path / "x").write_text("Words")
    with pytest.raises(InputError, match=r"pubmed, nbib.*found “docx”"):
        list(read(tmp_path / "x", format="docx"))
