"""Reading, gating, updating and viewing PubMed dumps beside their peers: one run, ratios, one JSON document last.

    python benchmarks/reading.py [--quick] [--model hepatag-mini] [--pubmed-parser-python PYTHON]

Peers run in turn with hepatag, round after round; a ratio is the median over the rounds. On one core the time is that
of the processor, so that neighbours on the machine do not count; elsewhere it is that of the clock. pubmed_parser is
imported where it is installed, else run by the interpreter given (or in HEPATAG_PUBMED_PARSER_PYTHON); with
--quick both read a dump of fewer records. lxml's iterparse gets the same decompressed stream as
hepatag. Run it where hepatag is installed.
"""

import argparse
import gzip
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from dumps import FIRST_PMID, Shape, Update, write_dump, write_update
from lxml import etree

from pipeline.pubmed import open_input
from pipeline.readers import read
from pipeline.shards import CITATIONS, OTHERS, Counts, LedgerEntry, Library, write_table
from pipeline.taxonomy import load_taxonomy

PUBMED_PARSER = """
import sys, time
import pubmed_parser
started = time.process_time()
count = sum(1 for _ in pubmed_parser.parse_medline_xml(sys.argv[1]))
print(count, time.process_time() - started)
"""
PEAK = """
import sys
from pathlib import Path
from pipeline.readers import read
print(sum(1 for _ in read(Path(sys.argv[1]), gate=True)))
print(*(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


def seconds(work: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> float:
    """Time that ``work()`` takes by a clock: `time.process_time` leaves out what other processes take."""
    started = clock()
    work()
    return clock() - started


def ours(path: Path) -> int:
    """Read and gate a file with hepatag."""
    return sum(1 for _ in read(path, gate=True))


def by_iterparse(path: Path) -> int:
    """PMID, title and abstract of every record by lxml alone, elements cleared."""
    count = 0
    with open_input(path) as stream:
        for _, element in etree.iterparse(stream, tag="PubmedArticle"):
            citation = element.find("MedlineCitation")
            citation.findtext("PMID")
            "".join(citation.find("Article/ArticleTitle").itertext())
            for part in citation.iterfind("Article/Abstract/AbstractText"):
                "".join(part.itertext())
            element.clear()
            while element.getprevious() is not None:
                del element.getparent()[0]
            count += 1
    return count


def by_pubmed_parser(path: Path, python: str) -> float:
    """Seconds that pubmed_parser needs for a file, its import left out."""
    run = subprocess.run([python, "-c", PUBMED_PARSER, str(path)], capture_output=True, text=True, check=True)
    return float(run.stdout.split()[1])


def compare_readers(folder: Path, records: int, slice_records: int, rounds: int, python: str | None) -> dict:
    """Ratios of hepatag's reader to both peers."""
    dump, part = folder / "pubmed99n0001.xml.gz", folder / "slice.xml.gz"
    size = write_dump(dump, range(FIRST_PMID, FIRST_PMID + records))
    part_size = write_dump(part, range(FIRST_PMID, FIRST_PMID + slice_records))
    print(f"dump: {records} records, {size / 1e6:.0f} MB of XML, {dump.stat().st_size / 1e6:.1f} MB gz")
    print(f"slice for pubmed_parser: {slice_records} records, {part_size / 1e6:.0f} MB of XML")
    ours(part)  # imports
    lxml, parser, rates = [], [], []
    for _ in range(rounds):
        own = seconds(lambda: ours(dump), time.process_time)
        rates.append(size / own / 1e6)
        lxml.append(seconds(lambda: by_iterparse(dump), time.process_time) / own)
        if python:
            parser.append(by_pubmed_parser(part, python) / seconds(lambda: ours(part), time.process_time))
    print(f"hepatag, read and gate: {statistics.median(rates):.0f} MB/s of XML on one core")
    print(f"lxml iterparse takes {statistics.median(lxml):.2f} × as long   {[round(one, 2) for one in lxml]}")
    found = {"read_gate_vs_lxml": round(statistics.median(lxml), 2), "read_gate_vs_pubmed_parser": None}
    if parser:
        found["read_gate_vs_pubmed_parser"] = round(statistics.median(parser), 1)
        takes = found["read_gate_vs_pubmed_parser"]
        print(f"pubmed_parser takes {takes} × as long   {[round(one, 1) for one in parser]}")
    else:
        print("pubmed_parser is not installed: no ratio")
    return {**found, "read_gate_mb_per_s": round(statistics.median(rates), 1)}


def staged(task) -> None:
    """Read an input into shards, as ``hepatag label`` does in each of its readers."""
    from pipeline.ingest import ingest

    ingest(task)


