"""Further pre-training of a BERT on unlabelled abstracts, without labels.

Three things happen to the base model, in this order:

1. Its vocabulary is fitted to the field: whole words such as ``chemoembolization`` take the place of six pieces each
   (their vector starts as the mean of the pieces'), and tokens that the corpus never uses are dropped. Abstracts get
   a fifth shorter, so more of each fits into the model, faster.
2. Masked language modelling (Devlin et al. 2019, https://arxiv.org/abs/1810.04805) on the corpus.
3. In the same passes the CLS path gets a start. A sentence-transformer was tuned with mean pooling, so its CLS pooler
   knows nothing; here the pooled CLS vector learns to predict the text's latent semantic vector (TF-IDF and truncated
   SVD; Deerwester et al. 1990). The head that does so is thrown away: the saved folder is a stock BERT.
"""

from __future__ import annotations

import json
import random
import re
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import DataCollatorForLanguageModeling, Trainer, TrainerCallback, TrainingArguments

from pipeline import corpus
from pipeline.config import PretrainConfig
from pipeline.device import Device, choose_device
from pipeline.errors import InputError, OutputError
from pipeline.files import replacing_folder, writing
from pipeline.fitting import Progress, last_checkpoint
from pipeline.quiet import quiet_transformers
from pipeline.readers import read
from pipeline.records import Record
from pipeline.stopping import stoppable

