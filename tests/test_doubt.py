"""Doubt: the cuts keep what they promise on records that they were not fitted on."""

import numpy as np
import pytest

from pipeline.decision import decide
from pipeline.doubt import WIDEST, find_doubt, fit_band
from pipeline.taxonomy import load_taxonomy

TAXONOMY = load_taxonomy()
THRESHOLDS = np.full(len(TAXONOMY.names), 0.4)


def world(records, seed):
    """Calibrated probabilities of a middling model, and a truth drawn from them: exchangeable records."""
    draw = np.random.default_rng(seed)
    probabilities = draw.beta(0.25, 1.5, size=(records, len(TAXONOMY.names)))
    return draw.random(probabilities.shape) < probabilities, probabilities


def axis_recall(truth, kept, columns):
    rows = truth[:, columns].any(axis=1)
    return ((truth & kept)[rows][:, columns].sum(1) / truth[rows][:, columns].sum(1)).mean()


@pytest.mark.parametrize("recall", [0.8, 0.95])
def test_the_recall_asked_for_is_reached_on_average(recall):
    reached = {axis: [] for axis in TAXONOMY.columns}
    for seed in range(30):
        band = fit_band(*world(120, seed), THRESHOLDS, TAXONOMY, recall=recall)
        truth, probabilities = world(400, seed + 1_000)
        doubt = find_doubt(probabilities, probabilities >= THRESHOLDS, THRESHOLDS, band)
        kept = (probabilities >= THRESHOLDS) | doubt.maybe
        for axis, columns in TAXONOMY.columns.items():
            reached[axis].append(axis_recall(truth, kept, columns))
    for axis, values in reached.items():
        assert np.mean(values) >= recall - 0.01, axis


def test_the_lower_cut_is_no_lower_than_needed():
    truth, probabilities = world(400, 7)
    band = fit_band(truth, probabilities, THRESHOLDS, TAXONOMY, recall=0.9)
    columns = TAXONOMY.columns["cancer_type"]
    kept = (probabilities >= THRESHOLDS) | find_doubt(probabilities, probabilities >= 2, THRESHOLDS, band).maybe
    assert 0.9 <= axis_recall(truth, kept, columns) < 0.93


def test_the_precision_asked_for_holds_most_of_the_time():
    kept = []
    for seed in range(40):
        draw = np.random.default_rng(seed)

        def sharp(records, draw=draw):
            truth = draw.random((records, len(TAXONOMY.names))) < 0.05
            noise = draw.normal(0, 1.6, truth.shape)
            return truth, 1 / (1 + np.exp(-(np.where(truth, 3.0, -5.5) + noise)))

        band = fit_band(*sharp(250), THRESHOLDS, TAXONOMY, precision=0.85)
        truth, probabilities = sharp(2_000)
        given = probabilities >= THRESHOLDS
        sure = given & ~find_doubt(probabilities, given, THRESHOLDS, band).unsure
        for axis, columns in TAXONOMY.columns.items():
            above = sure[:, columns].any(axis=1)
            if band.precision_holds[axis] and above.sum() > 50:
                kept.append((~(sure & ~truth)[above][:, columns].any(axis=1)).mean() >= 0.85)
    assert len(kept) > 50
    assert np.mean(kept) >= 0.85


def test_a_cut_that_doubts_nearly_every_record_is_not_taken():
    """One true label in ten looks like any negative of the axis: no cut keeps 95 % and tells records apart."""
    draw = np.random.default_rng(0)
    truth, margin = np.zeros((400, len(TAXONOMY.names)), dtype=bool), draw.normal(-5, 1, (400, len(TAXONOMY.names)))
    column = TAXONOMY.index["ir_modality:tace"]
    truth[:200, column] = True
    margin[20:200, column] = 3
    probabilities = 1 / (1 + np.exp(-margin))
    half = np.full(len(TAXONOMY.names), 0.5)
    assert fit_band(truth, probabilities, half, TAXONOMY, recall=0.85).recall_holds["ir_modality"]
    band = fit_band(truth, probabilities, half, TAXONOMY, recall=0.95)
    assert not band.recall_holds["ir_modality"]


def test_too_few_records_promise_nothing_and_say_so():
    truth, probabilities = world(10, 0)
    truth[:, TAXONOMY.columns["combination"]] = False
    band = fit_band(truth, probabilities, THRESHOLDS, TAXONOMY, recall=0.95)
    assert not any(band.recall_holds.values())
    assert (band.low == -WIDEST).all()
    assert not find_doubt(np.full((1, 52), 1e-4), np.zeros((1, 52), bool), THRESHOLDS, band).maybe.any()


def test_a_higher_dial_leaves_more_in_doubt():
    held_out, (_, probabilities) = world(300, 3), world(300, 4)
    given = decide(probabilities, THRESHOLDS, TAXONOMY)
    shares = [
        find_doubt(
            probabilities, given, THRESHOLDS, fit_band(*held_out, THRESHOLDS, TAXONOMY, recall=recall)
        ).maybe.mean()
        for recall in (0.8, 0.9, 0.97)
    ]
    assert shares[0] < shares[1] < shares[2]


def test_axes_in_doubt():
    given = np.zeros((1, 52), dtype=bool)
    band = fit_band(*world(300, 3), THRESHOLDS, TAXONOMY)
    probabilities = np.full((1, 52), 1e-6)
    probabilities[0, TAXONOMY.index["ir_modality:tace"]] = 0.39  # just under its threshold
    axes = find_doubt(probabilities, given, THRESHOLDS, band).axes(TAXONOMY)
    assert [axis for axis, doubtful in zip(TAXONOMY.columns, axes[0], strict=True) if doubtful] == ["ir_modality"]


@pytest.mark.parametrize("dial", [{"recall": 1.0}, {"precision": 0.0}])
def test_a_dial_outside_its_range(dial):
    with pytest.raises(ValueError, match="between 0 and 1"):
        fit_band(*world(50, 0), THRESHOLDS, TAXONOMY, **dial)
