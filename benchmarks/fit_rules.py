"""Fits the points of the keyword rules to the training files and writes ``pipeline/rules.yaml``.

    python benchmarks/fit_rules.py [--data ../shared/labelled] [--keep scope study_design] [--out pipeline/rules.yaml]

To be run after every change of signs (`pipeline/rules.py`) or terms (``pipeline/lexicon.yaml``). Texts written for
hepatag and trial registrations count less than real abstracts, for they are of another kind. Dev and test are not read.
Cards whose names begin with one of ``--keep`` stay as they are: the networks in the box were trained on the opinions
of these, and none of their signs is a treatment.
"""

import argparse
from pathlib import Path

import numpy as np

from pipeline.corpus import label_matrix, read_examples
from pipeline.rulefit import fit_cards
from pipeline.rules import load_cards, profile
from pipeline.taxonomy import load_taxonomy

ROOT = Path(__file__).parents[1]
WEIGHTS = {"train.jsonl": 1.0, "train_trials.jsonl": 0.3, "train_written.jsonl": 0.6}
HEAD = """\
# Score cards of the keyword rules: card → offset and points per sign (pipeline/rules.py tells what the signs are).
#
# A card's sum is a log-odds; a label stands at a sum above 0, the study design with the highest sum wins. The points
# were fitted by logistic regression (L1; L2 for the designs) on the three training files, written texts at weight 0.6
# and trial registrations at 0.3, and rounded to one decimal. Small points were left out. benchmarks/fit_rules.py
# writes this file.
version: 1
cards:
"""


def main():
    """Fit and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "labelled")
    parser.add_argument("--keep", nargs="*", default=["scope", "study_design"])
    parser.add_argument("--out", type=Path, default=ROOT / "pipeline" / "rules.yaml")
    given = parser.parse_args()
    parts = {name: read_examples([given.data / name]) for name in WEIGHTS}
    examples = [example for part in parts.values() for example in part]
    weights = np.concatenate([np.full(len(part), WEIGHTS[name]) for name, part in parts.items()])
    profiles = [profile(one.record.title, one.record.abstract_text()) for one in examples]
    cards = fit_cards(profiles, label_matrix(examples, load_taxonomy()), weights)
    kept = {name: card for name, card in load_cards().items() if name.startswith(tuple(given.keep))}
    lines = []
    for name, card in (cards | kept).items():
        lines += [f'  "{name}":', f"    offset: {card.offset}", "    points:" if card.points else "    points: {}"]
        lines += [f'      "{sign}": {points}' for sign, points in card.points.items()]
    given.out.write_text(HEAD + "\n".join(lines) + "\n", encoding="utf-8")
    print(f"{len(examples)} records, {sum(len(card.points) for card in cards.values())} points → {given.out}")


if __name__ == "__main__":
    main()
