import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from pipeline.corpus import digest, label_counts, label_matrix, leakage, missing_labels, read_examples
from pipeline.errors import InputError, LabelError
from pipeline.records import NO_ABSTRACT
from pipeline.taxonomy import load_taxonomy

TAXONOMY = load_taxonomy()
LABELLED = Path(__file__).parents[2] / "shared" / "labelled"


def row(identifier="a1", **changes):
    labels = {"cancer_type": ["hcc"], "ir_modality": ["tace"], "study_design": ["retrospective"]}
    text = {"title": "Beads in small tumours", "abstract": "AIM: We looked back at forty procedures."}
    return {"id": identifier, **text, "labels": labels, **changes}


def write(path, *rows):
    path.write_text("".join(json.dumps(one) + "\n" for one in rows), encoding="utf-8")
    return path


def message(error, *paths):
    with pytest.raises(error) as caught:
        read_examples(paths)
    return str(caught.value)


def test_reads_every_field(tmp_path):
    path = write(tmp_path / "a.jsonl", row(pmid=17, doi="10.1/x", year=2019, note="ignored"), row("a2", labels={}))
    first, second = read_examples([path])
    assert first.labels == {"cancer_type:hcc", "ir_modality:tace", "study_design:retrospective"}
    assert (first.record.id, first.record.pmid, first.record.doi, first.record.year) == ("a1", 17, "10.1/x", 2019)
    assert first.record.title == "Beads in small tumours"
    assert first.record.abstract_text() == "AIM: We looked back at forty procedures."
    assert second.labels == frozenset()
    assert second.record.pmid is None


def test_title_alone_is_enough_and_flagged(tmp_path):
    (example,) = read_examples([write(tmp_path / "a.jsonl", row(abstract=""))])
    assert example.record.abstract == ()
    assert example.record.flags == (NO_ABSTRACT,)


def test_pmid_stands_in_for_a_missing_id(tmp_path):
    (example,) = read_examples([write(tmp_path / "a.jsonl", row(None, pmid=99))])
    assert example.record.id == "99"


def test_gzip_and_parquet_give_the_same_examples(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as parquet

    rows = [row(pmid=5, year=2001), row("a2", labels={"cancer_type": []})]
    plain = write(tmp_path / "a.jsonl", *rows)
    packed = tmp_path / "no-suffix"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    table = tmp_path / "a.parquet"
    parquet.write_table(pa.Table.from_pylist(rows), table)
    assert read_examples([plain]) == read_examples([packed]) == read_examples([table])


def test_blank_lines_and_a_byte_order_mark_do_not_count(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("\ufeff" + json.dumps(row()) + "\n\n  \n" + json.dumps(row("a2")), encoding="utf-8")
    assert [example.record.id for example in read_examples([path])] == ["a1", "a2"]


def test_missing_file(tmp_path):
    assert "no such file" in message(InputError, tmp_path / "none.jsonl")


def test_a_folder_is_not_a_file(tmp_path):
    assert str(tmp_path) in message(InputError, tmp_path)


@pytest.mark.parametrize("content", ["", "\n\n"])
def test_empty_file(tmp_path, content):
    path = tmp_path / "empty.jsonl"
    path.write_text(content)
    assert "expected labelled records" in message(InputError, path)


def test_a_line_that_is_not_json_is_named(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(row()) + "\n{broken\n", encoding="utf-8")
    assert f"{path}:2:" in message(InputError, path)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"labels": None}, "`labels`"),
        ({"labels": ["hcc"]}, "`labels`"),
        ({"labels": {"cancer_type": "hcc"}}, "`labels`"),
        ({"labels": {"cancer_type": [1]}}, "`labels`"),
        ({"title": " ", "abstract": None}, "a title or an abstract"),
        ({"abstract": ["two", "parts"]}, "`abstract`"),
        ({"pmid": "PMC12"}, "`pmid`"),
        ({"pmid": True}, "`pmid`"),
        ({"year": -1}, "`year`"),
        ({"id": "  "}, "`id`"),
    ],
)
def test_an_unusable_record_is_named(tmp_path, changes, said):
    path = write(tmp_path / "a.jsonl", row(), row(**{"identifier": "a2", **changes, "id": changes.get("id", "a2")}))
    told = message(InputError, path)
    assert f"{path}:2:" in told
    assert said in told


