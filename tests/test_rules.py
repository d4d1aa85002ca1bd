"""The keyword rules as a labeller, on records of our own."""

from __future__ import annotations

import json
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest

from pipeline.records import Record, Section
from pipeline.rules import Card, KeywordRules, card_of, load_cards, own_signs, profile
from pipeline.taxonomy import load_taxonomy

TAXONOMY = load_taxonomy()
SHARED = Path(__file__).parents[2] / "shared"


def _labels(*records: Record) -> list[set[str]]:
    rules = KeywordRules()
    chosen = rules.decide(rules.predict_proba(list(records)))
    return [{name for name, given in zip(TAXONOMY.names, row, strict=True) if given} for row in chosen]


def _record(title: str, **sections: str) -> Record:
    parts = tuple(Section(label.upper(), text) for label, text in sections.items())
    return Record(id="x", title=title, abstract=parts)


TRIPLE = _record(
    "Lenvatinib and camrelizumab combined with TACE for unresectable hepatocellular carcinoma: a retrospective study",
    methods="We retrospectively reviewed the records of 84 patients with hepatocellular carcinoma who were treated "
    "with TACE plus lenvatinib and camrelizumab between January 2019 and May 2022.",
    results="Median overall survival was 21.4 months and the objective response rate was 63%. Adverse events of "
    "grade 3 occurred in 30 patients.",
)
FAR_AWAY = _record(
    "Pain after arthroscopy of the knee",
    methods="Sixty adults were randomly assigned to ibuprofen or placebo after arthroscopy.",
    results="Pain scores fell in both groups.",
)
RABBITS = _record(
    "Microwave ablation of VX2 liver tumors in rabbits",
    methods="VX2 tumors were implanted in the liver of 24 rabbits and treated by microwave ablation.",
    results="Tumor growth was inhibited in treated animals.",
)
PROTOCOL = _record(
    "Radioembolization followed by durvalumab in hepatocellular carcinoma: study protocol for a randomised trial",
    introduction="Recurrence after radioembolization is common.",
    methods="Patients will be randomly assigned to yttrium-90 radioembolization with or without durvalumab. The "
    "primary endpoint is progression-free survival; adverse events will be recorded.",
)


def test_a_triple_combination():
    (labels,) = _labels(TRIPLE)
    assert labels == {
        "cancer_type:hcc",
        "ir_modality:tace",
        "immunotherapy:anti_pd1",
        "combination:ir_immuno_targeted",
        "study_design:retrospective",
        "finding:efficacy",
        "finding:safety",
    }


def test_out_of_scope_gets_nothing():
    assert _labels(FAR_AWAY) == [set()]
    assert (KeywordRules().predict_proba([FAR_AWAY]) < 0.5).all()


def test_animals_and_protocols():
    rabbits, protocol = _labels(RABBITS, PROTOCOL)
    assert {"cancer_type:liver_malignancy_nos", "ir_modality:mwa", "study_design:preclinical"} <= rabbits
    assert {"ir_modality:tare", "immunotherapy:anti_pdl1", "study_design:protocol"} <= protocol


def test_an_earlier_treatment_is_not_studied():
    earlier = _record(
        "Nivolumab for hepatocellular carcinoma: outcomes of 50 patients",
        methods="Fifty patients with hepatocellular carcinoma refractory to TACE received nivolumab.",
        results="Median overall survival was 14 months.",
    )
    (labels,) = _labels(earlier)
    assert "immunotherapy:anti_pd1" in labels
    assert not any(name.startswith(("ir_modality", "combination")) for name in labels)


def test_the_word_for_chemoembolization_means_beads_where_no_other_is_named():
    methods = "Forty patients with hepatocellular carcinoma had drug-eluting bead chemoembolization (DEB-TACE)."
    results = "Median survival was 21 months. TACE was repeated in ten patients, and TACE was safe."
    beads = _record("Drug-eluting beads in hepatocellular carcinoma", methods=methods, results=results)
    both = _record(
        "Conventional TACE or drug-eluting beads in hepatocellular carcinoma",
        methods=f"{methods} Forty had conventional TACE.",
        results=results,
    )
    names = {"ir_modality:tace", "ir_modality:deb_tace"}
    assert [names & labels for labels in _labels(beads, both)] == [{"ir_modality:deb_tace"}, names]


