import time
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import f1_score

from pipeline.decision import (
    EXACTLY_ONE_WEIGHT,
    apply_calibration,
    decide,
    fit_calibration,
    fit_opinion_weights,
    logit,
    margins,
    pool_opinions,
    tune_thresholds,
)
from pipeline.taxonomy import load_taxonomy

TAXONOMY = load_taxonomy()
L = len(TAXONOMY.names)
HALF = np.full(L, 0.5)
IN_SCOPE = {"cancer_type:hcc": 0.9, "study_design:review": 0.9}


def one_row(chosen):
    found = np.full((1, L), 0.01)
    for name, probability in chosen.items():
        found[0, TAXONOMY.index[name]] = probability
    return found


def labels(chosen, thresholds=HALF):
    row = decide(one_row(chosen), thresholds, TAXONOMY)[0]
    return {TAXONOMY.names[column] for column in np.flatnonzero(row)}


@settings(max_examples=200, deadline=None)
@given(
    arrays(np.float64, (4, L), elements=st.floats(0, 1)),
    arrays(np.float64, L, elements=st.floats(0.001, 0.999)),
)
def test_every_row_follows_the_rules(values, thresholds):
    for row in decide(values, thresholds, TAXONOMY):
        assert TAXONOMY.violations([name for name, yes in zip(TAXONOMY.names, row, strict=True) if yes]) == []


@settings(max_examples=100, deadline=None)
@given(arrays(np.float64, (1, L), elements=st.floats(0, 1)))
def test_the_settlement_of_needs_is_the_best_there_is(values):
    """Every way to fill modality, immunotherapy and combination is tried; none keeps more of the margins."""
    values[0, TAXONOMY.index["cancer_type:hcc"]] = values[0, TAXONOMY.index["study_design:review"]] = 0.999
    values[0, TAXONOMY.index["immunotherapy:checkpoint_nos"]] = 0  # gives way to others, which is tested by itself
    margin = margins(values, HALF)[0]
    row = decide(values, HALF, TAXONOMY)[0]
    axes = ("ir_modality", "immunotherapy")

    def worth(chosen):
        return sum(
            margin[TAXONOMY.columns[axis]][chosen[TAXONOMY.columns[axis]]].sum() for axis in (*axes, "combination")
        )

    combination = TAXONOMY.columns["combination"]
    best = -np.inf
    for bits in product([False, True], repeat=4):
        candidate = margin >= 0
        candidate[combination] = bits
        need = [any(bits), bits[0] or bits[1]]  # ir_immuno and ir_immuno_targeted stand first
        for axis, needed in zip(axes, need, strict=True):
            columns = TAXONOMY.columns[axis]
            if needed and not candidate[columns].any():
                candidate[columns.start + margin[columns].argmax()] = True
        best = max(best, worth(candidate))
    assert worth(row) == pytest.approx(best)


def test_what_follows_the_rules_is_left_as_it_is():
    chosen = {**IN_SCOPE, "ir_modality:tace": 0.8, "ir_modality:rfa": 0.6, "finding:safety": 0.7}
    assert labels(chosen) == set(chosen)


def test_out_of_scope_means_no_label_at_all():
    assert labels({"ir_modality:tace": 0.7, "finding:safety": 0.9, "study_design:review": 0.6}) == set()


def test_scope_weighs_the_best_label_of_the_scope_axis_and_of_the_design():
    design = 0.9
    edge = -EXACTLY_ONE_WEIGHT * logit(np.array(design))
    for shift, expected in ((0.01, {"cancer_type:hcc", "study_design:review"}), (-0.01, set())):
        cancer = 1 / (1 + np.exp(-(edge + shift)))
        assert labels({"cancer_type:hcc": cancer, "study_design:review": design}) == expected


def test_exactly_one_design_the_best_against_its_threshold():
    thresholds = HALF.copy()
    thresholds[TAXONOMY.index["study_design:review"]] = 0.8
    thresholds[TAXONOMY.index["study_design:protocol"]] = 0.1
    chosen = {**IN_SCOPE, "study_design:review": 0.85, "study_design:protocol": 0.4}
    assert labels(chosen, thresholds) == {"cancer_type:hcc", "study_design:protocol"}


def test_a_design_below_threshold_is_given_where_the_record_is_in_scope():
    assert labels({"cancer_type:hcc": 0.99, "study_design:review": 0.3}) == {"cancer_type:hcc", "study_design:review"}


