"""Reasons: sentences of abstracts, drops that anyone can repeat, reasons in the library."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import OutputError
from pipeline.label import label
from pipeline.predict import Predictor
from pipeline.readers import read
from pipeline.reason_shards import kept_labels
from pipeline.reasons import explain, sentences_of, without
from pipeline.records import Record, Section
from pipeline.sentences import split
from pipeline.shards import Library
from pipeline.taxonomy import load_taxonomy

ROOT = Path(__file__).parents[1]
SAMPLE = ROOT / "data" / "sample"
NAMES = load_taxonomy().names


def sentences(text):
    return [text[span.start : span.end] for span in split(text)]


@pytest.fixture(scope="module")
def records():
    found = [entry for entry in read(SAMPLE / "dev.jsonl") if isinstance(entry, Record)]
    return found[:12]


@pytest.fixture(scope="module")
def mini():
    return Predictor.from_folder(str(ROOT / "data" / "models" / "hepatag-mini"), "cpu")


@pytest.mark.parametrize(
    "parts",
    [
        ["Herons had TACE vs. ablation in both arms.", "All of them lived (P = .03)."],
        ["As Quill et al. Reported once, herons recover.", "No. 5 was given 3 mg i.v. Gadolinium."],
        ["See Fig. 2 for the livers.", "The dose was 1.5 Gy, i.e. low.", "Herons (e.g. Grey ones) were kept apart."],
        [
            "All birds were Child-Pugh class A.",
            "Median survival was nine months.",
            "Some had hepatitis B. "[:-1],
            "Ok is it?",
        ],
        ["We thank J. Heron for the birds.", "The U.S. Heron Society paid."],
        ["1. We counted the herons again.", "2. We counted the livers too."],
        ["Did it work in herons?", "It did (in most. Not all) of them.", "“Quoted” words follow here."],
    ],
)
def test_sentences_end_where_they_end(parts):
    assert sentences(" ".join(parts)) == parts


def test_labels_of_sections_belong_to_no_sentence():
    text = (
        "BACKGROUND: Herons get tumours. They are rare. METHODS: We treated one heron.Conclusions: It flew away again."
    )
    assert sentences(text) == [
        "Herons get tumours.", "They are rare.", "We treated one heron.", "It flew away again.",
    ]  # fmt: skip
    # A section of one sentence goes with its label; one of two keeps it.
    assert [text[span.cut_from : span.start] for span in split(text)] == ["", "", "METHODS: ", "Conclusions: "]


def test_no_words_no_sentences():
    assert split("") == split("  \n ") == split("…. ()") == []


@given(st.lists(st.sampled_from([*"aZ9.!?()[] \n:•", "METHODS:", " The heron", "vs.", "et al."]), max_size=40))
def test_spans_are_ordered_trimmed_and_lose_no_word(pieces):
    text = "".join(pieces)
    end = 0
    for span in split(text):
        assert end <= span.cut_from <= span.start < span.end <= len(text)
        assert text[span.start : span.end] == text[span.start : span.end].strip()
        end = span.end
    kept = "".join(sentences(text))
    if "METHODS" not in text:
        assert sum(map(str.isalnum, kept)) == sum(map(str.isalnum, text))


def test_a_removed_sentence_is_gone_and_nothing_else():
    record = Record(
        "1", "Herons", (Section("METHODS", "One heron flew. Two herons swam."), Section("RESULTS", "All ate fish."))
    )
    title, first, second, third = sentences_of(record)
    assert without(record, title).title == ""
    assert without(record, title).abstract_text() == record.abstract_text()
    assert without(record, first).abstract_text() == "METHODS: Two herons swam. RESULTS: All ate fish."
    assert without(record, second).abstract_text() == "METHODS: One heron flew. RESULTS: All ate fish."
    assert without(record, third).abstract_text() == "METHODS: One heron flew. Two herons swam."
    assert sentences_of(Record("2", "", ())) == []


def test_each_given_label_has_its_best_sentence(predictor, records):
    for found in explain(predictor, records):
        assert [one.label for one in found.reasons] == [NAMES[i] for i in np.flatnonzero(found.given)]
        places = {(one.part, one.start, one.end): one for one in sentences_of(found.record)}
        texts = {"title": found.record.title, "abstract": found.record.abstract_text()}
        for reason in found.reasons:
            assert texts[reason.part][reason.start : reason.end] == reason.sentence
            assert (reason.part, reason.start, reason.end) in places


def test_the_drop_is_the_difference_of_two_plain_predictions(predictor, records):
    explained = [found for found in explain(predictor, records) if found.reasons]
    assert explained
    for found in explained:
        left = predictor.predict_proba([without(found.record, one) for one in sentences_of(found.record)])
        whole = predictor.predict_proba([found.record])[0]
        assert found.probabilities == pytest.approx(whole, abs=1e-5)
        for reason in found.reasons:
            column = NAMES.index(reason.label)
            assert reason.probability == pytest.approx(whole[column], abs=1e-5)
            # None of the sentences lowers it more.
            assert reason.drop == pytest.approx((whole[column] - left[:, column]).max(), abs=1e-5)


def test_reasons_do_not_depend_on_company(predictor, records):
    together = explain(predictor, records)
    small = Predictor(predictor.model, predictor.device, token_budget=200)
    for number, other in ((-1, explain(small, records[::-1])), (1, explain(predictor, records[:1]))):
        for one, two in zip(together[: len(other)], other[::number], strict=True):
            assert [r.label for r in one.reasons] == [r.label for r in two.reasons]
            assert [r.drop for r in one.reasons] == pytest.approx([r.drop for r in two.reasons], abs=1e-4)


def test_nothing_to_explain(predictor):
    assert explain(predictor, []) == []


def test_the_shipped_model_gives_the_plain_reason(mini):
    carrying = "Yttrium-90 radioembolization was performed in all of them, and nivolumab was given every two weeks."
    record = Record(
        "1",
        "What we saw in forty patients",
        (
            Section("", "Forty patients with hepatocellular carcinoma came to our hospital between 2015 and 2020."),
            Section("", carrying),
            Section("", "The records were reviewed by two of us. Nobody was lost to follow-up."),
        ),
    )
    (found,) = explain(mini, [record])
    reasons = {one.label: one for one in found.reasons}
    for name in ("ir_modality:tare", "immunotherapy:anti_pd1"):
        assert reasons[name].sentence == carrying
        assert reasons[name].drop > 0.9 * reasons[name].probability
    assert reasons["cancer_type:hcc"].sentence.startswith("Forty patients with hepatocellular carcinoma")


def test_reasons_are_kept_and_found_once(predictor, tmp_path):
    folder = tmp_path / "library"
    first, second = SAMPLE / "pubmed99n0001.xml", SAMPLE / "pubmed99n0002.xml.gz"
    label([first], predictor, folder)
    assert all(row["reasons"] == [] for row in rows(folder))
    assert not (folder / "reasons").exists()
    moments = []
    label([first], predictor, folder, reasons=True, report=moments.append)
    found = rows(folder)
    assert any(row["reasons"] for row in found)
    assert any(moment.stage == "explaining" for moment in moments)
    for row in found:
        given = {f"{axis.name}:{name}" for axis in load_taxonomy().axes for name in row[axis.name]}
        assert {one["label"] for one in row["reasons"]} <= given
        assert row["in_scope"] or not row["reasons"]
        assert all(0 < one["drop"] <= 1 for one in row["reasons"])
    # The same again finds nothing to do; a new input only its own texts.
    moments.clear()
    label([first], predictor, folder, reasons=True, report=moments.append)
    assert not [moment for moment in moments if moment.stage == "explaining"]
    before = {row["pmid"]: row for row in found}
    label([second], predictor, folder, reasons=True, jsonl=True)
    for row in rows(folder):
        if row["source"] == first.name:
            assert row["reasons"] == before[row["pmid"]]["reasons"]
    lines = [json.loads(line) for line in (folder / "labels.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["reasons"] for line in lines] == [row["reasons"] for row in rows(folder)]


def test_kept_reasons_are_those_of_explain(predictor, tmp_path):
    folder = tmp_path / "library"
    label([SAMPLE / "records.csv"], predictor, folder, gate="none", reasons=True)
    records = {entry.id: entry for entry in read(SAMPLE / "records.csv") if isinstance(entry, Record)}
    for row in rows(folder):
        (found,) = explain(predictor, [records[row["id"]]])
        expected = {one.label: one.drop for one in found.reasons if one.drop > 0}
        assert {one["label"]: one["drop"] for one in row["reasons"]} == pytest.approx(expected, abs=1e-4)


def test_a_label_that_new_thresholds_give_gets_its_reason_too(predictor, tmp_path):
    folder = tmp_path / "library"
    label([SAMPLE / "records.csv"], predictor, folder, gate="none", reasons=True)
    before = kept_labels(Library(folder), predictor.fingerprint)
    generous = Predictor(
        replace(predictor.model, thresholds=np.full_like(predictor.model.thresholds, 0.02)), predictor.device
    )
    label([SAMPLE / "records.csv"], generous, folder, gate="none", reasons=True)
    after = kept_labels(Library(folder), predictor.fingerprint)
    assert sum(map(len, after.values())) > sum(map(len, before.values()))
    for row in rows(folder):
        given = {f"{axis.name}:{name}" for axis in load_taxonomy().axes for name in row[axis.name]}
        assert any(given <= labels for labels in after.values()) or not given


def test_a_damaged_shard_is_named(predictor, tmp_path):
    folder = tmp_path / "library"
    label([SAMPLE / "records.csv"], predictor, folder, gate="none", reasons=True)
    (shard,) = (folder / "reasons" / predictor.fingerprint).glob("*.parquet")
    shard.write_bytes(shard.read_bytes()[:100])
    with pytest.raises(OutputError, match="remove the file"):
        kept_labels(Library(folder), predictor.fingerprint)


def rows(folder):
    return pq.read_table(folder / "labels.parquet").to_pylist()
