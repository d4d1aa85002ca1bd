"""The figures, looked at through what stands in their axes."""

import io
import subprocess
import sys

import numpy as np
import pytest

from pipeline import figures

NAMES = ["tace", "rfa", "cryoablation"]
TRUTH = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 0, 0]], dtype=bool)
PROBABILITIES = np.array([[0.9, 0.2, 0.1], [0.8, 0.3, 0.1], [0.1, 0.7, 0.2], [0.3, 0.6, 0.1]], dtype=np.float32)


def png(figure):
    buffer = io.BytesIO()
    figure.savefig(buffer)
    return buffer.getvalue()


def legend(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()]


def curves(axes):
    return {line.get_label(): line for line in axes.lines if not line.get_label().startswith("_")}


def test_precision_recall_has_a_curve_per_label_with_its_average_precision():
    figure = figures.precision_recall(TRUTH, PROBABILITIES, NAMES, "IR modality")
    (axes,) = figure.axes
    # rfa by rank: true 0.7, false 0.6, true 0.3, false 0.2: AP = 1/2 · 1/1 + 1/2 · 2/3.
    assert legend(axes) == ["tace  AP 1.00  n=2", "rfa  AP 0.83  n=2", "cryoablation  no positives"]
    assert axes.get_title() == "IR modality"
    points = set(zip(*(np.round(axis, 2) for axis in curves(axes)["rfa  AP 0.83  n=2"].get_data()), strict=True))
    assert {(0.5, 1.0), (0.5, 0.5), (1.0, 0.67), (0.0, 1.0)} <= points
    assert png(figure).startswith(b"\x89PNG")


def test_a_label_keeps_its_colour_whatever_its_scores():
    one = figures.precision_recall(TRUTH, PROBABILITIES, NAMES, "a")
    other = figures.precision_recall(TRUTH, 1 - PROBABILITIES, NAMES, "a")
    colours = [{label.split()[0]: line.get_color() for label, line in curves(f.axes[0]).items()} for f in (one, other)]
    assert colours[0]["tace"] == colours[1]["tace"] != colours[0]["rfa"] == colours[1]["rfa"]


def test_every_label_of_a_long_axis_looks_different():
    names = [f"label_{i}" for i in range(20)]
    truth = np.eye(20, dtype=bool)
    lines = curves(figures.precision_recall(truth, truth.astype(float), names, "a").axes[0]).values()
    assert len({(line.get_color(), line.get_linestyle()) for line in lines}) == 20


def test_f1_against_support_names_every_label_that_has_support():
    names = ["ir_modality:tace", "ir_modality:rfa", "finding:safety", "finding:efficacy"]
    figure = figures.f1_against_support(names, np.array([0.5, 0.9, 0.5, np.nan]), np.array([10, 200, 10, 0]))
    (axes,) = figure.axes
    assert {text.get_text() for text in axes.texts} == {"tace", "rfa", "safety"}
    assert axes.get_xscale() == "log"
    groups = {group.get_label(): group.get_offsets().tolist() for group in axes.collections}
    assert groups == {"ir_modality": [[10, 0.5], [200, 0.9]], "finding": [[10, 0.5]]}
    assert png(figure)


def test_names_of_points_do_not_cover_each_other():
    rng = np.random.default_rng(5)
    names = [f"axis:some_label_{i}" for i in range(40)]
    figure = figures.f1_against_support(names, rng.uniform(0, 1, 40), rng.integers(3, 300, 40))
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in figure.axes[0].texts]
    pairs = [(a, b) for i, a in enumerate(boxes) for b in boxes[i + 1 :] if a.overlaps(b)]
    assert len(boxes) == 40
    assert len(pairs) == 0


def test_f1_against_support_survives_labels_at_one_point_and_none_at_all():
    crowd = figures.f1_against_support([f"a:l{i}" for i in range(52)], np.ones(52), np.ones(52, dtype=int))
    assert len(crowd.axes[0].texts) == 52
    assert png(crowd)
    assert png(figures.f1_against_support(["a:b"], np.array([0.0]), np.array([0])))


