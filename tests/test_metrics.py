import json
import time
import warnings

import numpy as np
import pytest
from sklearn import metrics as reference

from pipeline.metrics import FIRST_AXES, Interval, evaluate, paired_bootstrap
from pipeline.taxonomy import load_taxonomy

TAXONOMY = load_taxonomy()
L = len(TAXONOMY.names)


def sample(n=120, seed=0, wrong=0.05):
    """Truth, decisions with some errors, and probabilities with ties; some labels absent, some records empty."""
    draw = np.random.default_rng(seed)
    truth = draw.random((n, L)) < np.linspace(0.3, 0, L)
    truth[: n // 5] = False
    predicted = truth ^ (draw.random((n, L)) < wrong)
    predicted[: n // 10] = False
    probabilities = np.round(np.clip(predicted * 0.6 + draw.random((n, L)) * 0.4, 0, 1), 2)
    return truth, predicted, probabilities


def matrix(*rows):
    found = np.zeros((len(rows), L), dtype=bool)
    for row, names in zip(found, rows, strict=True):
        row[[TAXONOMY.index[name] for name in names]] = True
    return found


def test_groups_equal_scikit_learn():
    truth, predicted, probabilities = sample()
    report = evaluate(truth, predicted, probabilities, TAXONOMY, resamples=5)
    groups = {"all": slice(0, L), "first_four": slice(0, TAXONOMY.columns["combination"].stop), **TAXONOMY.columns}
    assert list(report.groups) == list(groups)
    for name, columns in groups.items():
        true, given, group = truth[:, columns], predicted[:, columns], report.groups[name]
        assert group.f1_micro.value == pytest.approx(reference.f1_score(true, given, average="micro"), abs=1e-12)
        assert group.precision == pytest.approx(reference.precision_score(true, given, average="micro"), abs=1e-12)
        assert group.recall == pytest.approx(reference.recall_score(true, given, average="micro"), abs=1e-12)
        supported = true.any(axis=0)
        macro = reference.f1_score(true[:, supported], given[:, supported], average="macro", zero_division=0)
        assert group.f1_macro.value == pytest.approx(macro, abs=1e-12)
        instance = reference.f1_score(true, given, average="samples", zero_division=1)
        assert group.f1_instance.value == pytest.approx(instance, abs=1e-12)
        assert group.support == true.sum()


def test_labels_equal_scikit_learn():
    truth, predicted, probabilities = sample()
    report = evaluate(truth, predicted, probabilities, TAXONOMY, resamples=2)
    precision, recall, f1, support = reference.precision_recall_fscore_support(truth, predicted, zero_division=0)
    for column, (name, label) in enumerate(report.labels.items()):
        assert name == TAXONOMY.names[column]
        assert (label.precision, label.recall, label.f1) == pytest.approx(
            (precision[column], recall[column], f1[column]), abs=1e-12
        )
        assert label.support == support[column]
        if support[column]:
            expected = reference.average_precision_score(truth[:, column], probabilities[:, column])
            assert label.average_precision == pytest.approx(expected, abs=1e-12)
        else:
            assert label.average_precision is None


def test_a_case_worked_by_hand():
    truth = matrix(
        ["cancer_type:hcc", "ir_modality:tace", "study_design:review"],
        ["cancer_type:hcc", "study_design:protocol"],
        [],
        [],
    )
    predicted = matrix(
        ["cancer_type:hcc", "ir_modality:deb_tace", "study_design:review"],
        [],
        ["cancer_type:other_mets", "study_design:review"],
        [],
    )
    report = evaluate(truth, predicted, None, TAXONOMY, resamples=10)
    everything = report.groups["all"]
    # Given 5, right 2; true 5.
    assert everything.precision == pytest.approx(2 / 5)
    assert everything.recall == pytest.approx(2 / 5)
    assert everything.f1_micro.value == pytest.approx(2 / 5)
    # Supported: hcc 2/3, tace 0, review 2/3, protocol 0.
    assert everything.f1_macro.value == pytest.approx((2 / 3 + 2 / 3) / 4)
    # Records: 4/6, 0, 0, and 1 for nothing true and nothing given.
    assert everything.f1_instance.value == pytest.approx((2 / 3 + 1) / 4)
    assert report.in_scope.precision.value == pytest.approx(1 / 2)
    assert report.in_scope.recall.value == pytest.approx(1 / 2)
    assert report.in_scope.support == 2
    assert report.groups["immunotherapy"].f1_micro.value == 0
    assert report.groups["immunotherapy"].f1_instance.value == 1
    assert report.calibration_error is None
    assert report.labels["cancer_type:hcc"].average_precision is None


def test_the_first_axes_are_those_that_matter_most():
    assert [axis.name for axis in TAXONOMY.axes[:FIRST_AXES]] == [
        "cancer_type",
        "ir_modality",
        "immunotherapy",
        "combination",
    ]


def test_a_perfect_labeller_is_certain():
    truth, _, _ = sample()
    truth[:, 0] = True  # no draw without support
    report = evaluate(truth, truth, truth.astype(float), TAXONOMY, resamples=50)
    assert report.groups["all"].f1_micro == Interval(1, 1, 1)
    assert report.groups["all"].f1_instance == Interval(1, 1, 1)
    assert report.in_scope.recall == Interval(1, 1, 1)
    assert report.calibration_error == Interval(0, 0, 0)


def test_intervals_are_those_of_a_bootstrap_over_records():
    """The weights shortcut against drawing the rows themselves."""
    truth, predicted, _ = sample(60, wrong=0.15)
    report = evaluate(truth, predicted, None, TAXONOMY, resamples=2000, seed=1)
    draw = np.random.default_rng(9)
    values = {"f1_micro": [], "f1_macro": [], "f1_instance": []}
    for _ in range(300):
        rows = draw.integers(0, len(truth), len(truth))
        again = evaluate(truth[rows], predicted[rows], None, TAXONOMY, resamples=0).groups["all"]
        for name, found in values.items():
            found.append(getattr(again, name).value)
    for name, found in values.items():
        interval = getattr(report.groups["all"], name)
        low, high = np.quantile(found, [0.025, 0.975])
        assert interval.low == pytest.approx(low, abs=0.02)
        assert interval.high == pytest.approx(high, abs=0.02)
        assert interval.low < interval.value < interval.high


def test_the_interval_of_a_share_has_its_binomial_width():
    truth = np.zeros((400, L), dtype=bool)
    truth[:, 0] = True
    predicted = truth.copy()
    predicted[:80, 0] = False
    recall = evaluate(truth, predicted, None, TAXONOMY, resamples=2000).in_scope.recall
    half = 1.96 * (0.8 * 0.2 / 400) ** 0.5
    assert recall.value == pytest.approx(0.8)
    assert (recall.low, recall.high) == pytest.approx((0.8 - half, 0.8 + half), abs=0.008)


def test_the_same_seed_gives_the_same_report():
    one, same, other = (evaluate(*sample(), TAXONOMY, resamples=50, seed=seed) for seed in (3, 3, 4))
    assert one == same
    assert one.groups["all"].f1_micro.value == other.groups["all"].f1_micro.value
    assert one.groups["all"].f1_micro != other.groups["all"].f1_micro


def test_calibration_error_by_hand():
    truth = np.zeros((10, L), dtype=bool)
    truth[:6, 0] = True
    probabilities = np.zeros((10, L))
    probabilities[:, 0] = 0.9  # said 0.9, true 0.6
    probabilities[:5, 1] = 1.0  # said 1, never true
    report = evaluate(truth, truth, probabilities, TAXONOMY, resamples=10)
    assert report.calibration_error.value == pytest.approx((abs(6 - 9) + 5) / (10 * L))


def test_report_is_ready_for_json_and_mlflow():
    report = evaluate(*sample(), TAXONOMY, resamples=20)
    assert json.loads(json.dumps(report.to_dict()))["groups"]["all"]["f1_micro"]["value"] == pytest.approx(
        report.groups["all"].f1_micro.value
    )
    flat = report.flat("dev")
    interval = report.groups["all"].f1_micro
    assert (flat["dev/f1_micro"], flat["dev/f1_micro_lo"], flat["dev/f1_micro_hi"]) == (
        interval.value,
        interval.low,
        interval.high,
    )
    assert flat["dev/ir_modality/f1_macro"] == report.groups["ir_modality"].f1_macro.value
    assert flat["dev/label/ir_modality.tace/f1"] == report.labels["ir_modality:tace"].f1
    assert flat["dev/in_scope/precision"] == report.in_scope.precision.value
    assert flat["dev/records"] == 120
    assert "dev/calibration_error" in flat
    assert f"dev/label/{TAXONOMY.names[-1].replace(':', '.')}/average_precision" not in flat  # no support
    assert all(type(value) is float for value in flat.values())
    assert not any(":" in name for name in flat)


def test_undefined_ratios_are_nought_and_silent():
    nothing = np.zeros((3, L), dtype=bool)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        report = evaluate(nothing, nothing, np.zeros((3, L)), TAXONOMY, resamples=10)
    assert report.groups["all"].f1_micro == Interval(0, 0, 0)
    assert report.groups["all"].f1_macro == Interval(0, 0, 0)
    assert report.groups["all"].f1_instance == Interval(1, 1, 1)
    assert report.in_scope.precision == Interval(0, 0, 0)


def test_four_hundred_records_take_seconds():
    start = time.process_time()
    evaluate(*sample(400), TAXONOMY)
    assert time.process_time() - start < 3


def test_wrong_shapes_are_refused():
    truth, predicted, probabilities = sample()
    for wrong in (
        (truth, predicted[1:], None),
        (truth[:0], predicted[:0], None),
        (truth[:, 1:], predicted[:, 1:], None),
        (truth, predicted, probabilities[1:]),
    ):
        with pytest.raises(ValueError, match="expected"):
            evaluate(*wrong, TAXONOMY)


def test_a_clear_winner_is_found_both_ways():
    truth, good, _ = sample(200, wrong=0.02)
    bad = sample(200, wrong=0.10)[1]
    test = paired_bootstrap(truth, good, bad, TAXONOMY)
    expected = reference.f1_score(truth, good, average="micro") - reference.f1_score(truth, bad, average="micro")
    assert test.difference == pytest.approx(expected, abs=1e-12)
    assert 0 < test.low < test.difference < test.high
    assert test.p_value < 0.01
    back = paired_bootstrap(truth, bad, good, TAXONOMY)
    assert back.difference == pytest.approx(-test.difference)
    assert back.p_value == 1


def test_the_same_labeller_twice_is_no_gain():
    truth, predicted, _ = sample()
    test = paired_bootstrap(truth, predicted, predicted, TAXONOMY)
    assert (test.difference, test.low, test.high, test.p_value) == (0, 0, 0, 1)


def test_chance_alone_rarely_looks_like_a_gain():
    found = []
    for seed in range(60):
        draw = np.random.default_rng(seed)
        truth = draw.random((80, L)) < 0.1
        one, other = (truth ^ (draw.random((80, L)) < 0.05) for _ in range(2))
        found.append(paired_bootstrap(truth, one, other, TAXONOMY, resamples=300, seed=seed).p_value)
    assert np.mean(np.array(found) < 0.05) < 0.15
    assert np.mean(np.array(found) < 0.5) > 0.2


def test_a_comparison_may_look_at_one_axis():
    truth, predicted, _ = sample()
    other = predicted.copy()
    columns = TAXONOMY.columns["finding"]
    outside = np.setdiff1d(np.arange(L), np.arange(columns.start, columns.stop))
    other[:, outside] = ~other[:, outside]
    assert paired_bootstrap(truth, predicted, other, TAXONOMY, columns=columns).difference == 0
    assert paired_bootstrap(truth, predicted, other, TAXONOMY).difference > 0.1
