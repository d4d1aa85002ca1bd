"""hepatag as others get it: from the wheel and from the sdist, away from the source tree, without rights to write."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
TEXT = "TACE plus sintilimab for hepatocellular carcinoma: a retrospective study of 42 herons."

# Four commands in one process, which saves three imports of torch: codes first, then what they printed.
SEVERAL = """
import contextlib, io, os, sys
import pipeline
from pipeline.cli import main
models, text, name = sys.argv[1:]
codes, out = [], io.StringIO()
for words in (
    ["label", "--text", text],
    ["label", "--text", text, "--model", name],
    ["label", "records.csv", "--model", name, "--out", "labels"],
    ["map", "labels", "--out", "map.html"],
):
    sys.argv = ["hepatag", *words]
    try:
        with contextlib.redirect_stdout(out):
            main()
        codes.append(0)
    except SystemExit as end:
        codes.append(end.code or 0)
    os.environ["HEPATAG_MODELS"] = models
print(pipeline.__file__, *codes, sep="|")
print(out.getvalue())
"""

sys.path.append(str(ROOT / "docs"))
import licences  # noqa: E402


def build(source, out, hook):
    """Build a wheel or an sdist of a copy of the source, with the setuptools that is here."""
    command = [sys.executable, "-c", f"import sys; from setuptools import build_meta as b; b.{hook}(sys.argv[1])", out]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (built,) = out.iterdir()
    return built


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The wheel, and the wheel made from the unpacked sdist."""
    if not importlib.util.find_spec("setuptools") or int(version("setuptools").split(".")[0]) < 77:
        pytest.skip("setuptools 77 builds hepatag; pip install 'hepatag[dev]'")
    folder = tmp_path_factory.mktemp("built")
    source = folder / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "pipeline", source / "pipeline", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("sdist", "first", "second"):
        (folder / name).mkdir()
    wheel = build(source, folder / "first", "build_wheel")
    with tarfile.open(build(source, folder / "sdist", "build_sdist")) as archive:
        archive.extractall(folder / "unpacked", filter="data")
    (unpacked,) = (folder / "unpacked").iterdir()
    return {"wheel": wheel, "sdist": build(unpacked, folder / "second", "build_wheel")}


@pytest.mark.parametrize("origin", ["wheel", "sdist"])
def test_every_file_of_the_package_is_there(built, origin):
    ours = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "pipeline").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    with zipfile.ZipFile(built[origin]) as archive:
        names = set(archive.namelist())
        (about,) = [archive.read(name).decode() for name in names if name.endswith("/METADATA")]
    assert {name for name in names if name.startswith("pipeline/")} == ours
    assert any(name.endswith("/LICENSE") for name in names)
    assert "License-Expression: Apache-2.0" in about
    assert {name.split("/")[0] for name in names} == {"pipeline", f"hepatag-{PROJECT['version']}.dist-info"}


def test_it_works_away_from_the_source(built, trained, tmp_path):
    """Of the wheel that came from the sdist; the test above says that the other one holds the same."""
    site, place = tmp_path / "site", tmp_path / "elsewhere"
    place.mkdir()
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", site]
    done = subprocess.run([*install, built["sdist"]], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    environment = {name: value for name, value in os.environ.items() if name != "HEPATAG_MODELS"}
    environment |= {"PYTHONPATH": str(site), "HF_HUB_OFFLINE": "1"}

    def run(*words):
        done = subprocess.run([sys.executable, *words], cwd=place, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
        return done

    assert run(site / "bin" / "hepatag", "--version").stdout == f"hepatag {PROJECT['version']}\n"
    shutil.copy(ROOT / "data" / "sample" / "records.csv", place)
    done = run("-c", SEVERAL, str(trained.folder.parent), TEXT, trained.folder.name)
    where, *codes = done.stdout.splitlines()[0].split("|")
    assert Path(where).is_relative_to(site)
    assert codes == ["2", "0", "0", "0"], done.stderr
    assert "set HEPATAG_MODELS to the folder" in " ".join(done.stderr.split())
    assert "hcc" in done.stdout
    assert (place / "labels" / "labels.parquet").is_file()
    page = (place / "map.html").read_text(encoding="utf-8")  # needs the page's own files
    assert page.lstrip().lower().startswith("<!doctype html>")


def test_without_rights_but_for_one_folder(trained, tmp_path):
    """As in a container whose file system is read-only: only the output and the temporary folder may be written."""
    front = []
    if not os.geteuid():
        if not shutil.which("setpriv"):
            pytest.skip("root, and no setpriv: permissions do not count")
        front = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"]
    home, caches, out = tmp_path / "home", tmp_path / "tmp", tmp_path / "out"
    for folder in (home, caches, out):
        folder.mkdir()
    shutil.copytree(trained.folder, home / "models" / "model")
    shutil.copy(ROOT / "data" / "sample" / "records.csv", home)
    locked = [home, home / "models", home / "models" / "model"]
    environment = {
        **os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", "HOME": str(home),
        "XDG_CACHE_HOME": str(caches), "HF_HOME": str(caches / "hf"), "MPLCONFIGDIR": str(caches / "mpl"),
        "HEPATAG_MODELS": str(home / "models"), "TMPDIR": str(caches),
    }  # fmt: skip
    for folder in locked:
        folder.chmod(0o555)
    script = "import sys; from pipeline.cli import main; main()"
    words = ["label", "records.csv", "--model", "model", "--out", out / "labels"]
    try:
        denied = subprocess.run([*front, "touch", home / "x"], capture_output=True).returncode
        done = subprocess.run(
            [*front, sys.executable, "-c", script, *words], cwd=home, env=environment, capture_output=True, text=True
        )
    finally:
        for folder in locked:
            folder.chmod(0o755)
    assert denied
    assert done.returncode == 0, done.stderr
    assert (out / "labels" / "labels.parquet").is_file()
    assert sorted(path.name for path in home.iterdir()) == ["models", "records.csv"]


def required(extra=""):
    lines = PROJECT["optional-dependencies"][extra] if extra else PROJECT["dependencies"]
    return [re.match(r"[\w.-]+", line)[0] for line in lines]


def test_every_dependency_has_a_licence_that_fits():
    page = (ROOT / "docs" / "licences.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([\w.-]+) \| [^|]+ \| ([^|]+) \| (?:directly|by others) \|$", page, re.MULTILINE)
    listed = {name.lower(): licence for name, licence in rows}
    for name in [*required(), *required("ray"), *required("dev")]:
        assert listed.get(name.lower()), f"{name} is missing from docs/licences.md; run python docs/licences.py"
    assert not {name: licence for name, licence in listed.items() if not licences.compatible(licence)}


@pytest.mark.parametrize(
    ("licence", "fits"),
    [
        ("MIT", True), ("Apache-2.0 OR BSD-2-Clause", True), ("LGPL-2.1-or-later", True), ("MPL-2.0 AND MIT", True),
        ("GPL-3.0-only", False), ("AGPL-3.0-or-later", False), ("GPL-3.0-only OR MIT", True),
        ("MIT AND GPL-2.0-only", False), ("unknown", False), ("GNU General Public License v3 (GPLv3)", False),
    ],
)  # fmt: skip
def test_what_fits_beside_apache(licence, fits):
    assert licences.compatible(licence) is fits
