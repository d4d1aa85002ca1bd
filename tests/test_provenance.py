"""The commit of the running code, asked of real git repositories."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "pipeline"
pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


def git(folder, *arguments):
    identity = ["-c", "user.name=Test", "-c", "user.email=test@example.org", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", "-C", folder, *identity, *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def state_seen_in(folder):
    script = "from pipeline.provenance import git_state; s = git_state(); print((s.commit, s.dirty) if s else None)"
    env = os.environ | {"PYTHONPATH": str(folder)}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=folder, env=env, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


@pytest.fixture
def checkout(tmp_path):
    (tmp_path / "pipeline").mkdir()
    (tmp_path / "pipeline" / "__init__.py").touch()
    shutil.copy(PACKAGE / "provenance.py", tmp_path / "pipeline")
    git(tmp_path, "init", "--quiet")
    return tmp_path


def test_commit_and_changes_of_a_checkout(checkout):
    assert state_seen_in(checkout) == "None"  # nothing is tracked yet
    git(checkout, "add", "pipeline")
    git(checkout, "commit", "--quiet", "-m", "first")
    commit = git(checkout, "rev-parse", "HEAD")
    (checkout / "untracked.txt").touch()
    assert state_seen_in(checkout) == f"('{commit}', False)"
    with (checkout / "pipeline" / "__init__.py").open("a") as file:
        file.write("changed = True\n")
    assert state_seen_in(checkout) == f"('{commit}', True)"


def test_a_package_installed_within_another_repository_has_no_commit(checkout):
    (checkout / "notes.txt").touch()
    git(checkout, "add", "notes.txt")
    git(checkout, "commit", "--quiet", "-m", "another project")
    assert state_seen_in(checkout) == "None"