def test_a_list_instead_of_an_object(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("[1, 2]\n")
    assert "JSON object, found list" in message(InputError, path)


def test_a_label_outside_the_scheme_is_named_with_its_neighbour(tmp_path):
    path = write(tmp_path / "a.jsonl", row(), row("a2", labels={"ir_modality": ["tacee"]}))
    told = message(LabelError, path)
    assert f"{path}:2" in told
    assert "“tace”" in told


def test_a_label_set_against_the_rules(tmp_path):
    path = write(tmp_path / "a.jsonl", row(labels={"cancer_type": ["hcc"]}))
    assert "study_design" in message(LabelError, path)


def test_an_id_that_stands_twice_is_named(tmp_path):
    paths = [write(tmp_path / "a.jsonl", row(), row("b")), write(tmp_path / "b.jsonl", row())]
    told = message(InputError, *paths)
    assert f"{paths[0]}:1" in told
    assert f"{paths[1]}:1" in told


def test_damaged_gzip(tmp_path):
    path = tmp_path / "a.jsonl.gz"
    whole = gzip.compress("".join(json.dumps(row(f"r{i}")) + "\n" for i in range(50)).encode())
    path.write_bytes(whole[: len(whole) // 2])
    assert "gzip" in message(InputError, path)


def test_damaged_parquet(tmp_path):
    path = tmp_path / "a.parquet"
    path.write_bytes(b"PAR1 and nothing more")
    assert "Parquet" in message(InputError, path)


def test_other_encoding(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(json.dumps(row(title="Für"), ensure_ascii=False).encode("latin-1"))
    assert "UTF-8" in message(InputError, path)


def test_matrix_counts_and_missing_follow_the_scheme(tmp_path):
    examples = read_examples([write(tmp_path / "a.jsonl", row(), row("a2", labels={}))])
    matrix = label_matrix(examples, TAXONOMY)
    assert matrix.shape == (2, len(TAXONOMY.names))
    assert matrix.dtype == bool
    given = [TAXONOMY.names[column] for column in np.flatnonzero(matrix[0])]
    assert given == ["cancer_type:hcc", "ir_modality:tace", "study_design:retrospective"]
    assert not matrix[1].any()
    counts = label_counts(examples, TAXONOMY)
    assert list(counts) == list(TAXONOMY.names)
    assert counts["cancer_type:hcc"] == 1
    assert set(missing_labels(examples, TAXONOMY)) == set(TAXONOMY.names) - examples[0].labels


def test_digest_sees_ids_texts_and_labels_but_not_the_order(tmp_path):
    def of(*rows):
        return digest(read_examples([write(tmp_path / "d.jsonl", *rows)]))

    base = of(row(), row("b"))
    assert len(base) == 64
    assert of(row("b"), row()) == base
    assert of(row(year=1999), row("b")) == base
    changed = [row("c"), row(title="Other"), row(abstract="Other."), row(labels={})]
    assert len({base, *(of(one, row("b")) for one in changed)}) == 5


def test_leakage_finds_the_same_text_under_another_id(tmp_path):
    long = "Patients came, were treated and went home. " * 8
    train = read_examples([write(tmp_path / "t.jsonl", row("t1"), row("t2", abstract=long))])
    other = [
        row("same", title="BEADS, in small tumours.", abstract="Aim - we looked back at forty procedures"),
        row("other title", title="Another heading", abstract=long.upper()),
        row("short abstract alone", title="Another heading"),
        row("new", abstract="Nothing of the kind."),
    ]
    found = leakage(train, read_examples([write(tmp_path / "o.jsonl", *other)]))
    assert found == ["same", "other title"]


def test_the_real_files_are_sound_and_apart():
    if not LABELLED.exists():
        pytest.skip("the shared data are not here")
    train = read_examples([LABELLED / f"{name}.jsonl" for name in ("train", "train_trials", "train_written")])
    dev = read_examples([LABELLED / "dev.jsonl"])
    assert (len(train), len(dev)) == (3038, 243)
    assert missing_labels(train, TAXONOMY) == []
    assert leakage(train, dev) == []
