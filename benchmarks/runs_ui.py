"""How long MLflow's run table takes to show in a Chromium, for a store of many runs with many metrics.

    python benchmarks/runs_ui.py [--runs 200] [--metrics 120] [--times 3]

Makes an SQLite store with the client's `log_batch`, names as those of training, one metric with a history of 100 steps;
serves it by `hepatag ui`, and measures from the address to the first row of the table, in a browser that has loaded
MLflow's page before; on a busy machine the processor time tells more. The last line is one JSON document.
"""

import argparse
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil

from pipeline.taxonomy import load_taxonomy
from pipeline.tracking import start_run
from pipeline.tracking_client import connect

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))


def main() -> None:
    """Make the store, serve it, measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, value in (("runs", 200), ("metrics", 120), ("times", 3)):
        parser.add_argument(f"--{name}", type=int, default=value)
    wish = parser.parse_args()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        uri = f"sqlite:///{folder}/mlruns/mlflow.db"
        experiment = fill(uri, wish.runs, wish.metrics)
        print("store made", flush=True)
        seconds, work = load_times(uri, experiment, wish.times, Path(folder))
    print(
        f"{wish.runs} runs of {wish.metrics} metrics: rows after {statistics.median(seconds[1:]):.2f} s (median), "
        f"processor time of browser and server {statistics.median(work[1:]):.2f} s"
    )
    print(json.dumps({"runs": wish.runs, "metrics": wish.metrics, "seconds": seconds, "processor": work}))


def fill(uri: str, runs: int, metrics: int) -> str:
    """Make the store; returns the experiment's id."""
    from mlflow.entities import Metric, Param

    with start_run(uri, "many", "run 0"):
        pass
    client = connect(uri).client
    experiment = client.get_experiment_by_name("many").experiment_id
    labels = [name.replace(":", ".") for name in load_taxonomy().names]
    names = ["dev/f1_micro", "dev/f1_macro", *(f"dev/label/{one}/{kind}" for kind in ("f1", "precision", "recall")
             for one in labels)][:metrics]  # fmt: skip
    draw, now = np.random.default_rng(0), int(time.time() * 1000)
    for number in range(1, runs):
        run = client.create_run(experiment, run_name=f"run {number}").info.run_id
        values = [Metric(name, float(draw.random()), now, 0) for name in names]
        values += [Metric("train/loss", 15 / (1 + step), now, step) for step in range(100)]
        client.log_batch(run, metrics=values, params=[Param("training.learning_rate", f"{draw.random() / 1e3:.3g}")])
        client.set_terminated(run)
    return experiment


def load_times(uri: str, experiment: str, times: int, folder: Path) -> tuple[list[float], list[float]]:
    """Seconds from the address to the rows, and processor time meanwhile; the first is with an empty cache."""
    from browser import Browser

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "pipeline.cli", "ui", "--uri", uri, "--port", str(port)]
    with (folder / "server.log").open("wb") as log:
        server = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
    browser = Browser(folder)
    try:
        wait_for(f"http://127.0.0.1:{port}/health")
        address = f"http://127.0.0.1:{port}/#/experiments/{experiment}/runs?workflowType=machine_learning"
        browser.size(1440, 900)
        seconds, work = [], []
        for _ in range(times + 1):
            started, before = time.monotonic(), processor_time(server.pid, browser.process.pid)
            browser.call("Page.navigate", url="about:blank")
            browser.call("Page.navigate", url=address)
            browser.wait("[...document.querySelectorAll('a')].some((one) => one.innerText.startsWith('run '))", 300)
            seconds.append(round(time.monotonic() - started, 2))
            work.append(round(processor_time(server.pid, browser.process.pid) - before, 2))
        return seconds, work
    finally:
        browser.close()
        server.send_signal(signal.SIGINT)
        server.wait(60)


def processor_time(*pids: int) -> float:
    """Seconds of processor time of processes and all below them."""
    total = 0.0
    for pid in pids:
        for one in (psutil.Process(pid), *psutil.Process(pid).children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                total += sum(one.cpu_times()[:2])
    return total


def wait_for(address: str) -> None:
    """Wait until a server answers."""
    end = time.monotonic() + 300
    while True:
        try:
            urllib.request.urlopen(address, timeout=5).close()
            return
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.5)


if __name__ == "__main__":
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    main()