@pytest.mark.parametrize("prefix", ["", "dev/", "eval_"])
def test_learning_curve_takes_losses_and_scores_from_their_entries(prefix):
    history = [
        {"step": 10, "epoch": 0.5, "loss": 0.6},
        {"step": 20, "epoch": 1.0, "loss": 0.4},
        {
            "step": 20,
            "epoch": 1.0,
            "eval_loss": 0.5,
            f"{prefix}f1_micro": 0.7,
            f"{prefix}f1_macro": 0.6,
            "dev/ir_modality/f1_micro": 0.1,
            "dev/label/ir_modality.tace/f1": 0.2,
        },
    ]
    left, right = figures.learning_curve(history).axes
    assert {name: line.get_xydata().tolist() for name, line in curves(left).items()} == {
        "train": [[0.5, 0.6], [1.0, 0.4]],
        "dev": [[1.0, 0.5]],
    }
    assert {name: line.get_xydata().tolist() for name, line in curves(right).items()} == {
        "micro": [[1.0, 0.7]],
        "macro": [[1.0, 0.6]],
    }
    assert left.get_xlabel() == "Epoch"


def test_learning_curve_uses_steps_where_epochs_are_unknown_and_takes_no_history():
    left, _ = figures.learning_curve([{"step": 5, "loss": 1.0}, {"step": 9, "loss": 0.5}]).axes
    assert curves(left)["train"].get_xydata().tolist() == [[5, 1.0], [9, 0.5]]
    assert left.get_xlabel() == "Step"
    assert png(figures.learning_curve([]))


def test_reliability_shows_frequency_against_probability_and_the_error():
    probabilities = np.array([[0.05, 0.05], [0.85, 0.85], [0.85, 0.85], [1.0, 0.0]])
    truth = np.array([[False, False], [True, True], [True, False], [True, False]])
    upper, lower = figures.reliability(truth, probabilities).axes
    model = curves(upper)["model"].get_xydata()
    # Bins: 0.0, 0.05, 0.05 (none true); four at 0.85 (three true); 1.0 (true).
    assert model == pytest.approx(np.array([[0.1 / 3, 0.0], [0.85, 0.75], [1.0, 1.0]]))
    assert "ECE 0.062" in upper.get_title()  # (3 · 0.0333 + 4 · 0.1 + 1 · 0) / 8
    assert [int(bar.get_height()) for bar in lower.patches] == [3, 0, 0, 0, 0, 0, 0, 0, 4, 1]
    assert [text.get_text() for text in lower.texts] == ["3", "4", "1"]


def test_label_confusion_is_the_share_of_each_true_label():
    predicted = np.array([[1, 0, 0], [1, 0, 1], [0, 0, 0], [0, 1, 0]], dtype=bool)
    figure = figures.label_confusion(TRUTH, predicted, NAMES, "IR modality")
    axes = figure.axes[0]
    shares = axes.images[0].get_array()
    assert shares[:2].tolist() == [[1.0, 0.0, 0.5, 0.0], [0.5, 0.0, 0.5, 0.5]]  # tace; rfa, once missed altogether
    assert shares.mask[2].all()  # no record of cryoablation
    assert shares[3].tolist() == [0.0, 1.0, 0.0, 0.0]  # the record without a label got rfa
    assert [tick.get_text() for tick in axes.get_yticklabels()] == [
        "tace  n=2",
        "rfa  n=2",
        "cryoablation  n=0",
        "(none)  n=1",
    ]
    assert png(figure)


def test_figures_leave_pyplot_and_the_backend_alone():
    script = """
import sys
from pipeline import figures
assert "matplotlib" not in sys.modules
figures.learning_curve([{"step": 1, "loss": 1.0}]).savefig(sys.stdout.buffer)
assert "matplotlib.pyplot" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(b"\x89PNG")
