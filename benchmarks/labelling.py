"""Records to probabilities: hepatag's batches beside transformers' own text-classification pipeline, one run, ratios.

    python benchmarks/labelling.py [--model hepatag-mini] [--records 344]

Both run the same weights on the same model texts on CPU. The last line is one JSON document.
"""

import argparse
import json
import time
from pathlib import Path

from transformers import TextClassificationPipeline

from pipeline.corpus import read_examples
from pipeline.predict import Predictor

SAMPLE = Path(__file__).parents[1] / "data" / "sample"


def seconds(work):
    """Wall time of ``work()``."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def main():
    """Print a table of rates and the ratios."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--model", default="hepatag-mini")
    options.add_argument("--records", type=int, default=344)
    arguments = options.parse_args()
    predictor = Predictor.from_folder(arguments.model, "cpu")
    records = [example.record for example in read_examples([SAMPLE / "train.jsonl", SAMPLE / "dev.jsonl"])]
    records = (records * (arguments.records // len(records) + 1))[: arguments.records]
    texts = predictor.texts(records)
    classify = TextClassificationPipeline(
        model=predictor.model.network, tokenizer=predictor.model.tokenizer, device="cpu", top_k=None
    )
    length = predictor.model.card.max_length
    predictor.raw_proba(texts[:16])
    times = {
        "hepatag": seconds(lambda: predictor.raw_proba(texts)),
        "hepatag with text and hints": seconds(lambda: predictor.predict_proba(records)),
        "pipeline, one by one": seconds(lambda: classify(texts, truncation=True, max_length=length)),
        "pipeline, batches of 16": seconds(lambda: classify(texts, truncation=True, max_length=length, batch_size=16)),
    }
    for name, spent in times.items():
        print(f"{name:30} {len(texts) / spent:8.1f} texts/s   {spent / times['hepatag']:5.2f} × hepatag's time")
    print(json.dumps({f"{name}_s": round(spent, 3) for name, spent in times.items()} | {"texts": len(texts)}))


if __name__ == "__main__":
    main()
