"""The model's part beside its peers: one run, the same model and texts, ratios, one JSON document last.

    python benchmarks/inference.py [--quick] [--model hepatag-mini] [--small hepatag-small] [--calibration FILE]
        [--threads N] [--pubmed-parser-python PYTHON] [--sentence-transformers-python PYTHON]

The models are copied and optimized first. Peers are transformers' text-classification pipeline in batches of eight as
documented, the same over texts that were sorted by length by hand, and the encoder of sentence-transformers in its ONNX
int8 form (SetFit's body, without a head), which an interpreter of its own runs (``encode_peer.py``). Ways run in turn,
round after round; a ratio is the median over the rounds; those named "distilled" set the small model beside the other
one. With one thread the time is that of the processor, so that neighbours on the machine do not count; else it is that
of the clock. The whole job is ``hepatag label`` on one dump file, against pubmed_parser and the pipeline on every
record, or on those that the gate passes; what the pipeline would take is scaled from a slice. The same job with the
small model is set beside the same peers, which run the larger one.
"""

import argparse
import gc
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from dumps import FIRST_PMID, Shape, write_dump
from reading import by_pubmed_parser, parser_python, seconds
from transformers import TextClassificationPipeline

from pipeline.optimize import optimize, summary
from pipeline.predict import Predictor
from pipeline.readers import read
from pipeline.records import Record
from pipeline.text import encode

ROOT = Path(__file__).parents[1]
BATCH = 8
LENGTHS = (65, 166, 206, 233, 258, 280, 295, 313, 326, 339, 351, 362, 374, 388, 403, 421, 439, 464, 501, 556, 1577)
"""Tokens of 2,705 labelled real records as the model in the box reads them before it cuts them: every twentieth."""
JOB = """
import sys, time
from pathlib import Path
if __name__ == "__main__":
    started = time.perf_counter(), time.process_time()
    import torch
    torch.set_num_threads(int(sys.argv[4]))
    from pipeline.label import label
    from pipeline.predict import Predictor
    predictor = Predictor.from_folder(sys.argv[1], "cpu", "auto")
    done = label([Path(sys.argv[2])], predictor, Path(sys.argv[3]))
    print(time.perf_counter() - started[0], time.process_time() - started[1], done.totals.citations)
    print(*(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


class Peer:
    """transformers' pipeline with a model of hepatag."""

    def __init__(self, predictor: Predictor) -> None:
        self.classify = TextClassificationPipeline(
            model=predictor.model.network, tokenizer=predictor.model.tokenizer, device="cpu", top_k=None
        )
        self.length = predictor.model.card.max_length

    def __call__(self, texts: Sequence[str]) -> list:
        """Scores of texts, in batches as they come."""
        return self.classify(list(texts), truncation=True, max_length=self.length, batch_size=BATCH)


