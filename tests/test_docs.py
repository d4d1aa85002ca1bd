"""The documents: their commands run, their links lead somewhere, and generated pages are those of this code."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipeline.cli import app

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"(?P<marker><!-- not run: [^>]+ -->\s*)?^```bash\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)


def commands(text):
    """The command lines of a document's bash blocks, but for those that say why they do not run."""
    for block in BLOCK.finditer(text):
        if not block["marker"]:
            code = block["code"].replace("\\\n", " ")
            lines = [shlex.split(line, comments=True) for line in code.splitlines()]
            yield from (line for line in lines if line)


RUN = {page.name: found for page in PAGES if (found := list(commands(page.read_text(encoding="utf-8"))))}


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A folder with the data of a checkout, where commands may write."""
    shutil.copytree(ROOT / "data" / "sample", tmp_path / "data" / "sample")
    (tmp_path / "data" / "models").symlink_to(ROOT / "data" / "models")
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_blocks_are_found_and_skipped_by_their_marker():
    text = "```bash\nhepatag a \\\n  b  # why\n\n```\n<!-- not run: needs a network -->\n```bash\nhepatag c\n```\n"
    assert list(commands(text)) == [["hepatag", "a", "b"]]
    assert "reading.md" in RUN


@pytest.mark.parametrize("name", RUN)
def test_the_commands_of_a_page_run(name, checkout):
    for words in RUN[name]:
        line = shlex.join(words)
        assert words[0] == "hepatag", (
            f"{name}: {line}: only hepatag runs here; mark the block as not run, with a reason"
        )
        target = None
        if ">" in words:
            words, target = words[: words.index(">")], words[-1]
        done = CliRunner().invoke(app, words[1:], catch_exceptions=False)
        assert done.exit_code == 0, f"{name}: {line}: {done.stderr}"
        if target:
            (checkout / target).write_text(done.stdout, encoding="utf-8")
        for option in ("--out", "-o"):
            if option in words:
                target = words[words.index(option) + 1]
        assert target or done.stdout or done.stderr, f"{name}: {line}: says nothing"
        if target:
            assert (checkout / target).exists(), f"{name}: {line}: writes nothing"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    for link in re.findall(r"(?<!\\)\]\(([^)\s]+)\)", re.sub(r"^```.*?^```$|`[^`\n]*`", "", text, flags=re.M | re.S)):
        if "://" not in link:
            target, _, anchor = link.partition("#")
            file = page.parent / target if target else page
            assert file.exists(), f"{page.name}: {link}"
            if anchor:
                headings = re.findall(r"^#+ (.+)$", file.read_text(encoding="utf-8"), re.MULTILINE)
                names = [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings]
                assert anchor in names, f"{page.name}: {link}"


def test_generated_pages_are_those_of_this_code(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "40"}  # the pages must not care how wide it is
    subprocess.run([sys.executable, ROOT / "docs" / "generate.py", tmp_path], check=True, env=environment)
    made = sorted(path.name for path in tmp_path.iterdir())
    assert made == ["cli.md", "config.md"]
    for name in made:
        fresh, kept = ((folder / name).read_text(encoding="utf-8") for folder in (tmp_path, ROOT / "docs"))
        assert kept == fresh, f"docs/{name} is stale; run python docs/generate.py"
