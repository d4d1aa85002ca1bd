"""Ask for known weaknesses of the pinned packages: ``python .ci/audit.py``; part of ``make check``.

pip-audit runs in an environment of its own below build/. Where it cannot be installed, or no index gives advisories,
one sentence says so and nothing fails.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PLACE = ROOT / "build" / "audit"


def main() -> int:
    """Print what was found; 1 where a pinned package has a known weakness."""
    tool = PLACE / "bin" / "pip-audit"
    if not tool.exists():
        subprocess.run([sys.executable, "-m", "venv", PLACE], check=True)
        wish = [PLACE / "bin" / "pip", "install", "--quiet", "--retries", "0", "--timeout", "20", "pip-audit"]
        if subprocess.run(wish, capture_output=True).returncode:
            print("audit skipped: pip-audit cannot be installed from here")
            return 0
    command = [tool, "--requirement", ROOT / "constraints.txt", "--no-deps", "--disable-pip"]
    try:
        command += ["--progress-spinner", "off", "--format", "json"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        packages = json.loads(done.stdout)["dependencies"]
    except (ValueError, subprocess.TimeoutExpired):
        print("audit skipped: the index gives no answer")
        return 0
    asked = [one for one in packages if "vulns" in one]
    if not asked:
        print("audit skipped: the index gives no advisories")
        return 0
    found = [(one, weak) for one in asked for weak in one["vulns"]]
    for one, weak in found:
        fixed = ", ".join(weak["fix_versions"]) or "no version yet"
        print(f"{one['name']} {one['version']}: {weak['id']}, fixed in {fixed}")
    unknown = len(packages) - len(asked)
    print(f"audit: {len(asked)} packages asked for, {unknown} unknown to the index, {len(found)} known weaknesses")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
