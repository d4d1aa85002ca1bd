"""Fits what decides behind a network anew: opinion weights, calibration, thresholds, the records that doubt rests on.

    python benchmarks/fit_decision.py configs/mini.yaml data/models/hepatag-mini

To be run after every change of the lexicon or of the rules' points, for each model that goes on with its network: the
opinions that its decision was fitted to are then others. Weights and tokenizer stay; the card gets the text version of
this code, and scores on dev that are cross-fitted as those of a training are. The config names the labelled files.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np

from pipeline import corpus, decision, metrics, model, modelcard
from pipeline.config import DistillConfig, TrainConfig, load_config
from pipeline.device import choose_device
from pipeline.held_out import HeldOut, write_held_out
from pipeline.model_folder import read_card, write_card
from pipeline.predict import Predictor
from pipeline.reference import reference_of, write_reference
from pipeline.taxonomy import load_taxonomy
from pipeline.text import TEXT_VERSION, opinions_in


def main():
    """Fit and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("folder", type=Path)
    given = parser.parse_args()
    kind = DistillConfig if "teaching:" in given.config.read_text(encoding="utf-8") else TrainConfig
    settings = load_config(kind, given.config, [f"output={given.folder}"])
    taxonomy, folder = load_taxonomy(), given.folder
    train, dev = corpus.read_examples(settings.data.train), corpus.read_examples(settings.data.dev)
    card = read_card(folder)
    if card.text_version != TEXT_VERSION:
        card = card.model_copy(update={"text_version": TEXT_VERSION})
        write_card(folder, card, (folder / "README.md").read_text(encoding="utf-8"))
    loaded = model.load(str(folder))
    predictor = Predictor(replace(loaded, opinion_weights=np.zeros(len(taxonomy.names))), choose_device("cpu"))
    texts, truth = predictor.texts([one.record for one in dev]), corpus.label_matrix(dev, taxonomy)
    raw, opinions = predictor.raw_proba(texts)[0], opinions_in(texts)
    rule = decision.fit_rule(truth, raw, opinions, taxonomy)
    probabilities, labels = decision.cross_fit(truth, raw, opinions, taxonomy)
    scores = metrics.evaluate(truth, labels, probabilities, taxonomy)
    write_held_out(folder, HeldOut(truth, probabilities))
    write_reference(folder, reference_of(train, dev, folder))
    write_card(folder, modelcard.complete(card, rule, scores), modelcard.readme(card, scores, settings))
    print(f"{folder}: weights {rule.weights}; dev, cross-fitted: micro-F1 {scores.groups['all'].f1_micro}")


if __name__ == "__main__":
    main()
