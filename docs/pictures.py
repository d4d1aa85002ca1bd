"""Draw the pictures of docs/reading.md from the sample data, which are our own sentences.

    python docs/pictures.py

Labels the sample with hepatag-mini (some minutes, for the reasons), draws the evidence map of it and takes pictures in
a Chromium. An earlier library of the sample is used again: LIBRARY.
"""

import subprocess
import sys
import tempfile
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

DOCS = Path(__file__).parent
ROOT = DOCS.parent
LIBRARY = ROOT / "out" / "pictures"
SAMPLE = [ROOT / "data" / "sample" / name for name in ("train.jsonl", "dev.jsonl", "pubmed99n0001.xml")]
LIMIT = 200_000
"""Bytes that a picture may have."""
SHOTS = {
    # name: (width, height, dark, address, script that prepares the page)
    "map": (1440, 1000, False, "", ""),
    "map-dark": (1280, 1000, True, "by=cancer", ""),
    "map-papers": (
        1280, 800, False, "cell=tare.anti_pd1&sort=-chance",
        "document.querySelectorAll('#list .opener')[0].click(); document.getElementById('papers').scrollIntoView()",
    ),
    "map-phone": (
        360, 900, False, "cancer_type=hcc&by=year",
        "document.querySelector('main').scrollIntoView()",
    ),
}  # fmt: skip


def main() -> None:
    """Label, draw, take the pictures."""
    sys.path.insert(0, str(ROOT / "tests"))
    from browser import Browser

    command = [sys.executable, "-m", "pipeline.cli"]
    subprocess.run([*command, "label", *map(str, SAMPLE), "--out", str(LIBRARY), "--reasons"], check=True, cwd=ROOT)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        page = Path(folder) / "map.html"
        subprocess.run([*command, "map", str(LIBRARY), "--out", str(page)], check=True, cwd=ROOT)
        browser = Browser(Path(folder))
        try:
            for name, (width, height, dark, address, script) in SHOTS.items():
                browser.size(width, height, dark=dark)
                browser.open(f"{page.as_uri()}#{address}", "document.documentElement.dataset.ready == 'yes'")
                # A picture of the page, not of its way there.
                browser.run(f"document.documentElement.style.scrollBehavior = 'auto'; {script}; 0")
                browser.run("new Promise((done) => setTimeout(done, 300))")
                save(browser, DOCS / "pictures" / f"{name}.png", colours=128)
        finally:
            browser.close()


def save(browser: Any, path: Path, *, colours: int) -> None:
    """Write what a browser shows; a page has few colours, and a palette makes the file a third as large."""
    Image.open(BytesIO(browser.picture())).convert("RGB").quantize(colours).save(path, optimize=True)
    if path.stat().st_size > LIMIT:
        raise SystemExit(f"{path}: {path.stat().st_size:,} bytes, more than {LIMIT:,}; make it smaller.")
    print(f"{path.name}: {path.stat().st_size:,} bytes")  # noqa: T201


if __name__ == "__main__":
    main()