@pytest.mark.parametrize(("combination", "modality", "kept"), [(0.9, 0.3, True), (0.6, 0.1, False)])
def test_a_combination_brings_its_modality_or_goes(combination, modality, kept):
    chosen = {**IN_SCOPE, "combination:ir_targeted": combination, "ir_modality:haic": modality}
    assert labels(chosen) == (set(chosen) if kept else set(IN_SCOPE))


def test_an_immuno_combination_without_immunotherapy_goes_alone():
    chosen = {
        **IN_SCOPE,
        "ir_modality:tace": 0.9,
        "combination:ir_targeted": 0.6,
        "combination:ir_immuno": 0.6,
        "immunotherapy:anti_pd1": 0.2,
    }
    assert labels(chosen) == set(chosen) - {"combination:ir_immuno", "immunotherapy:anti_pd1"}
    assert labels({**chosen, "immunotherapy:anti_pd1": 0.45}) == set(chosen)


def test_what_is_not_named_gives_way_to_what_is():
    unnamed = {"immunotherapy:checkpoint_nos": 0.9}
    assert labels(IN_SCOPE | unnamed) == {*IN_SCOPE, *unnamed}
    assert labels(IN_SCOPE | unnamed | {"immunotherapy:vaccine": 0.6}) == {*IN_SCOPE, *unnamed, "immunotherapy:vaccine"}
    for name in ("anti_pd1", "anti_pdl1", "anti_ctla4"):
        named = {f"immunotherapy:{name}": 0.6}
        assert labels(IN_SCOPE | unnamed | named) == {*IN_SCOPE, *named}


def test_probabilities_of_nought_and_one_are_decided():
    row = np.zeros((2, L), dtype=np.float32)
    row[1] = 1
    given_labels = decide(row, HALF, TAXONOMY)
    assert not given_labels[0].any()
    assert given_labels[1, TAXONOMY.columns["study_design"]].sum() == 1
    assert given_labels[1].sum() == L - 9  # one design, and no unnamed checkpoint inhibitor


def test_no_records():
    assert decide(np.zeros((0, L)), HALF, TAXONOMY).shape == (0, L)


@pytest.mark.parametrize(
    ("values", "thresholds"),
    [
        (np.zeros((1, L - 1)), HALF),
        (np.zeros((1, L)), HALF[1:]),
        (np.full((1, L), np.nan), HALF),
        (np.full((1, L), 1.5), HALF),
        (np.zeros((1, L)), np.zeros(L)),
    ],
)
def test_wrong_shapes_and_values_are_refused(values, thresholds):
    with pytest.raises(ValueError, match="expected"):
        decide(values, thresholds, TAXONOMY)


def test_rows_do_not_depend_on_each_other(monkeypatch):
    values = np.random.default_rng(1).random((50, L)) ** 3
    whole = decide(values, HALF, TAXONOMY)
    monkeypatch.setattr("pipeline.decision.ROWS_AT_ONCE", 7)
    assert (decide(values, HALF, TAXONOMY) == whole).all()


def test_a_large_library_takes_seconds():
    values = np.random.default_rng(2).random((100_000, L), dtype=np.float32)
    start = time.process_time()
    decide(values, HALF, TAXONOMY)
    assert time.process_time() - start < 5


def sample(n=400, seed=0):
    """Truth and probabilities whose log-odds are drawn around ±1.5; label columns from common to absent."""
    draw = np.random.default_rng(seed)
    truth = draw.random((n, L)) < np.linspace(0.4, 0, L)
    scores = draw.normal(np.where(truth, 1.5, -1.5), 1.5)
    return truth, 1 / (1 + np.exp(-scores))


def test_without_shrinkage_a_threshold_has_the_best_f1():
    truth, values = sample(60)
    thresholds = tune_thresholds(truth, values, TAXONOMY, prior_strength=0)
    for column in range(0, L - 4, 12):
        cuts = [*values[:, column], 0.0]
        best = max(f1_score(truth[:, column], values[:, column] >= cut, zero_division=0) for cut in cuts)
        found = f1_score(truth[:, column], values[:, column] >= thresholds[column], zero_division=0)
        assert found == pytest.approx(best)


def test_few_positives_stay_near_their_axis():
    truth, values = sample()
    column = TAXONOMY.index["ir_modality:ire"]
    truth[:, column] = False
    truth[:3, column] = True
    values[:, column] = np.linspace(0.01, 0.2, len(values))
    values[:3, column] = 0.99  # on its own this label would take a threshold far from the others
    absent = TAXONOMY.index["ir_modality:rfa"]
    truth[:, absent] = False
    own, shrunk, bound = (logit(tune_thresholds(truth, values, TAXONOMY, prior_strength=k)) for k in (0.0, 10.0, 1e9))
    of_axis = shrunk[absent]
    assert shrunk[column] - of_axis == pytest.approx(3 / 13 * (own[column] - of_axis), abs=0.2)
    assert bound == pytest.approx(0, abs=1e-4)