def two_cores(folder: Path, files: int, records: int, rounds: int) -> float:
    """How many times as fast two processes read several files into shards as one does."""
    from pipeline.ingest import ReadTask

    library, tasks = Library.open(folder / "cores", create=True), []
    for number in range(files):
        path = folder / f"core{number}.xml.gz"
        write_dump(path, range(FIRST_PMID + number * records, FIRST_PMID + (number + 1) * records))
        tasks.append(ReadTask(path, library.folder, hints=True))
    context = multiprocessing.get_context("spawn")
    ratios = []
    with ProcessPoolExecutor(1, context) as one, ProcessPoolExecutor(2, context) as two:
        for pool in (one, two):  # processes started, modules imported
            list(pool.map(staged, tasks[:2] * 2))
        for _ in range(rounds):
            alone = seconds(lambda: list(one.map(staged, tasks)))
            ratios.append(alone / seconds(lambda: list(two.map(staged, tasks))))
    print(f"two processes on {files} files: {statistics.median(ratios):.2f} × one   (cores here: {os.cpu_count()})")
    return round(statistics.median(ratios), 2)


def peak_memory(folder: Path) -> dict:
    """Peak resident memory, in MB, of a process that reads and gates the dump, and one three times its size."""
    dump, large = folder / "pubmed99n0001.xml.gz", folder / "large.xml.gz"
    with gzip.open(dump, "rb") as stream:
        data = stream.read()
    start, end = data.index(b"<PubmedArticle>"), data.index(b"</PubmedArticleSet>")
    body = gzip.compress(data[start:end], 6)
    # A gz file may consist of many, and memory does not care whether records differ.
    large.write_bytes(gzip.compress(data[:start]) + body * 3 + gzip.compress(data[end:]))
    del data, body
    peaks = []
    for path in (dump, large):
        command = [sys.executable, "-c", PEAK, str(path)]
        run = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1])
        peaks.append(round(int(run.stdout.split()[1]) / 1024, 1))
    large.unlink()
    print(f"peak memory: {peaks[0]} MB for the dump, {peaks[1]} MB for three times its size")
    return {"peak_rss_mb": peaks[1], "peak_rss_mb_1x": peaks[0]}


class Timed:
    """A predictor that keeps the time its model takes."""

    def __init__(self, predictor) -> None:
        self.predictor, self.spent, self.texts = predictor, 0.0, 0

    def __getattr__(self, name: str):
        return getattr(self.predictor, name)

    def raw_proba(self, texts, on_batch=None):
        """Probabilities, with the time taken down."""
        started = time.perf_counter()
        result = self.predictor.raw_proba(texts, on_batch)
        self.spent, self.texts = self.spent + time.perf_counter() - started, self.texts + len(texts)
        return result


def second_run(folder: Path, predictor, files: int) -> dict:
    """Seconds of a run over many small files, and of the next, which finds nothing new."""
    from pipeline.label import label

    source = folder / "many"
    source.mkdir()
    for number in range(files):
        pmids = range(FIRST_PMID + number * 4, FIRST_PMID + number * 4 + 4)
        write_dump(source / f"pubmed99n{number + 1:04}.xml.gz", pmids, Shape(liver=0.1))
    first = seconds(lambda: label([source], predictor, folder / "library"))
    again = statistics.median(seconds(lambda: label([source], predictor, folder / "library")) for _ in range(3))
    allowed = 1 + 0.005 * files
    print(f"second run over {files} files: {again:.2f} s (first {first:.1f} s; target {allowed:.1f} s)")
    return {"rerun_s": round(again, 3), "rerun_allowed_s": allowed, "first_run_s": round(first, 2)}


