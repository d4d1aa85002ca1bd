"""Fitting the rules' points: sound cards, opinions that never saw their record."""

from pathlib import Path

import numpy as np
import pytest

from pipeline import corpus
from pipeline.rulefit import cross_fitted_scores, fit_cards
from pipeline.rules import KeywordRules, load_cards, profile, score_labels
from pipeline.taxonomy import load_taxonomy

TAXONOMY = load_taxonomy()
SAMPLE = Path(__file__).parents[1] / "data" / "sample"


@pytest.fixture(scope="module")
def sample():
    examples = corpus.read_examples([SAMPLE / "train.jsonl"])
    profiles = [profile(one.record.title, one.record.abstract_text()) for one in examples]
    return profiles, corpus.label_matrix(examples, TAXONOMY)


def micro_f1(truth, scores):
    given = KeywordRules().decide(scores)
    return 2 * (truth & given).sum() / (truth.sum() + given.sum())


def test_the_cards_are_those_that_the_rules_need(sample):
    cards = fit_cards(*sample)
    assert set(cards) == set(load_cards())
    assert all(np.isfinite([card.offset, *card.points.values()]).all() for card in cards.values())
    assert fit_cards(*sample) == cards  # the same for the same records


def test_fitted_cards_label_their_records_and_opinions_are_not_theirs(sample):
    profiles, truth = sample
    cards = fit_cards(profiles, truth)
    own = np.stack([score_labels(seen, cards) for seen in profiles])
    crossed = cross_fitted_scores(profiles, truth, folds=5)
    assert crossed.shape == truth.shape
    assert ((crossed >= 0) & (crossed <= 1)).all()
    assert micro_f1(truth, own) > micro_f1(truth, crossed) > 0.3


def test_weights(sample):
    profiles, truth = sample
    weights = np.ones(len(profiles))
    assert fit_cards(profiles, truth, weights) == fit_cards(profiles, truth)
    weights[0] = 0
    lied = truth.copy()
    lied[0] = True  # all labels at once
    name = "ir_modality:specific"
    assert fit_cards(profiles, lied, weights)[name] == fit_cards(profiles, truth, weights)[name]


def test_a_record_has_no_say_in_its_own_opinion(sample):
    profiles, truth = sample
    before = cross_fitted_scores(profiles, truth, folds=4, seed=3)
    lied = truth.copy()
    lied[0] = ~truth[0]  # the first record's labels turned round
    after = cross_fitted_scores(profiles, lied, folds=4, seed=3)
    np.testing.assert_array_equal(before[0], after[0])
    assert not np.array_equal(before[1:], after[1:])


@pytest.mark.parametrize("rows", [slice(0, 6), slice(0, 1)])
def test_few_records_still_give_every_card(sample, rows):
    profiles, truth = sample
    cards = fit_cards(profiles[rows], truth[rows])
    assert set(cards) == set(load_cards())
    scores = score_labels(profiles[-1], cards)
    assert ((scores >= 0) & (scores <= 1)).all()


def test_two_designs_are_told_apart():
    profiles = [profile("", "This was a retrospective cohort."), profile("", "We review the literature.")] * 8
    truth = np.zeros((16, len(TAXONOMY.names)), dtype=bool)
    truth[:, TAXONOMY.index["cancer_type:hcc"]] = True
    truth[::2, TAXONOMY.index["study_design:retrospective"]] = True
    truth[1::2, TAXONOMY.index["study_design:review"]] = True
    cards = fit_cards(profiles, truth)
    for seen, design in zip(profiles[:2], ("retrospective", "review"), strict=True):
        designs = score_labels(seen, cards)[TAXONOMY.columns["study_design"]]
        assert TAXONOMY.names[TAXONOMY.columns["study_design"]][designs.argmax()].endswith(design)