class EncodePeer:
    """sentence-transformers in another interpreter; ``spent`` holds the seconds of its rounds."""

    def __init__(self, python: str, model: Path, texts: Sequence[str], threads: int, folder: Path) -> None:
        (folder / "texts.json").write_text(json.dumps(list(texts)))
        words = [python, "-W", "ignore", Path(__file__).with_name("encode_peer.py"), model, folder / "texts.json"]
        self.process = subprocess.Popen(
            [*map(str, words), str(threads), str(folder / "encoder")],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.spent: list[float] = []
        self._answer()

    def __call__(self) -> None:
        """One round."""
        print(file=self.process.stdin, flush=True)
        self.spent.append(float(self._answer()))

    def _answer(self) -> str:
        if not (line := self.process.stdout.readline()):
            raise SystemExit("sentence-transformers ended without an answer; see above")
        return line


def model_texts(predictor: Predictor, folder: Path, count: int) -> list[str]:
    """Texts on liver cancer that the gate passes, as long as real ones: of one or more made-up records, cut."""
    dump = folder / "texts.xml"
    write_dump(dump, range(FIRST_PMID, FIRST_PMID + 4 * count), Shape(liver=1.0))
    pool = iter(predictor.texts([entry for entry in read(dump, gate=True) if isinstance(entry, Record)]))
    wanted = np.interp(np.linspace(0, 1, count), np.linspace(0, 1, len(LENGTHS)), LENGTHS).astype(int)
    texts = []
    for length in np.random.default_rng(0).permutation(wanted):
        words, tokens = [], 0
        while tokens < length:
            more = next(pool)
            words += more.split()
            tokens += len(predictor.model.tokenizer.tokenize(more))
        texts.append(" ".join(words[: max(1, round(len(words) * length / tokens))]))
    return texts


def compare(ways: dict[str, Callable[[], object]], rounds: int, clock: Callable[[], float]) -> dict[str, list[float]]:
    """Seconds of every way, in each round."""
    spent: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            gc.collect()
            spent[name].append(seconds(way, clock))
    return spent


def ratio(spent: dict[str, list[float]], slow: str, fast: str) -> float:
    """How many times as long one way takes as another, median over the rounds."""
    return round(statistics.median(a / b for a, b in zip(spent[slow], spent[fast], strict=True)), 2)


def agreement(one: Predictor, other: Predictor, texts: Sequence[str]) -> float:
    """The share of the labels of one that another gives too, over all that either gives."""
    given = [
        one.decide(one.calibrate(one.raw_proba(texts)[0])),
        other.decide(other.calibrate(other.raw_proba(texts)[0])),
    ]
    return round(float((given[0] & given[1]).sum() / max((given[0] | given[1]).sum(), 1)), 4)


def gemm_share(predictor: Predictor, texts: Sequence[str], spent: float, clock: Callable[[], float]) -> dict:
    """Operations per second of the network under torch, over those of bare matrix products of the same shapes."""
    network = predictor.model.network
    layers = [one for name, one in network.named_modules() if isinstance(one, torch.nn.Linear) and ".layer." in name]
    lengths = np.array(
        [len(one) for one in encode(predictor.model.tokenizer, texts, predictor.model.card.max_length)[0]]
    )
    settings, rows = network.config, predictor.runner.token_budget
    per_token = 2 * sum(one.weight.numel() for one in layers)
    attention = 4 * settings.hidden_size * settings.num_hidden_layers * float((lengths.astype(float) ** 2).sum())
    inputs = {one.in_features: torch.randn(rows, one.in_features) for one in layers}

    def products() -> None:
        with torch.inference_mode():
            for one in layers:
                torch.nn.functional.linear(inputs[one.in_features], one.weight)

    products()
    peak = per_token * rows / statistics.median(seconds(products, clock) for _ in range(7))
    reached = (per_token * lengths.sum() + attention) / spent
    print(f"matrix products alone: {peak / 1e9:.0f} GFLOP/s; the network: {reached / 1e9:.0f}")
    return {"gemm_share": round(reached / peak, 3), "gemm_gflops": round(peak / 1e9, 1), "tokens": int(lengths.mean())}


def job(dump: Path, model: Path, folder: Path, threads: int) -> tuple[float, int, float]:
    """``hepatag label`` on a dump: seconds, records past the gate, peak of memory in MiB."""
    command = [sys.executable, "-c", JOB, str(model), str(dump), str(folder), str(threads)]
    run = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    first, second = run.stdout.split("\n")[:2]
    wall, cpu, passed = (float(one) for one in first.split())
    return cpu if threads == 1 else wall, int(passed), int(second) / 1024


def whole_job(folder: Path, model: Path, small: Path, peer: Peer, chosen: argparse.Namespace) -> dict:
    """One dump file by hepatag, beside what pubmed_parser and the pipeline take for it."""
    dump, count = folder / "pubmed99n0001.xml.gz", 6_000 if chosen.quick else 30_000
    write_dump(dump, range(FIRST_PMID, FIRST_PMID + count))
    own, passed, peak = job(dump, model, folder / "library", chosen.threads)
    quick = job(dump, small, folder / "small-library", chosen.threads)[0]
    found = {"job_s": round(own, 2), "job_records": count, "job_passed": passed, "peak_rss_mb": round(peak, 1)}
    found["distilled_job_s"] = round(quick, 2)
    print(f"hepatag on {count} records, {passed} past the gate: {own:.1f} s, {peak:.0f} MB; small {quick:.1f} s")
    python = parser_python(chosen.pubmed_parser_python)
    if not python:
        print("pubmed_parser is not installed: no ratio of the whole job")
        return {**found, "dump_vs_naive": None, "dump_vs_gated": None}
    size = 40 if chosen.quick else 200
    slices = {}
    for name, gate in (("naive", False), ("gated", True)):
        records = [entry for entry in read(dump, gate=gate) if isinstance(entry, Record)][:size]
        texts = [f"{one.title} {one.abstract_text()}" for one in records]
        slices[name] = seconds(lambda texts=texts: peer(texts), chosen.clock) / len(texts)
    parsing = by_pubmed_parser(dump, python)
    naive, gated = parsing + count * slices["naive"], parsing + passed * slices["gated"]
    print(
        f"pubmed_parser {parsing:.1f} s; with the pipeline on all {naive:.0f} s, on those past the gate {gated:.1f} s"
    )
    print(f"(the pipeline's part is scaled from {size} records)")
    return {
        **found,
        "dump_vs_naive": round(naive / own, 1),
        "dump_vs_gated": round(gated / own, 2),
        "distilled_dump_vs_naive": round(naive / quick, 1),
        "distilled_dump_vs_gated": round(gated / quick, 2),
    }


def optimized(name: str, place: Path, calibration: Path) -> tuple[Path, list]:
    """A copy of a model with its optimized files, and what is known of them."""
    shutil.copytree(Predictor.from_folder(name, "cpu").model.folder, place)
    made = optimize(str(place), [calibration])
    print(f"{name}:", *(summary(one) for one in made.files), *made.refused, sep="\n")
    return place, list(made.files)


def figures_of(predictor: Predictor, files: list) -> dict | None:
    """What the quantized file that a predictor runs does to the calibration set."""
    name = predictor.runner.choice.file.name if predictor.runner.choice.file else ""
    return next((one.figures.model_dump() for one in files if one.name == name and one.figures), None)


def main() -> None:
    """Print a line per measure, then one JSON document."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--quick", action="store_true", help="fewer texts and rounds, in under four minutes")
    options.add_argument("--model", default="hepatag-mini")
    options.add_argument("--small", default="hepatag-small", help="a smaller model, beside the other under torch")
    options.add_argument("--calibration", type=Path, default=ROOT / "data" / "sample" / "dev.jsonl")
    options.add_argument("--threads", type=int, default=torch.get_num_threads())
    options.add_argument("--texts", type=int, help="1,000, or 64 with --quick")
    options.add_argument("--rounds", type=int, help="5, or 3 with --quick")
    options.add_argument("--pubmed-parser-python", help="an interpreter with pubmed_parser installed")
    options.add_argument("--sentence-transformers-python", help="one with sentence-transformers[onnx]")
    chosen = options.parse_args()
    torch.set_num_threads(chosen.threads)
    chosen.clock = time.process_time if chosen.threads == 1 else time.perf_counter
    predictor = Predictor.from_folder(chosen.model, "cpu")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        model, files = optimized(chosen.model, folder / "model", chosen.calibration)
        small_model, small_files = optimized(chosen.small, folder / "small", chosen.calibration)
        fast = Predictor.from_folder(str(model), "cpu", "auto")
        small = Predictor.from_folder(str(small_model), "cpu", "torch")
        small_fast = Predictor.from_folder(str(small_model), "cpu", "auto")
        print(f"auto takes {fast.runner.choice.title}, for the small model {small_fast.runner.choice.title}")
        texts = model_texts(predictor, folder, chosen.texts or (64 if chosen.quick else 1_000))
        peer, by_length = Peer(predictor), sorted(texts, key=len)
        ways = {
            "pipeline": lambda: peer(texts),
            "pipeline sorted": lambda: peer(by_length),
            "torch": lambda: predictor.raw_proba(texts),
            "auto": lambda: fast.raw_proba(texts),
            "small": lambda: small.raw_proba(texts),
            "small auto": lambda: small_fast.raw_proba(texts),
        }
        encode = None
        if chosen.sentence_transformers_python:
            encode = ways["encode int8"] = EncodePeer(
                chosen.sentence_transformers_python, predictor.model.folder, texts, chosen.threads, folder
            )
        peer(texts[:BATCH])
        for one in (predictor, fast, small, small_fast):
            one.raw_proba(texts[:BATCH])
        spent = compare(ways, chosen.rounds or (3 if chosen.quick else 5), chosen.clock)
        if encode:
            spent["encode int8"] = encode.spent
            encode.process.communicate()
        for name, times in spent.items():
            print(f"{name:16} {len(texts) / statistics.median(times):7.1f} texts/s")
        int8 = small_fast.runner.choice.title.endswith("int8")
        found = {
            "backend": fast.runner.choice.title,
            "threads": chosen.threads,
            "texts": len(texts),
            "vs_pipeline": ratio(spent, "pipeline", "auto"),
            "vs_pipeline_sorted": ratio(spent, "pipeline sorted", "auto"),
            "torch_vs_pipeline": ratio(spent, "pipeline", "torch"),
            "torch_vs_pipeline_sorted": ratio(spent, "pipeline sorted", "torch"),
            "vs_encode_int8": ratio(spent, "encode int8", "auto") if encode else None,
            "labels_kept": agreement(predictor, fast, texts),
            "calibration": figures_of(fast, files),
            **gemm_share(predictor, texts, statistics.median(spent["torch"]), chosen.clock),
            "distilled": ratio(spent, "torch", "small"),
            "distilled_int8": ratio(spent, "torch", "small auto") if int8 else None,
            "distilled_calibration": figures_of(small_fast, small_files),
        }
        found |= whole_job(folder, model, small_model, peer, chosen)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