_LIVER = re.compile(r"\bliver|hepat|\bhcc\b|cholangioc|chemoembol|embolization", re.IGNORECASE)
_ONCOLOGY = re.compile(
    r"cancer|carcinoma|tumou?r|neoplas|metasta|ablation|radioembol|immunotherap|oncolog|catheter|emboli|angiogra|"
    r"imaging|radiolog",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Pretrained:
    """A finished run: losses are those of the last logged steps."""

    folder: Path
    texts: int
    vocabulary: int
    token_loss: float
    cls_loss: float
    seconds: float


def pretrain(
    settings: PretrainConfig,
    *,
    device: str = "auto",
    resume: bool = False,
    report: Callable[[Progress], None] | None = None,
) -> Pretrained:
    """Fit a base model to the field: vocabulary, masked tokens, CLS.

    Args:
        settings: the config.
        device: auto, cpu, cuda or mps.
        resume: go on with an unfinished run.
        report: called after each logged step.

    Returns:
        What came of it.

    Raises:
        InputError: a file cannot be read, or no text on the liver is left.
        OutputError: the output folder exists, there is nothing to resume, or nothing can be written.
        Interrupted: ended by Ctrl-C or SIGTERM; the message says how to go on.
    """
    from transformers import set_seed

    chosen, checkpoints = choose_device(device), settings.output.with_name(settings.output.name + ".checkpoints")
    found = _check_output(settings.output, checkpoints, resume)
    set_seed(settings.seed)
    started, watch = time.monotonic(), _Losses(report)
    how_to_go_on = partial(_how_to_go_on, checkpoints)
    with writing(settings.output.parent, how_to_go_on), stoppable(how_to_go_on):
        texts = select_texts(settings)
        bert, tokenizer = _fitted_base(settings, texts, checkpoints / "vocabulary")
        trainer = _PretrainingTrainer(
            PretrainingModel(bert, settings.latent_dimensions, settings.cls_weight),
            _arguments(settings, chosen, checkpoints),
            train_dataset=_training_items(settings, texts, tokenizer),
            data_collator=_MaskingCollator(tokenizer, settings.masked),
            callbacks=[watch],
        )
        trainer.callback_handler.callbacks = [
            one for one in trainer.callback_handler.callbacks if type(one).__name__ != "PrinterCallback"
        ]
        trainer.train(resume_from_checkpoint=str(found) if found else None)
        bert.config.hidden_dropout_prob = 0.1
        with replacing_folder(settings.output) as folder, quiet_transformers():
            bert.cpu().save_pretrained(folder)
            tokenizer.save_pretrained(folder)
    shutil.rmtree(checkpoints)
    return Pretrained(
        settings.output, len(texts), len(tokenizer), watch.token_loss, watch.cls_loss, time.monotonic() - started
    )


def _check_output(output: Path, checkpoints: Path, resume: bool) -> Path | None:
    """Check the output folder; returns the checkpoint to resume from, or None."""
    if output.exists():
        raise OutputError(f"Expected no folder at {output}, found one; remove it or choose another output.")
    found = last_checkpoint(checkpoints)
    if resume and not found:
        raise OutputError(f"Expected a checkpoint in {checkpoints}, found none; run without --resume.")
    if found and not resume:
        raise OutputError(
            f"Expected no unfinished run, found one in {checkpoints}; add --resume to go on with it, or remove that "
            "folder to start afresh."
        )
    return found


def _how_to_go_on(checkpoints: Path) -> str:
    kept = last_checkpoint(checkpoints)
    return f"run the same command with --resume to go on from {kept.name}" if kept else "run the same command again"


def _fitted_base(settings: PretrainConfig, texts: Sequence[str], folder: Path) -> tuple[Any, Any]:
    """The base model with a vocabulary that fits the texts, and its tokenizer; both are kept in ``folder``."""
    from transformers import AutoModel, AutoTokenizer

    with quiet_transformers():
        fit_vocabulary(
            texts, settings.base_model, settings.revision, folder, new_words=settings.new_words,
            min_count=settings.min_count,
        )  # fmt: skip
        bert = AutoModel.from_pretrained(
            folder, attention_probs_dropout_prob=0.0, hidden_dropout_prob=0.0, dtype="float32"
        )
        return bert, AutoTokenizer.from_pretrained(folder)


def _training_items(settings: PretrainConfig, texts: Sequence[str], tokenizer: Any) -> list[dict[str, Any]]:
    """Each text as token ids and latent vector (dimensions,)."""
    vectors = latent_vectors(texts, settings.latent_dimensions, settings.seed)
    ids = tokenizer(list(texts), truncation=True, max_length=settings.max_length)["input_ids"]
    return [{"input_ids": one, "latent": vector} for one, vector in zip(ids, vectors, strict=True)]


def _arguments(settings: PretrainConfig, device: Device, checkpoints: Path) -> TrainingArguments:
    return TrainingArguments(
        output_dir=str(checkpoints),
        max_steps=settings.steps,
        per_device_train_batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        warmup_steps=max(1, settings.steps // 16),
        weight_decay=0.01,
        logging_steps=20,
        save_steps=200,
        save_total_limit=1,
        use_cpu=device.kind == "cpu",
        bf16=device.bf16,
        report_to="none",
        remove_unused_columns=False,
        train_sampling_strategy="group_by_length",
        disable_tqdm=True,
        seed=settings.seed,
    )


def select_texts(settings: PretrainConfig) -> list[str]:
    """The corpus: every distinct text on the liver, and up to ``max_other`` on oncology and radiology.

    Texts of the held-out files are left out, whatever identifier they carry.

    Args:
        settings: the config.

    Returns:
        The texts, title and abstract in one.

    Raises:
        InputError: a file cannot be read, or no text on the liver is left.
    """
    held = {_key(text) for text in _texts(e.record for e in corpus.read_examples(settings.held_out))}
    liver: list[str] = []
    other: list[str] = []
    seen = set(held)
    for path in settings.corpus:
        for text in _texts(entry for entry in read(path) if isinstance(entry, Record)):
            if (key := _key(text)) in seen:
                continue
            seen.add(key)
            if _LIVER.search(text):
                liver.append(text)
            elif len(_ONCOLOGY.findall(text)) >= 2:
                other.append(text)
    if not liver:
        raise InputError(f"Expected abstracts on the liver in {', '.join(map(str, settings.corpus))}, found none.")
    random.Random(settings.seed).shuffle(other)
    return liver + other[: settings.max_other]


def _texts(records: Iterable[Record]) -> Iterable[str]:
    return (f"{record.title} {record.abstract_text()}".strip() for record in records)


def _key(text: str) -> str:
    """Letters and digits of a text's last 400 characters: the same abstract under another title is the same text."""
    return re.sub(r"\W+", "", text[-400:].lower())


class _Losses(TrainerCallback):
    """Keeps both losses of the last step and reports progress."""

    def __init__(self, report: Callable[[Progress], None] | None) -> None:
        self.report, self.token_loss, self.cls_loss = report, float("nan"), float("nan")
        self.started = time.monotonic()

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **rest: Any) -> None:
        if self.report and logs and "loss" in logs:
            rate = state.global_step * args.train_batch_size / (time.monotonic() - self.started)
            self.report(Progress(state.global_step, state.max_steps, state.epoch or 0.0, float(logs["loss"]), rate))


class _PretrainingTrainer(Trainer):
    """The Trainer for a network that returns its own losses."""

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The sum of both losses; the parts are kept for the report."""
        found = model(**inputs)
        for callback in self.callback_handler.callbacks:
            if isinstance(callback, _Losses):
                callback.token_loss = float(found["token_loss"].detach())
                callback.cls_loss = float(found["cls_loss"].detach())
        return (found["loss"], found) if return_outputs else found["loss"]


class _MaskingCollator:
    """Masks tokens anew each time; ids, mask and labels (batch, width), latent (batch, dimensions)."""

    def __init__(self, tokenizer: Any, share: float) -> None:
        self.mask = DataCollatorForLanguageModeling(tokenizer, mlm_probability=share)
        self.pad = tokenizer.pad_token_id

    def __call__(self, items: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        batch = dict(self.mask([{"input_ids": item["input_ids"]} for item in items]))
        batch["attention_mask"] = (batch["input_ids"] != self.pad).long()
        batch["latent"] = torch.from_numpy(np.stack([item["latent"] for item in items]))
        return batch


def fit_vocabulary(
    texts: Sequence[str], source: str, revision: str | None, target: Path, *, new_words: int, min_count: int
) -> int:
    """Write to ``target`` a copy of the BERT in ``source`` whose vocabulary fits ``texts``.

    A word of the corpus that falls into two or more pieces becomes a token when it occurs at least ``min_count``
    times; of these the ``new_words`` that save most tokens are taken. Old tokens that the corpus does not use are
    dropped, single characters excepted, so that any word can still be spelled.

    Returns the number of tokens of the new vocabulary.
    """
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(source, revision=revision)
    old = tokenizer.get_vocab()
    kept, added = _choose_tokens(texts, tokenizer, new_words, min_count)
    vocabulary = {token: index for index, token in enumerate([*kept, *added])}
    model = AutoModel.from_pretrained(
        source, revision=revision, use_safetensors=True, trust_remote_code=False, dtype="float32"
    )
    weights = model.get_input_embeddings().weight.data  # (old vocabulary, width)
    rows = [weights[old[token]] for token in kept]
    rows += [weights[[old[piece] for piece in pieces]].mean(0) for pieces in added.values()]
    model.resize_token_embeddings(len(vocabulary), mean_resizing=False)
    model.get_input_embeddings().weight.data = torch.stack(rows)  # (new vocabulary, width)
    model.config.pad_token_id = vocabulary["[PAD]"]
    target.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(target)
    description = _describe(tokenizer, vocabulary)
    (target / "tokenizer.json").write_text(json.dumps(description, ensure_ascii=False), encoding="utf-8")
    settings = {
        "tokenizer_class": "BertTokenizer",
        "do_lower_case": True,
        "model_max_length": int(model.config.max_position_embeddings),
        **{f"{name}_token": f"[{name.upper()}]" for name in ("unk", "sep", "pad", "cls", "mask")},
    }
    (target / "tokenizer_config.json").write_text(json.dumps(settings, indent=2), encoding="utf-8")
    return len(vocabulary)


def _choose_tokens(
    texts: Sequence[str], tokenizer: Any, new_words: int, min_count: int
) -> tuple[list[str], dict[str, list[str]]]:
    """Old tokens that stay, special ones first, and new words with the pieces that they were."""
    backend = tokenizer.backend_tokenizer
    words: Counter[str] = Counter()
    for text in texts:
        words.update(word for word, _ in backend.pre_tokenizer.pre_tokenize_str(backend.normalizer.normalize_str(text)))
    pieces = {word: tokenizer.tokenize(word) for word in words}
    saved = {
        word: count * (len(pieces[word]) - 1)
        for word, count in words.items()
        if count >= min_count and len(pieces[word]) > 1 and word.isalpha() and "[UNK]" not in pieces[word]
    }
    added = sorted(sorted(saved), key=lambda word: -saved[word])[:new_words]
    used = {piece for word in words if word not in set(added) for piece in pieces[word]}
    old, special = tokenizer.get_vocab(), set(tokenizer.all_special_tokens)
    kept = sorted(
        (t for t in old if t in special or t in used or len(t.removeprefix("##")) == 1),
        key=lambda token: (token not in special, old[token]),
    )
    return kept, {word: pieces[word] for word in added}


def _describe(tokenizer: Any, vocabulary: dict[str, int]) -> dict[str, Any]:
    """The contents of ``tokenizer.json``, for another vocabulary."""
    description: dict[str, Any] = json.loads(tokenizer.backend_tokenizer.to_str())
    description["model"]["vocab"] = vocabulary
    for token in description["added_tokens"]:
        token["id"] = vocabulary[token["content"]]
    for token in description["post_processor"].get("special_tokens", {}).values():
        token["ids"] = [vocabulary[name] for name in token["tokens"]]
    for name in ("sep", "cls"):
        if name in description["post_processor"]:
            token_text = description["post_processor"][name][0]
            description["post_processor"][name] = [token_text, vocabulary[token_text]]
    description["padding"] = description["truncation"] = None
    return description


def latent_vectors(texts: Sequence[str], dimensions: int, seed: int) -> np.ndarray:
    """Latent semantic vectors of ``texts``: TF-IDF, truncated SVD, unit length. Shape (texts, dimensions), float32."""
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.preprocessing import normalize

    counts = TfidfVectorizer(sublinear_tf=True, min_df=3, max_df=0.5, ngram_range=(1, 2), max_features=60_000)
    vectors = TruncatedSVD(dimensions, random_state=seed).fit_transform(counts.fit_transform(texts))
    return normalize(vectors).astype(np.float32)


class PretrainingModel(nn.Module):
    """A BERT with the two heads of further pre-training; only ``bert`` is kept afterwards.

    Loss: masked-token cross-entropy + ``cls_weight`` × (1 - cosine of the CLS prediction and the latent vector).
    """

    def __init__(self, bert: Any, dimensions: int, cls_weight: float) -> None:
        """Put the heads on ``bert`` (with a pooler); ``dimensions`` is the width of the latent vectors."""
        super().__init__()
        width = bert.config.hidden_size
        self.bert, self.cls_weight = bert, cls_weight
        self.transform = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.LayerNorm(width))
        self.bias = nn.Parameter(torch.zeros(bert.config.vocab_size))
        self.latent = nn.Linear(width, dimensions)

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, labels: torch.Tensor, latent: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """One loss for a batch: ids, mask and labels (batch, tokens), -100 where not masked; latent (batch, dims)."""
        output = self.bert(input_ids=input_ids, attention_mask=attention_mask)
        masked = labels != -100
        states = self.transform(output.last_hidden_state[masked])  # (masked tokens, width)
        # The decoder is the embedding matrix itself (tied), as in BERT.
        logits = states @ self.bert.get_input_embeddings().weight.T + self.bias
        token_loss = nn.functional.cross_entropy(logits, labels[masked])
        cosine = nn.functional.cosine_similarity(self.latent(output.pooler_output), latent)
        cls_loss = (1 - cosine).mean()
        return {"loss": token_loss + self.cls_weight * cls_loss, "token_loss": token_loss, "cls_loss": cls_loss}
