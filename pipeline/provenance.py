"""Which code is running: the commit of the checkout that this package lies in, and the versions of packages."""

from __future__ import annotations

import platform
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


@dataclass(frozen=True)
class GitState:
    """The commit of the running code; ``dirty`` when a tracked file differs from it."""

    commit: str
    dirty: bool


def git_state() -> GitState | None:
    """The commit of the running code; None outside a checkout, before the first commit or without git."""
    # Only a checkout of hepatag counts: an installed package may lie within the repository of another project.
    if _git("ls-files", "--error-unmatch", Path(__file__).name) is None:
        return None
    commit = _git("rev-parse", "HEAD")
    return GitState(commit, bool(_git("status", "--porcelain", "--untracked-files=no"))) if commit else None


def _git(*arguments: str) -> str | None:
    command = ["git", "-C", str(Path(__file__).resolve().parent), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def package_versions() -> dict[str, str]:
    """Versions of Python and of the packages that shape a model; those not installed are left out."""
    found = {"python": platform.python_version()}
    for name in ("torch", "transformers", "tokenizers", "accelerate", "numpy", "scikit-learn"):
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found
