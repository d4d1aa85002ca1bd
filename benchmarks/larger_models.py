"""Are the configs of larger models ready to run? Twenty real training steps with random weights of that size.

    python benchmarks/larger_models.py [--config configs/biomedbert.yaml …] [--steps 20]

The hub is not needed: a network of the published size is drawn at random, with hepatag's own tokenizer, and trained by
the config's settings on data/sample. Printed: parameters, memory at its peak, seconds a step, and what a full training
would take on this machine.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
SAMPLE = ROOT / "data" / "sample"
# As published: BERT base (BiomedBERT and BioLinkBERT base have its shape), ModernBERT base for long texts.
BERT_BASE = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3_072}
MODERNBERT_BASE = {
    "hidden_size": 768, "num_hidden_layers": 22, "num_attention_heads": 12, "intermediate_size": 1_152,
    "max_position_embeddings": 8_192,
}  # fmt: skip
SHAPES = {"biomedbert": BERT_BASE, "biolinkbert": BERT_BASE, "longcontext": MODERNBERT_BASE}


def random_base(name: str, folder: Path) -> int:
    """Write a base model of the published size with random weights; returns its number of parameters."""
    from transformers import AutoTokenizer, BertConfig, BertModel, ModernBertConfig, ModernBertModel

    tokenizer = AutoTokenizer.from_pretrained(ROOT / "data" / "models" / "hepatag-mini")
    size = max(30_522, len(tokenizer))
    if name == "longcontext":
        special = {"pad_token_id": tokenizer.pad_token_id, "cls_token_id": tokenizer.cls_token_id}
        special |= {"sep_token_id": tokenizer.sep_token_id, "bos_token_id": None, "eos_token_id": None}
        network = ModernBertModel(ModernBertConfig(vocab_size=size, **SHAPES[name], **special))
    else:
        network = BertModel(BertConfig(vocab_size=size, **SHAPES[name]))
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return sum(parameter.numel() for parameter in network.parameters())


def measure(path: Path, steps: int) -> dict[str, float | str]:
    """Train ``steps`` steps as the config says, on the sample."""
    from pipeline.config import TrainConfig, load_config
    from pipeline.train import train

    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder) / "base"
        parameters = random_base(path.stem, base)
        settings = load_config(TrainConfig, path)
        records = sum(1 for _ in (SAMPLE / "train.jsonl").open(encoding="utf-8"))
        per_step = settings.training.batch_size * settings.training.accumulate
        short = load_config(
            TrainConfig,
            path,
            [
                f"data.train={SAMPLE / 'train.jsonl'}", f"data.dev={SAMPLE / 'dev.jsonl'}",
                f"model.base_model={base}", "model.revision=null", f"output={Path(folder) / 'out'}", "tracking=none",
                f"training.epochs={steps * per_step / records}", "training.evaluations_per_epoch=1",
            ],
        )  # fmt: skip
        started = time.monotonic()
        done = train(short)
        seconds = time.monotonic() - started
    texts = 3_340 * settings.training.epochs
    return {
        "config": path.name,
        "parameters_m": round(parameters / 1e6, 1),
        "steps": steps,
        "texts_per_step": per_step,
        "max_length": settings.model.max_length,
        "seconds_per_step": round(per_step / done.examples_per_sec, 2),
        "run_s": round(seconds, 1),
        "peak_rss_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "full_training_h": round(texts / done.examples_per_sec / 3600, 1),
    }


def main() -> None:
    """Measure each config, a line each; the last line is one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", nargs="+", type=Path, default=[ROOT / "configs" / "biomedbert.yaml"])
    parser.add_argument("--steps", type=int, default=20)
    given = parser.parse_args()
    found = []
    for path in given.config:
        found.append(measure(path, given.steps))
        print("  ".join(f"{key} {value}" for key, value in found[-1].items()), file=sys.stderr)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
