"""Reasons: what they cost beside plain labelling, and how often the sentence holds a term of the rules for its label.

    python benchmarks/reasons.py [--model hepatag-mini] [--records 100] [--skip 0] [--threads 1] [FILE.jsonl]

A term of the rules for a label is any place where the lexicon finds a concept that names it: its own (modalities,
immunotherapy), a treatment of the combination, or a concept on the axis's subject that adds points to the label in
``rules.yaml``. Beside the top sentence stands the expectation of a sentence drawn at random from the same record. The
default file is the labelled test set where that is beside the repository, else ``data/sample``; labels are the model's
own. Nothing is tuned on these figures. The last line is one JSON document.
"""

import argparse
import json
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch

from pipeline.corpus import read_examples
from pipeline.lexicon import mentions
from pipeline.predict import Predictor
from pipeline.reasons import TITLE, explain, sentences_of
from pipeline.rules import AXES_BY_CONCEPT, OWN_CONCEPTS, PARTNERS, load_cards
from pipeline.taxonomy import load_taxonomy

ROOT = Path(__file__).parents[1]
TEST = ROOT.parent / "shared" / "labelled" / "test.jsonl"
SAMPLE = ROOT / "data" / "sample" / "dev.jsonl"


FAMILIES = {"cancer_type": ("cancer_type:", "cue:"), "study_design": ("design:",), "finding": ("result:",)}
"""Concepts that name what an axis is about; the score cards use others too, as circumstances."""
TREATMENTS = {
    "combination:ir_immuno": ("ir_modality:", PARTNERS["immuno"]),
    "combination:ir_immuno_targeted": ("ir_modality:", PARTNERS["immuno"], PARTNERS["targeted"]),
    "combination:ir_targeted": ("ir_modality:", PARTNERS["targeted"]),
    "combination:ir_chemo": ("ir_modality:", PARTNERS["chemo"]),
}


def terms_of(label):
    """Prefixes of the concepts that name a label."""
    axis = label.split(":")[0]
    if axis in AXES_BY_CONCEPT:
        return OWN_CONCEPTS.get(label, (label,))
    if label in TREATMENTS:
        return TREATMENTS[label]
    found = {"cue:liver_metastases"} if label.endswith("_mets") else set()
    for sign, points in load_cards()[label].points.items():
        if points > 0:
            found |= {part.split("@")[0] for part in sign.split("&")}
    return tuple(name for name in found if ":" in name and name.startswith(FAMILIES[axis]))


def concepts_by_sentence(record):
    """Where each sentence stands → the concepts that the lexicon finds in it, seen in the whole record."""
    offset = len(record.title) + 2
    places = [(mention.concept, mention.start) for mention in mentions(record.title, record.abstract_text())]
    found = {}
    for one in sentences_of(record):
        shift = 0 if one.part == TITLE else offset
        found[one.part, one.start] = {c for c, at in places if one.start + shift <= at < one.end + shift}
    return found


def holds(concepts, label):
    """Whether a term for ``label`` is among them."""
    return any(concept.startswith(terms_of(label)) for concept in concepts)


def main():
    """Print cost and agreement."""
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("file", nargs="?", type=Path, default=TEST if TEST.is_file() else SAMPLE)
    options.add_argument("--model", default="hepatag-mini")
    options.add_argument("--records", type=int, default=100, help="drawn at random with a fixed seed")
    options.add_argument("--skip", type=int, default=0, help="leave out as many of those drawn first")
    options.add_argument("--threads", type=int, default=1)
    arguments = options.parse_args()
    torch.set_num_threads(arguments.threads)
    predictor = Predictor.from_folder(arguments.model, "cpu")
    records = [example.record for example in read_examples([arguments.file])]
    drawn = np.random.default_rng(0).permutation(len(records))[arguments.skip :][: arguments.records]
    records = [records[number] for number in sorted(drawn)]
    predictor.predict_proba(records[:4])

    # Processor time, since other work may share the machine.
    started = time.process_time()
    given = predictor.decide(predictor.predict_proba(records))
    plain = time.process_time() - started
    started = time.process_time()
    explained = explain(predictor, records)
    full = time.process_time() - started
    in_scope = int(given.any(axis=1).sum())
    variants = [without for row, without in enumerate(map(sentences_of, records)) if given[row].any()]

    hits, chance, weak, total = (defaultdict(float) for _ in range(4))
    for found in explained:
        concepts = concepts_by_sentence(found.record)
        for reason in found.reasons:
            axis = reason.label.split(":")[0]
            for group in (axis, "all", *(["all, drop of at least 0.05"] if reason.drop >= 0.05 else [])):
                total[group] += 1
                weak[group] += reason.drop < 0.05
                hits[group] += holds(concepts[reason.part, reason.start], reason.label)
                chance[group] += np.mean([holds(one, reason.label) for one in concepts.values()])
    print(f"{arguments.file.name}: {len(records)} records, {in_scope} in scope, {sum(map(len, variants))} sentences")
    print(f"plain labelling {plain:.1f} s, with reasons {full:.1f} s of processor time: × {full / plain:.1f}")
    print(f"{'labels':28} {'number':>6} {'top sentence':>13} {'random one':>11} {'drop < 0.05':>12}")
    figures = {}
    for group in (*(axis.name for axis in load_taxonomy().axes), "all", "all, drop of at least 0.05"):
        if n := total[group]:
            figures[group] = {
                "labels": int(n), "top": round(hits[group] / n, 3), "random": round(chance[group] / n, 3),
                "weak": round(weak[group] / n, 3),
            }  # fmt: skip
            print(f"{group:28} {int(n):6} {hits[group] / n:13.2f} {chance[group] / n:11.2f} {weak[group] / n:12.2f}")
    document = {"records": len(records), "in_scope": in_scope, "plain_s": round(plain, 2), "reasons_s": round(full, 2)}
    print(json.dumps(document | {"ratio": round(full / plain, 2), "agreement": figures}))


if __name__ == "__main__":
    main()
