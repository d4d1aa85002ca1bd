"""Agreement: figures worked out by hand, and files of two annotators."""

import csv
import json

import numpy as np
import pytest

from pipeline.agreement import agree, cohen_kappa, krippendorff_alpha, masi_distance, read_labelling
from pipeline.errors import InputError
from pipeline.taxonomy import load_taxonomy

AXES = [axis.name for axis in load_taxonomy().axes]


def nominal(one, other):
    return float(one != other)


def names(**axes):
    return frozenset(f"{axis}:{name}" for axis, found in axes.items() for name in found.split())


A = {
    "1": names(cancer_type="hcc", ir_modality="tace", study_design="review"),
    "2": names(cancer_type="hcc", ir_modality="tace rfa", study_design="review"),
    "3": names(cancer_type="hcc", study_design="protocol"),
    "4": frozenset(),
    "5": names(cancer_type="hcc", study_design="review"),
}
B = {
    "1": A["1"],
    "2": names(cancer_type="hcc", ir_modality="tace", study_design="protocol"),
    "3": A["3"],
    "4": frozenset(),
    "6": A["5"],
}


def test_kappa_by_hand():
    # Observed 8/10; yes 5/10 and 5/10, so 1/2 by chance: (0.8 - 0.5) / 0.5.
    first = np.array([1, 1, 1, 1, 1, 0, 0, 0, 0, 0], dtype=bool)
    second = np.array([1, 1, 1, 1, 0, 1, 0, 0, 0, 0], dtype=bool)
    assert cohen_kappa(first, second) == pytest.approx(0.6)
    assert cohen_kappa(first, first) == 1
    assert cohen_kappa(first, ~first) == -1
    assert cohen_kappa(np.zeros(3, dtype=bool), np.zeros(3, dtype=bool)) is None


def test_alpha_by_hand():
    # Krippendorff's example of two observers and ten binary units: four disagree, 6 of 20 values are ones.
    # Expected: 2 x 6 x 14 / (20 x 19); alpha = 1 - 0.4 / (168 / 380).
    first = [0, 1, 0, 0, 0, 0, 0, 0, 1, 0]
    second = [1, 1, 1, 0, 0, 1, 0, 0, 0, 0]
    assert krippendorff_alpha(first, second, nominal) == pytest.approx(1 - 0.4 / (168 / 380))
    assert round(krippendorff_alpha(first, second, nominal), 3) == 0.095
    # Twelve units of five values, from the same report.
    assert round(krippendorff_alpha("aabbdcccedda", "babbbccceddd", nominal), 3) == 0.692
    assert krippendorff_alpha([1, 1], [1, 1], nominal) is None


def test_masi_by_hand():
    sets = {text: frozenset(text) for text in ("", "a", "ab", "abc", "bd", "cd")}
    assert masi_distance(sets["ab"], sets["ab"]) == 0
    assert masi_distance(sets[""], sets[""]) == 0
    assert masi_distance(sets["a"], sets["ab"]) == pytest.approx(1 - 1 / 2 * 2 / 3)
    assert masi_distance(sets["ab"], sets["bd"]) == pytest.approx(1 - 1 / 3 * 1 / 3)
    assert masi_distance(sets["ab"], sets["cd"]) == 1
    assert masi_distance(sets[""], sets["a"]) == 1


def test_two_labellings():
    found = agree(A, B, resamples=200)
    assert (found.records, found.only_a, found.only_b) == (4, 1, 1)
    assert found.scope_kappa == 1
    assert found.axes["cancer_type"].kappa == 1
    assert found.axes["cancer_type"].alpha == 1
    # tace agrees on all (kappa 1, support 2); rfa once against never (kappa 0, support 1/2).
    assert found.axes["ir_modality"].kappa == pytest.approx(2 / 2.5)
    # Distance 2/3 on one of four units. Values: 3 {tace}, 1 {tace, rfa}, 4 {}.
    expected = 2 * (3 * 1 * 2 / 3 + 3 * 4 + 1 * 4) / (8 * 7)
    assert found.axes["ir_modality"].alpha == pytest.approx(1 - (2 / 3 / 4) / expected)
    assert found.axes["ir_modality"].f1.value == pytest.approx(2 * 2 / (3 + 2))
    assert found.axes["ir_modality"].f1.low <= 0.8 <= found.axes["ir_modality"].f1.high
    assert found.axes["immunotherapy"].kappa is None
    assert found.axes["immunotherapy"].alpha is None
    assert found.axes["study_design"].differing == 1
    listed = {(one.id, one.axis, *one.only_a, "|", *one.only_b) for one in found.disagreements}
    assert listed == {("2", "ir_modality", "rfa", "|"), ("2", "study_design", "review", "|", "protocol")}


def test_a_labelled_file_against_a_queue(tmp_path):
    rows = [
        {"id": key, "title": f"Title {key}", "labels": load_taxonomy().by_axis(labels)} for key, labels in A.items()
    ]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    with (tmp_path / "b.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["reviewed", "id", "pmid", *AXES])
        for key, labels in B.items():
            by_axis = load_taxonomy().by_axis(labels)
            writer.writerow(["" if key == "6" else "x", key, "", *("; ".join(by_axis[axis]) for axis in AXES)])
    assert read_labelling(tmp_path / "a.jsonl") == A
    assert read_labelling(tmp_path / "b.csv") == {key: B[key] for key in "1234"}


def test_nothing_in_common():
    with pytest.raises(InputError, match="common records"):
        agree({"1": frozenset()}, {"2": frozenset()})
