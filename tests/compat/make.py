"""Make what later versions must still read: ``python tests/compat/make.py VERSION`` writes ``tests/compat/VERSION``.

Run it once for a version that changes a format, and leave the older folders as they are: `tests/test_compat.py` reads
all of them. A folder holds ``inputs/`` (our own sample files), ``model/`` (one layer of width 8 over the vocabulary of
``data/models/tiny-base``, drawn at random: it need not be good), ``library/`` (what `hepatag label --reasons` made of
the inputs with it) and ``expected.json`` (probabilities and labels).
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

HERE = Path(__file__).parent
SAMPLE = HERE.parents[1] / "data" / "sample"
TINY_BASE = HERE.parents[1] / "data" / "models" / "tiny-base"
INPUTS = ("pubmed99n0002.xml.gz", "records.csv", "citation.nbib")
TEXTS = (
    ("TACE plus sintilimab for herons", "METHODS: 42 birds with hepatocellular carcinoma had chemoembolization."),
    ("Microwave ablation of colorectal liver metastases", "A retrospective study of 80 ponds. Survival was longer."),
    ("Feathers", ""),
)


def make_model(folder: Path) -> None:
    """Write the model folder."""
    import torch
    from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

    from pipeline.model import add_hint_tokens, save
    from pipeline.model_folder import ModelCard, TrainingData
    from pipeline.taxonomy import load_taxonomy
    from pipeline.text import TEXT_VERSION

    taxonomy = load_taxonomy()
    names = taxonomy.names
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(TINY_BASE)
    settings = BertConfig(
        vocab_size=len(tokenizer), hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=128, initializer_range=0.5, num_labels=len(names), id2label=dict(enumerate(names)),
        label2id=dict(taxonomy.index), problem_type="multi_label_classification",
    )  # fmt: skip
    network = BertForSequenceClassification(settings).eval()
    add_hint_tokens(network, tokenizer)
    tokenizer.model_max_length = 128
    card = ModelCard(
        scheme_version=taxonomy.version,
        text_version=TEXT_VERSION,
        hints=True,
        max_length=128,
        thresholds={name: 0.3 + 0.4 * (at % 7) / 7 for at, name in enumerate(names)},
        opinion_weights={axis: 0.5 + 0.1 * at for at, axis in enumerate(taxonomy.columns)},
        calibration={name: (1 + at / 100, -at / 50) for at, name in enumerate(names)},
        base_model="tiny-base",
        training_data=TrainingData(files=("none.jsonl",), records=0, digest="0" * 64),
        versions={},
        dev_metrics={},
        seed=0,
        created="2026-11-24T00:00:00Z",
    )
    save(network, tokenizer, card, "# A model drawn at random, for tests of later versions\n", folder, half=True)
    vocabulary = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    (folder / "tokenizer.json").write_text(json.dumps(vocabulary, separators=(",", ":")), encoding="utf-8")


def expected(folder: Path) -> dict[str, object]:
    """What this version says of `TEXTS` and of the library."""
    import pyarrow.parquet as pq

    from pipeline.predict import Predictor
    from pipeline.records import Record, Section
    from pipeline.taxonomy import load_taxonomy

    predictor = Predictor.from_folder(str(folder / "model"), "cpu")
    records = [Record(str(at), title, (Section("", text),) if text else ()) for at, (title, text) in enumerate(TEXTS)]
    found = predictor.predict_proba(records)
    names = load_taxonomy().names
    view = pq.read_table(folder / "library" / "labels.parquet")
    return {
        "texts": TEXTS,
        "fingerprint": predictor.fingerprint,
        "labels": [[n for n, given in zip(names, row, strict=True) if given] for row in predictor.decide(found)],
        "probabilities": {name: found[:, at].tolist() for at, name in enumerate(names)},
        "view": json.loads(view.to_pandas().to_json(orient="records", double_precision=8, date_format="iso")),
    }


def main(version: str) -> None:
    """Make the folder of a version."""
    from pipeline.label import label
    from pipeline.predict import Predictor

    folder = HERE / version
    (folder / "inputs").mkdir(parents=True)
    for name in INPUTS:
        shutil.copyfile(SAMPLE / name, folder / "inputs" / name)
    make_model(folder / "model")
    predictor = Predictor.from_folder(str(folder / "model"), "cpu")
    label(sorted((folder / "inputs").iterdir()), predictor, folder / "library", reasons=True)
    text = json.dumps(expected(folder), ensure_ascii=False, indent=0)
    (folder / "expected.json").write_text(text + "\n", encoding="utf-8")
    (folder / "library" / "labels.parquet").unlink()  # a view over the rest
    (folder / "library" / ".lock").unlink(missing_ok=True)


if __name__ == "__main__":
    main(sys.argv[1])
