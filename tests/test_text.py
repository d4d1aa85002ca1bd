"""From a record to the text and the token ids that a model reads."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.corpus import read_examples
from pipeline.lexicon import concepts
from pipeline.records import Record, Section
from pipeline.taxonomy import load_taxonomy
from pipeline.text import (
    NO_OPINION,
    STRENGTHS,
    TEXT_VERSION,
    condense,
    encode,
    hint_token,
    hint_tokens,
    hints_of,
    model_text,
    opinions_in,
    text_hash,
    vary,
)

SAMPLE = Path(__file__).parents[1] / "data" / "sample"

RECORD = Record(
    id="1",
    title="Chemoembolization of liver cancer.",
    abstract=(
        Section("METHODS", "We gave nivolumab to 12 dogs. Their livers were scanned (n = 12)."),
        Section("RESULTS", "Response was 41.7% (95% CI 20.1-63.3; p = 0.03). No dog died."),
    ),
)
KEEP = {"hint_dropout": 0.0, "sentence_dropout": 0.0}


@pytest.mark.parametrize(
    ("text", "short"),
    [
        ("OS was 15.8 months (95% CI: 12.1-18.3; P = 0.02) in 37 (51%) of 1,234.", "OS was 15 months in 37 of 1234."),
        ("Tumours (n = 37 vs 48) shrank; p < 0.001.", "Tumours shrank."),
        ("Survival (11.6-20.8 mo) was long.", "Survival was long."),
        ("The ratio was 2, 95% CI 1.5 to 2.9, in dogs", "The ratio was 2, in dogs"),
        ("Beads of 3.5 cm\n in  size", "Beads of 3 cm in size"),
        ("Pain [95% confidence interval 1-2] and fever", "Pain and fever"),
    ],
)
def test_condense_leaves_figures_out(text, short):
    assert condense(text) == short


@pytest.mark.parametrize(
    "text",
    [
        "PD-1 (nivolumab 240 mg) and CTLA-4 (ipilimumab)",
        "TACE (with lipiodol)",
        "grade (grade 3 pain) and BCLC (stage B or C)",
        "IL-2 and Y-90",
        "",
    ],
)
def test_condense_keeps_words(text):
    assert condense(text) == text


def test_condensing_twice_changes_nothing():
    for example in read_examples([SAMPLE / "train.jsonl"]):
        once = model_text(example.record, hints=False)
        assert condense(once) == once


def test_hint_tokens_are_unique_and_complete():
    tokens = hint_tokens()
    assert len(set(tokens)) == len(tokens)
    assert {hint_token(concept, strength) for concept in concepts() for strength in STRENGTHS} <= set(tokens)
    assert hint_token("ir_modality:tace", 3) == "[tace:3]"
    assert {"[tace:1]", "[tace:2]", "[tace:3]"} <= set(tokens)


def test_hints_stand_in_front():
    hints = hints_of(RECORD)
    assert "[tace:3]" in hints
    assert "[anti_pd1:2]" in hints
    body = model_text(RECORD, hints=False)
    assert model_text(RECORD, hints=True) == f"{hints} {body}"
    assert body.startswith("Chemoembolization of liver cancer. METHODS: We gave nivolumab to 12 dogs.")
    assert "12.1" not in body
    assert "p = " not in body
    assert body.endswith("No dog died.")


def test_hints_of_the_sample_are_all_in_the_vocabulary():
    known = set(hint_tokens())
    for example in read_examples([SAMPLE / "train.jsonl"]):
        assert {f"[{hint}" for hint in hints_of(example.record).split("[") if hint} <= known


def test_a_record_without_title_without_abstract_or_without_hints():
    assert model_text(Record("1", "", RECORD.abstract), hints=False).startswith("METHODS: We gave")
    assert model_text(Record("1", "Chemoembolization of liver cancer."), hints=False).startswith("Chemoembolization")
    assert model_text(Record("1", "On the flight of herons."), hints=False) == "On the flight of herons."
    assert model_text(Record("1", ""), hints=False) == ""


def test_vary_without_dropout_is_the_model_text():
    draw, hints = np.random.default_rng(0), hints_of(RECORD)
    assert vary(RECORD, draw, hints=hints, **KEEP) == model_text(RECORD, hints=True)
    assert vary(RECORD, draw, hints="", **KEEP) == model_text(RECORD, hints=False)
    assert vary(RECORD, draw, hints=hints, **{**KEEP, "hint_dropout": 1.0}) == model_text(RECORD, hints=False)


def test_vary_depends_on_the_draw_alone():
    rates = {"hints": hints_of(RECORD), "hint_dropout": 0.5, "sentence_dropout": 0.5}
    texts = [vary(RECORD, np.random.default_rng(seed), **rates) for seed in range(40)]
    assert texts == [vary(RECORD, np.random.default_rng(seed), **rates) for seed in range(40)]
    assert len(set(texts)) > 5
    hinted = [text.startswith(hints_of(RECORD)) for text in texts]
    assert 8 < sum(hinted) < 32
    whole = {"We gave nivolumab to 12 dogs.", "Their livers were scanned", "Response was 41%", "No dog died."}
    for text in texts:
        assert "Chemoembolization of liver cancer" in text
        assert any(sentence in text for sentence in whole)
    assert any("nivolumab" not in text.split("] ")[-1] and "[anti_pd1:2]" in text for text in texts)


def test_text_hash_tells_texts_apart():
    one = text_hash("Herons.")
    assert one == text_hash("Herons.")
    assert one != text_hash("Herons")
    assert len(one) == 32
    assert int(one, 16) >= 0
    assert len(text_hash("broken \ud800 surrogate")) == 32
    assert TEXT_VERSION.startswith("1.")


def test_encode_keeps_head_and_tail_and_reports_cuts(predictor):
    tokenizer = predictor.model.tokenizer
    long = " ".join(f"{word} tumour" for word in ("liver", "heron", "probe", "scan") for _ in range(40))
    whole = tokenizer(long, add_special_tokens=False, verbose=False)["input_ids"]
    ids, cut = encode(tokenizer, ["a liver", long, ""], 42)
    assert cut == [False, True, False]
    assert [len(one) for one in ids] == [len(tokenizer("a liver")["input_ids"]), 42, 2]
    assert all(one[0] == tokenizer.cls_token_id and one[-1] == tokenizer.sep_token_id for one in ids)
    assert ids[0] == tokenizer("a liver")["input_ids"]
    assert ids[1][1:31] == whole[:30]
    assert ids[1][31:41] == whole[-10:]


def test_encode_at_the_limit_cuts_nothing(predictor):
    tokenizer = predictor.model.tokenizer
    text = "liver tumour " * 20
    length = len(tokenizer(text)["input_ids"])
    assert encode(tokenizer, [text], length)[1] == [False]
    assert encode(tokenizer, [text], length - 1)[1] == [True]
    assert encode(tokenizer, [], 16) == ([], [])


def test_a_hint_is_one_token(predictor):
    tokenizer = predictor.model.tokenizer
    tokens = hint_tokens()
    ids = encode(tokenizer, ["".join(tokens[:20])], 64)[0][0]
    assert tokenizer.convert_ids_to_tokens(ids[1:-1]) == tokens[:20]


def test_opinions_are_read_back_from_the_text():
    names = load_taxonomy().names
    text = "[tace:3][hcc:sure][tace:likely][ir_targeted:sure][ir_immuno:sure] A title [rfa:sure]."
    found = dict(zip(names, opinions_in([text])[0], strict=True))
    assert found["cancer_type:hcc"] == 2.2
    assert found["ir_modality:tace"] == 0.6
    assert found["combination:ir_targeted"] == 2.2
    # No opinion on an immunotherapy, so none on a combination that needs one; no hints inside the text itself.
    assert found["combination:ir_immuno"] == found["ir_modality:rfa"] == NO_OPINION


def test_a_combination_without_a_modality_is_no_opinion():
    found = dict(zip(load_taxonomy().names, opinions_in(["[hcc:sure][ir_targeted:sure] A title."])[0], strict=True))
    assert found["combination:ir_targeted"] == NO_OPINION
