"""Write docs/licences.md from what is installed: ``python docs/licences.py``.

Every dependency of hepatag, direct or not, with the licence that its own metadata names.
"""

from __future__ import annotations

import re
import sys
import tomllib
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

ROOT = Path(__file__).parents[1]
CLASSIFIERS = {
    "Apache Software License": "Apache-2.0",
    "BSD License": "BSD",
    "GNU Lesser General Public License v2 or later (LGPLv2+)": "LGPL-2.0-or-later",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
    "The Unlicense (Unlicense)": "Unlicense",
}
NAMES = {
    "Apache 2.0": "Apache-2.0", "Apache License 2.0": "Apache-2.0", "Apache License, Version 2.0": "Apache-2.0",
    "Apache": "Apache-2.0", "BSD 3-Clause": "BSD-3-Clause", "3-Clause BSD": "BSD-3-Clause", "BSD": "BSD",
    "BSD License": "BSD", "3-Clause BSD License": "BSD-3-Clause",
    "Apache 2.0 License": "Apache-2.0", "MIT License": "MIT", "PSF": "PSF-2.0",
}  # fmt: skip
READ = {"huey": "MIT", "skops": "MIT"}
"""Read in the licence files of packages whose metadata does not tell."""
# Weak copyleft (LGPL, MPL) binds the package itself, not what imports it.
_FITS = re.compile(
    r"(0BSD|AFL-2\.1|Apache-2\.0|BSD|BSD-[23]-Clause|BSL-1\.0|CNRI-Python|HPND|ISC|LGPL-[23]\.[01](-only|-or-later)|MIT|MIT-0|"
    r"MIT-CMU|MPL-2\.0|PSF-2\.0|Python-2\.0(\.1)?|Unlicense|Zlib|CC0-1\.0|OFL-1\.1|Bitstream-Vera)"
)


def compatible(licence: str) -> bool:
    """Whether a package under an SPDX expression may stand beside code under Apache-2.0."""
    every = re.split(r"\s+AND\s+", licence.replace("(", " ").replace(")", " ").strip())
    return all(
        any(_FITS.fullmatch(re.sub(r"\s+WITH\s+.*", "", choice).strip()) for choice in re.split(r"\s+OR\s+", part))
        for part in every
    )


def licence_of(found: Distribution) -> str:
    """The licence that a package's metadata names, as SPDX where it can be told."""
    about = found.metadata
    if about["Name"] in READ:
        return READ[about["Name"]]
    if expression := about.get("License-Expression"):
        return str(expression)
    kinds = [line.rpartition(" :: ")[2] for line in about.get_all("Classifier") or () if line.startswith("License ::")]
    text = (about.get("License") or "").strip()
    named = NAMES.get(text, text if re.fullmatch(r"[\w.+ -]{2,60}", text) else "")
    known = sorted({CLASSIFIERS[kind] for kind in kinds if kind in CLASSIFIERS})
    if named and compatible(named):
        return named
    return " OR ".join(known) if known else named or "; ".join(kinds) or "unknown"


def needed() -> dict[str, bool]:
    """All packages that hepatag needs with its extras, as far as they are installed; whether directly."""
    from packaging.requirements import Requirement

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = [*project["dependencies"], *(line for extra in project["optional-dependencies"].values() for line in extra)]
    waiting = [(Requirement(line), True) for line in lines]
    found: dict[str, bool] = {}
    while waiting:
        wish, direct = waiting.pop(0)
        name = re.sub(r"[-_.]+", "-", wish.name).lower()
        extras = wish.extras or {""}
        if name in found or (wish.marker and not any(wish.marker.evaluate({"extra": extra}) for extra in extras)):
            continue
        try:
            requires = distribution(wish.name).requires or ()
        except PackageNotFoundError:
            continue
        found[name] = direct
        for line in requires:
            inner = Requirement(line)
            if not inner.marker or any(inner.marker.evaluate({"extra": extra}) for extra in (*wish.extras, "")):
                waiting.append((Requirement(line.partition(";")[0]), False))
    return found


def page() -> str:
    """The page."""
    lines = [
        "# Licences",
        "",
        "<!-- Made by docs/licences.py from what is installed; do not edit. -->",
        "",
        "hepatag is under Apache-2.0. What it needs, with the licence that each package's own metadata names; tests",
        "refuse one that does not fit beside Apache-2.0. LGPL and MPL bind the packages themselves, not code that",
        "imports them.",
        "",
        "| package | version | licence | needed |",
        "|---|---|---|---|",
    ]
    for name, direct in sorted(needed().items()):
        found, how = distribution(name), "directly" if direct else "by others"
        lines.append(f"| {found.metadata['Name']} | {found.version} | {licence_of(found)} | {how} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    (Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "licences.md").write_text(page(), encoding="utf-8")
