"""Tables, JSON, nbib and page text: one record a row, rejects for the rest, nothing lost."""

import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import InputError
from pipeline.formats import field_of, read_csv, read_jsonl, read_parquet
from pipeline.plaintext import read_nbib, read_text
from pipeline.records import Record, Reject, Section


def stream(text):
    return io.BufferedReader(io.BytesIO(text if isinstance(text, bytes) else text.encode()))


def jsonl(*rows):
    return list(
        read_jsonl(stream("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows)), "in.jsonl")
    )


def test_jsonl_record():
    row = {
        "pmid": 900000001,
        "id": "x",
        "doi": "https://doi.org/10.5555/A.1",
        "title": "[Of two words].",
        "abstract": [{"label": "AIMS:", "text": "We asked."}, "And more."],
        "year": 2020.0,
        "journal": "J Made Up",
        "language": ["en"],
        "version": 2,
        "publication_types": ["Retracted Publication"],
        "labels": {"finding": []},
        "note": None,
    }
    assert jsonl(row) == [
        Record(
            id="900000001",
            title="Of two words",
            abstract=(Section("AIMS", "We asked."), Section("", "And more.")),
            pmid=900000001,
            version=2,
            language="eng",
            year=2020,
            journal="J Made Up",
            doi="10.5555/A.1",
            publication_types=("Retracted Publication",),
            flags=("retracted",),
        )
    ]


def test_jsonl_ids_and_forms_of_abstracts():
    by_id, by_number, by_label, truncated = jsonl(
        {"id": "NCT1", "title": "T", "abstract": None},
        {"abstract": "Only text", "pmid": None, "id": ""},
        {"abstract": {"AIMS": "a", "RESULTS": "b"}},
        {"Title": "T", "ABSTRACT": "Text. (ABSTRACT TRUNCATED AT 400 WORDS)"},
    )
    assert (by_id.id, by_id.pmid, by_id.flags) == ("NCT1", None, ("no_abstract",))
    assert (by_number.id, by_number.title) == ("in:2", "")
    assert by_label.abstract_text() == "AIMS: a RESULTS: b"
    assert (truncated.abstract_text(), truncated.flags) == ("Text.", ("truncated_source",))


def test_jsonl_what_is_no_record_is_rejected_with_its_place():
    entries = jsonl(
        {"title": "kept"},
        "",
        "{broken",
        "[1, 2]",
        {"title": "", "abstract": " "},
        {"title": "t", "pmid": "12a"},
        {"title": {"a": 1}},
        {"title": "t", "abstract": [["deep", {"text": {}}]]},
        "[" * 100_000,
        {"title": "lone \ud800 and \u0000"},
    )
    assert [type(entry) for entry in entries] == [Record] + [Reject] * 7 + [Record]
    assert [entry.place for entry in entries[1:-1]] == [f"line {number}" for number in range(3, 10)]
    for entry, word in zip(
        entries[1:-1], ["not JSON", "list", "neither", "12a", "dict", "dict", "not JSON"], strict=True
    ):
        assert word in entry.reason and "expected" in entry.reason
    assert entries[-1].title == "lone \ufffd and \ufffd"


def test_jsonl_bad_bytes_and_long_lines(monkeypatch):
    assert next(read_jsonl(stream(b'{"title": "Caf\xe9"}'), "x")).title == "Caf\ufffd"
    monkeypatch.setattr("pipeline.formats.MAX_ROW_CHARACTERS", 100)
    rows = jsonl({"title": "x" * 350}, {"title": "after"})
    assert isinstance(rows[0], Reject) and rows[1].title == "after"


def test_json_array_is_refused():
    with pytest.raises(InputError, match="JSON array"):
        list(read_jsonl(stream('[\n{"title": "x"}]'), "x"))


@pytest.mark.parametrize("delimiter", [",", "\t", ";", "|"])
def test_csv_delimiters_and_aliases(delimiter):
    lines = [
        ["PMID", "Article Title", "Journal/Book", "Publication Year", "DOI", "Abstract", "Notes"],
        ["900000001", '"A title, with; signs|and ""quotes"""', "J", "2001", "10.5555/x", '"Two\nlines"', "n"],
        ["", "", "", "", "", "", ""],
        ["", "Another", "", "", "", ""],
    ]
    text = "\ufeff" + "\r\n".join(delimiter.join(cells) for cells in lines)
    first, second = read_csv(stream(text), "tab.csv")
    assert (first.pmid, first.title, first.year) == (900000001, 'A title, with; signs|and "quotes"', 2001)
    assert (first.journal, first.doi, first.abstract_text()) == ("J", "10.5555/x", "Two lines")
    assert (second.id, second.title, second.flags) == ("tab:2", "Another", ("no_abstract",))


def test_csv_rejects_keep_their_lines():
    text = "title,pmid\nfine,1\nbad,x\na,2,extra\n,3\nnul\0,4\n"
    fine, bad, extra, empty, nul = read_csv(stream(text), "t.csv")
    assert [entry.place for entry in (bad, extra, empty)] == ["line 3", "line 4", "line 5"]
    assert "“x”" in bad.reason and "2 fields, found 3" in extra.reason and "neither" in empty.reason
    assert fine.pmid == 1 and nul.title == "nul\ufffd"


def test_csv_overlong_field_costs_its_row():
    rows = list(read_csv(stream('title,pmid\n"' + "x" * 200_000 + '",1\nfine,2\n'), "t.csv"))
    assert isinstance(rows[0], Reject) and rows[-1].title == "fine"


def test_csv_and_parquet_without_text_columns(tmp_path):
    with pytest.raises(InputError, match="“title” or “abstract”, found a, b"):
        list(read_csv(stream("a,b\n1,2\n"), "t.csv"))
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"a": [1]}), path)
    with pytest.raises(InputError, match="found a"):
        list(read_parquet(path, path.name))