def unchanged(folder: Path, predictor, texts: int, rounds: int) -> float:
    """Model time for an update of which nine tenths are unchanged texts, over that for as many new texts."""
    from pipeline.label import label

    shape, shares = Shape(liver=1.0), []
    for number in range(rounds):
        place = folder / f"update{number}"
        place.mkdir()
        first = FIRST_PMID + number * 10 * texts
        old, new = range(first, first + texts), range(first + texts, first + 2 * texts)
        write_dump(place / "pubmed99n0001.xml.gz", old, shape)
        write_update(
            place / "pubmed99n0002.xml.gz", Update(touched=old[texts // 10 :], rewritten=old[: texts // 10]), shape
        )
        write_update(place / "pubmed99n0003.xml.gz", Update(new=new), shape)
        spent = []
        for file in sorted(place.glob("*.gz")):
            timed = Timed(predictor)
            label([file], timed, place / "library")
            spent.append(timed.spent)
        shares.append(spent[1] / spent[2])
    print(f"an update with 90 % unchanged texts takes {statistics.median(shares):.1%} of the model's time for new ones")
    return round(statistics.median(shares), 4)


def synthetic_library(folder: Path, citations: int, fingerprint: str, per_file: int = 25_000) -> Library:
    """A library of ``citations`` current records, and a tenth of them in older versions too, written as shards."""
    random = np.random.default_rng(1)
    library, names = Library.open(folder, create=True), load_taxonomy().names
    vocabulary = np.array([f"word{number}" for number in range(20_000)])
    abstracts = [" ".join(vocabulary[random.integers(0, len(vocabulary), 160)]) for _ in range(500)]
    firsts = [*range(0, citations, per_file), -1]
    for number, first in enumerate(firsts, 1):
        numbers = np.arange(first, min(first + per_file, citations)) if first >= 0 else np.arange(0, citations, 10)
        size = len(numbers)
        hashes = [f"{one:020x}{number:012x}" for one in numbers]
        columns = {
            "id": [str(30_000_000 + one) for one in numbers], "pmid": 30_000_000 + numbers,
            "version": np.ones(size), "position": np.arange(size),
            "title": [f"Title {one} of a made-up record on the liver" for one in numbers],
            "abstract": [f"{one} {abstracts[one % len(abstracts)]}" for one in numbers], "language": ["eng"] * size,
            "year": random.integers(1980, 2026, size), "journal": [f"Journal {one % 900}" for one in numbers],
            "doi": [f"10.99999/made.{one}" for one in numbers], "publication_types": [["Journal Article"]] * size,
            "flags": [["no_abstract"] if one % 9 == 0 else [] for one in numbers], "text_hash": hashes,
        }  # fmt: skip
        name = f"pubmed99n{number:04}"
        arrays = [pa.array(columns[field.name]).cast(field.type) for field in CITATIONS]
        write_table(pa.table(arrays, schema=CITATIONS), library.citations_path(name))
        gone = {"id": ["7"], "pmid": [7], "version": [1], "position": [size], "kind": ["gated"]}
        write_table(pa.table(gone, schema=OTHERS), folder / "others" / f"{name}.parquet")
        raw = random.random((size, len(names)), dtype=np.float32) ** 8
        library.write_predictions(name, fingerprint, hashes, raw, random.random(size) < 0.02)
        library.write_ledger(
            LedgerEntry(
                name=name, source=f"{name}.xml.gz", md5="", order=(99, number), gate="", text_version="",
                counts=Counts(records=size, citations=size), seconds=0.0, finished="2026-01-01T00:00:00+00:00",
                models=(fingerprint,),
            )
        )  # fmt: skip
    return library


def view(folder: Path, predictor, citations: int) -> dict:
    """Seconds to make the view of current labels, and to write it too."""
    from pipeline.view import Decisions, current_labels

    library = synthetic_library(folder / "large", citations, predictor.fingerprint)
    decisions = Decisions(predictor.name, predictor.fingerprint, predictor.calibrate, predictor.decide)
    table, _ = current_labels(library, decisions)
    assert table.num_rows == citations
    made = statistics.median(seconds(lambda: current_labels(library, decisions)) for _ in range(3))
    written = seconds(lambda: pq.write_table(table, folder / "labels.parquet", compression="zstd"))
    print(f"view of {citations} citations: {made:.2f} s, and {written:.2f} s to write it as Parquet")
    return {"view_s": round(made, 2), "view_write_s": round(written, 2), "view_citations": citations}


def parser_python(given: str | None) -> str | None:
    """An interpreter that has pubmed_parser; None where there is none."""
    for python in (given, os.environ.get("HEPATAG_PUBMED_PARSER_PYTHON"), sys.executable):
        if python and not subprocess.run([python, "-c", "import pubmed_parser"], capture_output=True).returncode:
            return python
    return None


def main() -> None:
    """Print a line per measure, then one JSON document."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--quick", action="store_true", help="smaller dumps, in under two minutes")
    options.add_argument("--model", default="hepatag-mini")
    options.add_argument("--pubmed-parser-python", help="an interpreter with pubmed_parser installed")
    options.add_argument("--only", nargs="*", choices=["readers", "cores", "memory", "rerun", "unchanged", "view"])
    chosen = options.parse_args()
    wanted = set(chosen.only or ["readers", "cores", "memory", "rerun", "unchanged", "view"])
    quick = chosen.quick
    found: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        if wanted & {"readers", "memory"}:
            records, part = (8_000, 8_000) if quick else (30_000, 30_000)
            python = parser_python(chosen.pubmed_parser_python)
            found |= compare_readers(folder, records, part, 3 if quick else 7, python)
        if "cores" in wanted:
            found["two_cores"] = two_cores(folder, 4, 2_000 if quick else 7_500, 3 if quick else 5)
        if "memory" in wanted:
            found |= peak_memory(folder)
        if wanted & {"rerun", "unchanged", "view"}:
            from pipeline.predict import Predictor

            predictor = Predictor.from_folder(chosen.model, "cpu")
            if "rerun" in wanted:
                found |= second_run(folder, predictor, 200)
            if "unchanged" in wanted:
                found["unchanged_model_share"] = unchanged(folder, predictor, 200 if quick else 300, 1 if quick else 3)
            if "view" in wanted:
                found |= view(folder, predictor, 500_000)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