def test_a_label_without_support_takes_its_axis_threshold():
    truth, values = sample()
    columns = TAXONOMY.columns["finding"]
    truth[:, columns.stop - 2 : columns.stop] = False
    thresholds = tune_thresholds(truth, values, TAXONOMY)
    assert thresholds[columns.stop - 2] == thresholds[columns.stop - 1]
    assert (thresholds == tune_thresholds(truth, values, TAXONOMY)).all()
    assert ((thresholds > 0) & (thresholds < 1)).all()


def test_no_positive_at_all_gives_one_half():
    assert tune_thresholds(np.zeros((5, L)), np.full((5, L), 0.2), TAXONOMY) == pytest.approx(0.5)


def test_equal_scores_get_a_usable_threshold():
    truth, values = np.ones((4, L), dtype=bool), np.ones((4, L))
    thresholds = tune_thresholds(truth, values, TAXONOMY)
    assert ((thresholds > 0) & (thresholds < 1)).all()


def test_calibration_finds_the_distortion_of_a_common_label():
    draw = np.random.default_rng(3)
    scores = draw.normal(0, 2, (20_000, 2))
    truth = draw.random(scores.shape) < 1 / (1 + np.exp(-np.array([0.5, 1.5]) * scores - np.array([1.0, -1.0])))
    values = 1 / (1 + np.exp(-scores))
    slope, offset = fit_calibration(truth, values, prior_strength=1e-6)
    assert slope == pytest.approx([0.5, 1.5], abs=0.05)
    assert offset == pytest.approx([1, -1], abs=0.08)
    mean = apply_calibration(values, slope, offset).mean(axis=0)
    assert mean == pytest.approx(truth.mean(axis=0), abs=1e-3)
    strong = fit_calibration(truth, values, prior_strength=1e9)
    assert np.ptp(strong[0]) < 1e-3
    assert np.ptp(strong[1]) < 1e-3


def test_calibration_of_one_label_agrees_with_scikit_learn():
    from sklearn.linear_model import LogisticRegression

    truth, values = sample(300)
    slope, offset = fit_calibration(truth[:, :1], values[:, :1], prior_strength=1e-6)
    reference = LogisticRegression(C=1e9, tol=1e-9, max_iter=1000).fit(logit(values[:, :1]), truth[:, 0])
    assert slope[0] == pytest.approx(reference.coef_[0, 0], rel=1e-3)
    assert offset[0] == pytest.approx(reference.intercept_[0], abs=1e-3)


def test_calibration_keeps_the_order_and_bears_separable_labels():
    truth = np.zeros((30, L), dtype=bool)
    truth[:10, 0] = True
    truth[:2, 1] = True
    values = np.where(truth, 0.9, 0.1)
    values[:, 1] = 1 - values[:, 1]  # a label that is upside down on few records
    slope, offset = fit_calibration(truth, values)
    assert np.isfinite(slope).all()
    assert np.isfinite(offset).all()
    assert (slope > 0).all()
    calibrated = apply_calibration(values, slope, offset)
    assert calibrated.dtype == np.float32
    assert ((calibrated >= 0) & (calibrated <= 1)).all()


def test_a_second_opinion_counts_where_it_knows_more():
    taxonomy = load_taxonomy()
    draw = np.random.default_rng(0)
    truth = draw.random((300, len(taxonomy.names))) < 0.2
    signal = np.where(truth, 2.0, -2.0) + draw.normal(0, 1, truth.shape)
    noise = draw.normal(-1.5, 1, truth.shape)
    columns = taxonomy.columns["ir_modality"]
    own, other = signal.copy(), noise.copy()
    own[:, columns], other[:, columns] = noise[:, columns], signal[:, columns]
    weights = fit_opinion_weights(truth, 1 / (1 + np.exp(-own)), other, taxonomy)
    assert weights["ir_modality"] == 3.0  # the limit
    assert weights["finding"] < 0.2
    assert fit_opinion_weights(np.zeros_like(truth), np.full(truth.shape, 0.5), other, taxonomy)["finding"] == 0


def test_pooling_adds_log_odds():
    pooled = pool_opinions(np.array([[0.5, 0.2]]), np.array([[2.0, 2.0]]), np.array([0.5, 0.0]))
    np.testing.assert_allclose(pooled, [[1 / (1 + np.exp(-1)), 0.2]], rtol=1e-6)