def test_utf16_csv():
    assert next(read_csv(stream("title,year\nGröße,1999\n".encode("utf-16")), "t.csv")).title == "Größe"


def test_parquet(tmp_path):
    path = tmp_path / "p.parquet"
    table = pa.table(
        {
            "PMID": pa.array([1.0, float("nan"), None]),
            "Title": ["a", "b", None],
            "abstract": pa.array([[{"label": "AIMS", "text": "x"}], None, None]),
            "publication_types": pa.array([["Review"], None, None]),
            "other": [1, 2, 3],
        }
    )
    pq.write_table(table, path)
    first, second, third = read_parquet(path, path.name)
    assert (first.pmid, first.abstract, first.publication_types) == (1, (Section("AIMS", "x"),), ("Review",))
    assert (second.id, second.pmid) == ("p:2", None)
    assert third.place == "row 3" and isinstance(third, Reject)


def test_parquet_damage(tmp_path):
    path = tmp_path / "p.parquet"
    pq.write_table(pa.table({"title": ["a"] * 1000}), path)
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(InputError, match="whole Parquet file"):
        list(read_parquet(path, path.name))


def test_column_names():
    assert field_of("Abstract Note") == "abstract" and field_of("publication_types") == "publication_types"
    assert field_of("labels") is None and field_of("p_title") is None


NBIB = """
PMID- 900000001
OWN - NLM
DP  - 2019 Winter
TI  - [A title on two
      lines].
LID - S1234 [pii]
LID - 10.5555/nb.1 [doi]
AB  - BACKGROUND: We asked. RESULTS: We
      found.
LA  - fre
PT  - Journal Article
PT  - Review
RIN - J Made Up. 2021;1:2. PMID: 5
TA  - J Made Up
JT  - Journal of made-up things

PMID- 900000002
TI  - Only a title
LA  - ger
PMID- 900000003
TI  - [Not Available].
TT  - Los tumores.
OAB - Publisher: Las palabras.
OABL- spa
stray words
PMID- 900000004
"""


def test_nbib():
    first, second, stray, third, fourth = read_nbib(stream(NBIB), "in.nbib")
    assert first == Record(
        id="900000001",
        title="A title on two lines",
        abstract=(Section("", "BACKGROUND: We asked. RESULTS: We found."),),
        pmid=900000001,
        language="fre",
        year=2019,
        journal="Journal of made-up things",
        doi="10.5555/nb.1",
        publication_types=("Journal Article", "Review"),
        flags=("retracted",),
    )
    assert (second.pmid, second.flags) == (900000002, ("no_abstract", "not_english"))
    assert (third.title, third.abstract_text(), third.flags) == ("Los tumores.", "Las palabras.", ("not_english",))
    assert isinstance(stray, Reject) and stray.place == "line 26"
    assert isinstance(fourth, Reject) and "neither" in fourth.reason and fourth.place == "line 27"


