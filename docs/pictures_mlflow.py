"""Take the pictures of docs/mlflow.md: MLflow's run table, page of comparison and page of a run, in a Chromium.

    python docs/pictures_mlflow.py [URI]

URI names an MLflow server (``http:``) or a store with a sweep in it. Without one, a sweep of configs/sweep.yaml on the
sample data with the tiny base is made first (some minutes), in out/pictures/mlflow; a sweep that is there goes on.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from pictures import save

DOCS = Path(__file__).parent
ROOT = DOCS.parent
sys.path.insert(0, str(ROOT))
STORE = ROOT / "out" / "pictures" / "mlflow"
SORT = "metrics.`dev/f1_macro`"
# MLflow opens its assistant on the first visit.
QUIET = "localStorage['mlflow.assistant.panelOpen_v1'] = 'false';" + (
    "localStorage['mlflow.assistant.fab.autoOpenedOnFirstLoad_v1'] = 'true'; 0"
)


def main(uri: str) -> None:
    """Sweep where there is no store yet, then take the pictures."""
    from pipeline.tracking_client import connect
    from pipeline.tracking_read import list_runs

    store = connect(uri or sweep())
    runs = [run for run in list_runs(store) if run.status == "FINISHED" and "mlflow.parentRunId" in run.tags]
    largest = Counter(run.tags["mlflow.parentRunId"] for run in runs).most_common(1)[0][0]
    parent = next(run for run in list_runs(store) if run.id == largest)
    best = sorted(
        (run for run in runs if run.tags["mlflow.parentRunId"] == largest), key=lambda run: -run.metrics["dev/f1_macro"]
    )
    experiment = store.client.get_run(parent.id).info.experiment_id
    table = f"experiments/{experiment}/runs?workflowType=machine_learning&orderByKey={quote(SORT)}&orderByAsc=false"
    chosen = json.dumps([run.id for run in best[:3]])
    shots = {
        # name: (width, height, address, what the page says once it is there, script)
        "runs": (1600, 620, table, parent.name, EXPAND),
        "compare": (1280, 900, f"compare-runs?runs={quote(chosen)}&experiments={quote(json.dumps([experiment]))}",
                    "Comparing", "0"),
        "run": (1280, 900, f"experiments/{experiment}/runs/{best[0].id}", "micro-F1", "0"),
    }  # fmt: skip
    with served(uri or store.uri) as address:
        take(address, shots)


# The children of a sweep are folded away at first.
EXPAND = """
[...document.querySelectorAll('button,label,span')].find((one) => one.innerText == 'Expand rows')?.click(); 0
"""


def take(address: str, shots: dict[str, tuple[int, int, str, str, str]]) -> None:
    """Open each page, wait for what it says, save the picture."""
    sys.path.insert(0, str(ROOT / "tests"))
    from browser import Browser

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        browser = Browser(Path(folder))
        try:
            browser.open(address, "document.readyState == 'complete'")
            browser.run(QUIET)
            for name, (width, height, page, text, script) in shots.items():
                browser.size(width, height)
                browser.open(f"{address}/#/{page}", "document.readyState == 'complete'")
                browser.wait(f"document.body.innerText.includes({json.dumps(text)})", 120)
                browser.run(script)
                browser.run("new Promise((done) => setTimeout(done, 8000))")  # figures and rows come later
                save(browser, DOCS / "pictures" / f"mlflow-{name}.png", colours=96)
        finally:
            browser.close()


def sweep() -> str:
    """The store of a sweep on the sample data; an earlier one goes on or is used as it is."""
    uri = f"sqlite:///{STORE}/mlruns/mlflow.db"
    changes = [
        "model.base_model=data/models/tiny-base", "model.max_length=96", "data.train=data/sample/train.jsonl",
        "data.dev=data/sample/dev.jsonl", "training.epochs=4", "seeds=[0, 1]", f"output={STORE}/try",
        f"tracking.uri={uri}", "tracking.experiment=sample",
    ]  # fmt: skip
    command = [sys.executable, "-m", "pipeline.cli", "sweep", "configs/sweep.yaml", "--trials", "12", *changes]
    subprocess.run(command, check=True, cwd=ROOT)
    return uri


@contextmanager
def served(uri: str) -> Iterator[str]:
    """The address of MLflow's pages on a store; a server is its own."""
    if uri.startswith("http"):
        yield uri.rstrip("/")
        return
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = subprocess.Popen([sys.executable, "-m", "pipeline.cli", "ui", "--uri", uri, "--port", str(port)], cwd=ROOT)
    address = f"http://127.0.0.1:{port}"
    try:
        while True:
            try:
                urllib.request.urlopen(f"{address}/health", timeout=5).close()
                break
            except OSError:
                time.sleep(0.5)
        yield address
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(60)


if __name__ == "__main__":
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    main(sys.argv[1] if len(sys.argv) > 1 else "")
