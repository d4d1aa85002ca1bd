"""Figures of a model's quality, as matplotlib figures of their own: nothing global is touched and no display is needed.

Colours are those of Okabe and Ito (2008), told apart with every common colour vision; past their number the line style
changes. Probabilities are floats in [0, 1], truth and decisions are boolean, both of shape (records, labels).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_STYLES = ("-", "--", ":", "-.")
_GREY = "#767676"
_DPI = 120
_CHARACTER = 0.0072
"""Inches that a character takes on average, per point of its size. Margins are reckoned from it: to have matplotlib fit
them draws every figure twice, which a short training would feel."""

Bools = NDArray[np.bool_]
Floats = NDArray[np.floating[Any]]


def precision_recall(truth: Bools, probabilities: Floats, names: Sequence[str], title: str) -> Figure:
    """Precision against recall at every threshold, one curve per label.

    Labels without a positive record have no curve; the legend names them. Average precision (AP) and support stand in
    the legend. Order and colours follow ``names``, so that figures of two runs can be laid side by side. Faint lines
    join points of equal F1.

    Args:
        truth: true labels, (n, L).
        probabilities: predicted probabilities, (n, L).
        names: the L labels of one axis of the scheme.
        title: the axis.

    Returns:
        The figure.
    """
    from sklearn.metrics import average_precision_score, precision_recall_curve

    figure, axes = _blank(8.6, 4.6, title, "Recall", "Precision", right=3.9)
    _equal_f1(axes)
    support = truth.sum(axis=0)
    for column, name in enumerate(names):
        if not support[column]:
            axes.plot([], [], linestyle="none", label=f"{name}  no positives")
            continue
        precision, recall, _ = precision_recall_curve(truth[:, column], probabilities[:, column])
        average = average_precision_score(truth[:, column], probabilities[:, column])
        axes.plot(
            recall,
            precision,
            drawstyle="steps-post",
            color=_COLOURS[column % len(_COLOURS)],
            linestyle=_STYLES[column // len(_COLOURS) % len(_STYLES)],
            linewidth=1.8,
            label=f"{name}  AP {average:.2f}  n={support[column]}",
        )
    axes.set(xlim=(0, 1.01), ylim=(0, 1.02))
    if len(names):
        axes.legend(loc="center left", bbox_to_anchor=(1.08, 0.5), frameon=False, fontsize=8)
    return figure


def f1_against_support(names: Sequence[str], f1: Floats, support: NDArray[np.integer[Any]]) -> Figure:
    """F1 of each label against its number of positives, on a logarithmic scale.

    Colour and marker tell the axes of the scheme apart where ``names`` are full names (``axis:label``). Labels without
    support have no F1 and are left out.

    Args:
        names: the L labels.
        f1: F1 per label, (L,).
        support: positive records per label, (L,).

    Returns:
        The figure.
    """
    figure, axes = _blank(10, 6.4, "F1 per label against support", "Positive records (log scale)", "F1", bottom=0.95)
    shown = [index for index in range(len(names)) if support[index] > 0 and np.isfinite(f1[index])]
    groups = list(dict.fromkeys(names[index].rpartition(":")[0] for index in shown))
    axes.set_xscale("log")
    if shown:
        axes.set_xlim(min(support[shown]) * 0.8, max(support[shown]) * 1.9)
    axes.set_ylim(-0.04, 1.06)
    for place, group in enumerate(groups):
        members = [index for index in shown if names[index].rpartition(":")[0] == group]
        axes.scatter(
            [support[index] for index in members],
            [f1[index] for index in members],
            s=34,
            color=_COLOURS[place % len(_COLOURS)],
            marker="osD^vPX"[place % 7],
            label=group,
            zorder=3,
        )
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    if any(groups):
        figure.legend(loc="lower center", ncols=len(groups), fontsize=8.5, frameon=False, handletextpad=0.1)
    _label_points(axes, [(float(support[i]), float(f1[i]), names[i].rpartition(":")[2]) for i in shown])
    return figure


def learning_curve(history: Sequence[Mapping[str, float]]) -> Figure:
    """Training loss and dev F1 in two panels.

    Args:
        history: entries in order, each with ``step`` or ``epoch`` and any of ``loss`` (train), ``eval_loss``,
            ``f1_micro``, ``f1_macro`` (dev); the prefixes of hepatag and of transformers (``train/loss``,
            ``dev/f1_micro``, ``eval_f1_micro``) count too. An entry holds what was measured at that point, so losses
            and scores may stand in different entries.

    Returns:
        The figure.
    """
    by = "epoch" if all("epoch" in entry for entry in history) else "step"
    figure = _figure(9, 3.8)
    left, right = figure.subplots(1, 2, gridspec_kw=_margins(figure, wspace=0.18))
    _dress(left, "Loss", by.capitalize(), "")
    _dress(right, "F1 on dev", by.capitalize(), "")
    series: tuple[tuple[Axes, str, str], ...] = (
        (left, "train", r"(train[/_])?loss"),
        (left, "dev", r"(dev/|dev_|eval_)loss"),
        (right, "micro", r"(dev/|dev_|eval_)?f1_micro"),
        (right, "macro", r"(dev/|dev_|eval_)?f1_macro"),
    )
    for place, (axes, label, pattern) in enumerate(series):
        points = [
            (entry[by], value)
            for entry in history
            if by in entry
            for key, value in entry.items()
            if re.fullmatch(pattern, key)
        ]
        if points:
            x, y = zip(*points, strict=True)
            marker = "o" if len(points) <= 30 else None
            axes.plot(x, y, color=_COLOURS[place % 2], linewidth=1.8, marker=marker, markersize=4, label=label)
    right.set_ylim(0, 1)
    for axes in (left, right):
        if axes.lines:
            axes.legend(frameon=False, fontsize=9)
    return figure


def reliability(truth: Bools, probabilities: Floats, bins: int = 10) -> Figure:
    """Calibration diagram: how often labels given with a probability are true, over all records and labels.

    ECE is the expected calibration error with bins of equal width (Naeini et al. 2015): the mean distance between
    probability and frequency, weighted by the count of each bin.

    Args:
        truth: true labels, any shape.
        probabilities: predicted probabilities, same shape.
        bins: number of bins.

    Returns:
        The figure, with the count of each bin below.
    """
    flat, hits = np.ravel(probabilities).astype(float), np.ravel(truth).astype(float)
    edges = np.linspace(0, 1, bins + 1)
    place = np.clip(np.digitize(flat, edges[1:-1]), 0, bins - 1)
    counts = np.bincount(place, minlength=bins)
    filled = counts > 0
    mean = np.bincount(place, flat, minlength=bins)[filled] / counts[filled]
    rate = np.bincount(place, hits, minlength=bins)[filled] / counts[filled]
    error = float(np.abs(mean - rate) @ counts[filled] / max(counts.sum(), 1))

    figure = _figure(5.2, 5.6)
    upper, lower = figure.subplots(
        2, 1, sharex=True, height_ratios=[3.2, 1], gridspec_kw=_margins(figure, left=0.75, hspace=0.12)
    )
    _dress(upper, f"Calibration over all labels  (ECE {error:.3f})", "", "Share that is true")
    _dress(lower, "", "Predicted probability", "Count (log)")
    upper.plot([0, 1], [0, 1], color=_GREY, linestyle="--", linewidth=1.2, label="perfect")
    upper.plot(mean, rate, color=_COLOURS[0], marker="o", linewidth=1.8, label="model")
    upper.set(xlim=(0, 1), ylim=(-0.02, 1.02))
    upper.legend(frameon=False, loc="upper left", fontsize=9)
    lower.bar(edges[:-1], counts, width=1 / bins, align="edge", color=_COLOURS[5], edgecolor="white")
    lower.set_yscale("symlog", linthresh=1)
    lower.set(ylim=(0, max(int(counts.max()), 1) * 30), yticks=[])
    lower.tick_params(axis="y", which="minor", length=0)
    for left, count in zip(edges, counts, strict=False):
        if count:
            lower.text(left + 0.5 / bins, count * 1.3, _short_count(int(count)), ha="center", va="bottom", fontsize=7.5)
    return figure


def label_confusion(truth: Bools, predicted: Bools, names: Sequence[str], title: str) -> Figure:
    """Within an axis: of the records that truly have label i (rows), the share that were given label j (columns).

    A record may have several labels, so rows need not add up to 1. The last column is the share given none of them; the
    last row holds the records that truly have none.

    Args:
        truth: true labels, (n, L).
        predicted: labels given, (n, L).
        names: the L labels of the axis.
        title: the axis.

    Returns:
        The figure.
    """
    rows = np.column_stack([truth, ~truth.any(axis=1)]).astype(float)
    columns = np.column_stack([predicted, ~predicted.any(axis=1)]).astype(float)
    support = rows.sum(axis=0)
    with np.errstate(invalid="ignore"):
        share = (rows.T @ columns) / support[:, None]
    size = len(names) + 1
    rows_shown = [f"{name}  n={int(count)}" for name, count in zip([*names, "(none)"], support, strict=True)]
    left = 0.5 + 8 * _CHARACTER * max(map(len, rows_shown))
    bottom = 0.6 + 0.7 * 8 * _CHARACTER * max(map(len, [*names, "(none)"]))
    figure = _figure(left + 0.46 * size + 1.3, bottom + 0.40 * size + 0.45)
    axes = figure.subplots(gridspec_kw=_margins(figure, left=left, bottom=bottom, right=1.3))
    axes.set_facecolor("#E6E6E6")  # rows without a record
    image = axes.imshow(np.ma.masked_invalid(share), cmap="Blues", vmin=0, vmax=1, aspect="auto")
    axes.set_xticks(range(size), [*names, "(none)"], rotation=45, ha="right", rotation_mode="anchor", fontsize=8)
    axes.set_yticks(range(size), rows_shown, fontsize=8)
    axes.set_title(title, y=1)
    axes.set(xlabel="Given", ylabel="True")
    for row, column in np.argwhere(share >= 0.005):
        colour = "white" if share[row, column] > 0.55 else "black"
        axes.text(column, row, f"{share[row, column]:.2f}", ha="center", va="center", fontsize=7, color=colour)
    bar = axes.inset_axes((1 + 0.15 / (0.46 * size), 0, 0.16 / (0.46 * size), 1))
    figure.colorbar(image, cax=bar, label="Share of the true records")
    return figure


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=_DPI)


def _margins(
    figure: Figure, left: float = 0.65, bottom: float = 0.55, right: float = 0.2, top: float = 0.4, **spaces: float
) -> dict[str, float]:
    """Where the axes lie in a figure, from margins in inches."""
    width, height = figure.get_size_inches()
    return {
        "left": left / width, "bottom": bottom / height, "right": 1 - right / width, "top": 1 - top / height, **spaces
    }  # fmt: skip


def _blank(width: float, height: float, title: str, x: str, y: str, **margins: float) -> tuple[Figure, Axes]:
    figure = _figure(width, height)
    axes = figure.subplots(gridspec_kw=_margins(figure, **margins))
    _dress(axes, title, x, y)
    return figure, axes


def _dress(axes: Axes, title: str, x: str, y: str) -> None:
    axes.set_title(title, y=1)  # a place of its own, which matplotlib then need not look for
    axes.set(xlabel=x, ylabel=y)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#E3E3E3", linewidth=0.7)
    axes.set_axisbelow(True)


def _equal_f1(axes: Axes) -> None:
    for f1 in (0.2, 0.4, 0.6, 0.8):
        recall = np.linspace(f1 / (2 - f1), 1, 100)
        precision = f1 * recall / (2 * recall - f1)
        axes.plot(recall, precision, color="#BBBBBB", linewidth=0.8, zorder=1)
        label = f"F1 {f1}"
        axes.annotate(label, (1, precision[-1]), (7, -3), textcoords="offset points", color=_GREY, fontsize=7)


def _label_points(axes: Axes, points: Sequence[tuple[float, float, str]]) -> None:
    """Write each point's name beside it, where it covers no other name or point if there is such a place."""
    from matplotlib.transforms import Bbox

    taken = [Bbox.from_bounds(x - 5, y - 5, 10, 10) for x, y in axes.transData.transform([p[:2] for p in points])]
    sides = ((7, "left"), (-7, "right"))
    places = [(right, -3 + shift, side) for shift in (0, 8, -8) for right, side in sides]
    places += [(0, 7, "center"), (0, -13, "center")]
    places += [(right, -3 + shift, side) for shift in (17, -17, 26, -26) for right, side in sides]
    scale = _DPI / 72
    for (x, y, name), spot in zip(points, list(taken), strict=True):
        text = axes.annotate(name, (x, y), (0, 0), textcoords="offset points", fontsize=7.5, color="#333333", zorder=4)
        size = text.get_window_extent()  # measured once: each look at a text costs as much as drawing it
        boxes = []
        for right, up, side in places:
            start = {"left": 0.0, "center": size.width / 2, "right": size.width}[side]
            middle = (spot.x0 + spot.x1) / 2, (spot.y0 + spot.y1) / 2
            boxes.append(
                Bbox.from_bounds(middle[0] + right * scale - start, middle[1] + up * scale, size.width, size.height)
            )
        free = (
            number
            for number, box in enumerate(boxes)
            if axes.bbox.x0 <= box.x0 and box.x1 <= axes.bbox.x1 and not any(box.overlaps(other) for other in taken)
        )
        best = next(free, 0)
        text.xyann, side = places[best][:2], places[best][2]
        text.set(ha=side)
        taken.append(boxes[best])


def _short_count(count: int) -> str:
    return f"{count / 1000:.3g}k" if count >= 1000 else str(count)