SAVED = """1. J Made Up Hepatol. 2021 Mar;74(3):123-130. doi: 10.5555/page.2021.1. Epub 2020
Oct 1.

Freezing of small lesions in a liver that never was:
a study.

Müller-Smith A(1), O'Brien BC(2)(3), van der Berg D(1).

Author information:
(1)Department of Invention, University of Nowhere, Nowhere. Electronic address:
a@example.org.
(2)Institute of the Liver, Elsewhere.

BACKGROUND & AIMS: We asked whether this is of use to the
patients.
METHODS: We treated 20 patients.

CONCLUSION: It was of use in most of them.

Publisher: CONTEXTE: Nous avons demandé si la méthode est utile pour les patients et les
médecins dans une étude.

Copyright © 2021 The Authors.

DOI: 10.5555/page.2021.1
PMCID: PMC1234567
PMID: 900000001 [Indexed for MEDLINE]

Conflict of interest statement: The authors have none to report.

2. Made Up Lett. 1999;1:2.

A second one.

PMID: 900000002
"""


def test_text_saved_from_pubmed():
    first, second = read_text(stream(SAVED), "page.txt")
    assert first.title == "Freezing of small lesions in a liver that never was: a study."
    assert (first.pmid, first.year, first.journal) == (900000001, 2021, "J Made Up Hepatol")
    assert first.doi == "10.5555/page.2021.1"
    assert first.abstract_text() == (
        "BACKGROUND & AIMS: We asked whether this is of use to the patients. METHODS: We treated 20 patients. "
        "CONCLUSION: It was of use in most of them."
    )
    assert first.flags == ()
    assert (second.pmid, second.title, second.flags) == (900000002, "A second one.", ("no_abstract",))


COPIED = """J Made Up Hepatol
. 2021 Mar;74(3):123-130. doi: 10.5555/page.2021.1.
Freezing of small lesions in a liver that never was
Anna Müller 1, Bert C O'Brien 2, Dirk van der Berg 1
Affiliations
1 Department of Invention, University of Nowhere.
2 Institute of the Liver, Elsewhere.
PMID: 900000001 DOI: 10.5555/page.2021.1
Abstract
Background: We asked whether this is of use to the patients.
Conclusions: It was of use in most of them.
Keywords: cryoablation; liver.
Resumen
Antecedentes: Preguntamos si esto es de utilidad para los pacientes y el hospital.
"""


def test_text_copied_from_the_page():
    (record,) = read_text(stream(COPIED), "page.txt")
    assert record.title == "Freezing of small lesions in a liver that never was"
    assert (record.pmid, record.year, record.journal) == (900000001, 2021, "J Made Up Hepatol")
    assert record.abstract_text() == (
        "Background: We asked whether this is of use to the patients. Conclusions: It was of use in most of them."
    )


def test_text_of_just_an_abstract():
    body = "We froze small lesions in the liver\nof 20 patients, and it was of use in most of them.\n"
    (record,) = read_text(stream(body), "note.txt")
    assert (record.id, record.title, record.abstract_text()) == ("note:1", "", " ".join(body.split()))
    (titled,) = read_text(stream("On freezing\n\n" + body), "note.txt")
    assert (titled.title, titled.abstract_text()) == ("On freezing", " ".join(body.split()))


def test_text_in_another_language_only():
    (record,) = read_text(
        stream("Le titre\n\nNous avons traité les patients avec une méthode dans la clinique."), "n.txt"
    )
    assert record.flags == ("not_english",) and record.abstract_text().startswith("Nous avons")
    (cyrillic,) = read_text(
        stream("A title\n\nThe words of the study were in English.\n\nСлова на другом языке."), "n.txt"
    )
    assert cyrillic.abstract_text() == "The words of the study were in English."


def test_text_without_words_is_rejected():
    (entry,) = read_text(stream("PMID: 5\n"), "n.txt")
    assert isinstance(entry, Reject) and "neither" in entry.reason