def test_three_treatments_two_treatments_and_a_comparison():
    seen = profile(TRIPLE.title, "")
    assert "ir+immuno+targeted@title" in seen.signs
    assert "ir+immuno+targeted@title" not in profile("TACE plus lenvatinib for liver cancer", "").signs
    assert "ir+targeted+only_versus@title" in profile("TACE versus lenvatinib for liver cancer", "").signs
    assert "ir+targeted+only_versus@title" not in profile("TACE plus lenvatinib versus TACE", "").signs


def test_antiviral_interferon_is_told_from_interferon_against_the_tumour():
    seen = profile("Interferon and ribavirin before resection of hepatocellular carcinoma", "")
    assert "antiviral" in own_signs("immunotherapy:cytokine", seen)
    alone = profile("Adjuvant interferon after resection of hepatocellular carcinoma", "")
    assert "antiviral" not in own_signs("immunotherapy:cytokine", alone)


def test_a_named_technique_is_kin_of_the_unnamed():
    seen = profile("Radiofrequency ablation and other ablation of liver cancer", "")
    assert "kin_title" in own_signs("ir_modality:ablation_nos", seen)
    assert "kin_title" not in own_signs("ir_modality:ablation_nos", profile("TACE and ablation of liver cancer", ""))


def test_shape_type_and_range():
    rules = KeywordRules()
    scores = rules.predict_proba([TRIPLE, FAR_AWAY])
    assert scores.shape == (2, 52)
    assert scores.dtype == np.float32
    assert (scores >= 0).all()
    assert (scores <= 1).all()
    assert rules.predict_proba([]).shape == (0, 52)
    assert rules.decide(rules.predict_proba([])).shape == (0, 52)
    assert rules.name == "rules"


def test_any_scores_become_a_sound_label_set():
    scores = np.random.default_rng(7).random((400, 52)).astype(np.float32)
    scores[:200] **= 4
    chosen = KeywordRules().decide(scores)
    for row in chosen:
        assert not TAXONOMY.violations([name for name, given in zip(TAXONOMY.names, row, strict=True) if given])
    assert chosen.any(axis=1).sum() > 100
    assert not chosen.any(axis=1).all()


def test_a_record_without_title_is_labelled():
    untitled = Record(id="x", title="", abstract=TRIPLE.abstract)
    (labels,) = _labels(untitled)
    assert {"cancer_type:hcc", "ir_modality:tace", "study_design:retrospective"} <= labels


def test_a_treatment_that_is_not_named_has_no_signs():
    seen = profile(TRIPLE.title, TRIPLE.abstract_text())
    assert own_signs("ir_modality:rfa", seen) == frozenset()
    assert {"named", "title", "studied"} <= own_signs("ir_modality:tace", seen)


def test_points_add_up_in_any_order():
    card = Card(-0.3, {"a": 0.1, "b": 0.2, "c": 0.7, "d": -0.7})
    assert {card.score(order) for order in permutations("abcd")} == {0.0}


def test_every_label_has_a_card():
    cards = load_cards()
    for name in TAXONOMY.names:
        assert (card_of(name) if name.startswith(("ir_modality", "immunotherapy")) else name) in cards
    assert "scope" in cards


def test_written_training_texts_are_labelled_well():
    path = SHARED / "labelled" / "train_written.jsonl"
    if not path.is_file():
        pytest.skip("no ../shared here")
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    found = _labels(*(Record(id=r["id"], title=r["title"], abstract=(Section("", r["abstract"]),)) for r in rows))
    truth = [{f"{axis}:{label}" for axis, labels in r["labels"].items() for label in labels} for r in rows]
    right = sum(len(a & b) for a, b in zip(found, truth, strict=True))
    assert 2 * right / sum(len(a) + len(b) for a, b in zip(found, truth, strict=True)) > 0.84
