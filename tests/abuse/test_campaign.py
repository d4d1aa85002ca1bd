"""The bad-input campaign: no traceback, no hang, no memory beyond bounds, every entry counted.

`make abuse` tries HEPATAG_ABUSE inputs (20,000 by default); without that variable some hundred are tried.
"""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.errors import InputError
from pipeline.records import Deletion, Record, Reject, Skipped

sys.path.insert(0, str(Path(__file__).parent))

from mutator import KINDS, RECORDS, mutated

HERE = Path(__file__).parent
INPUTS = int(os.environ.get("HEPATAG_ABUSE", "0"))
SHARE = 2_000
"""Inputs of one process."""


@pytest.mark.parametrize("first", range(0, max(INPUTS, 1), SHARE))
def test_mutated_inputs(tmp_path, first):
    count = min(SHARE, INPUTS - first) if INPUTS else 30 * len(KINDS)
    done = subprocess.run(
        [sys.executable, HERE / "campaign.py", str(first), str(count), tmp_path], capture_output=True, text=True
    )
    case = (tmp_path / "case").read_text() if (tmp_path / "case").exists() else "none"
    assert done.returncode == 0, f"case {case}: {done.stderr[-3000:]}"
    found = json.loads(done.stdout)
    assert found["broken"] == []
    assert found["tried"] == sum(found["ended"].values()) == count
    assert found["peak_mb"] < 1_000


@pytest.fixture(scope="module")
def predictor():
    from pipeline.predict import Predictor

    return Predictor.from_folder(str(HERE.parents[1] / "data" / "models" / "hepatag-mini"), "cpu")


@pytest.mark.parametrize("seed", range(0, INPUTS or 40, 40))
def test_what_goes_in_comes_out(predictor, tmp_path, seed):
    """Entries in = labelled + out of scope + rejected + deletions, in the counts of a run and on disk."""
    import pyarrow.parquet as pq

    from pipeline.label import label
    from pipeline.readers import read

    draw = random.Random(seed)
    folder = tmp_path / "in"
    folder.mkdir()
    paths = []
    for number, kind in enumerate(draw.choices(RECORDS, k=6)):
        name, data = mutated(kind, draw)
        paths.append(folder / f"{number}-{name}")
        paths[-1].write_bytes(data)
    (folder / "sure.jsonl").write_text('{"title": "Chemoembolization of hepatocellular carcinoma", "pmid": 5}\n')
    done = label([*paths, folder / "sure.jsonl"], predictor, tmp_path / "out")
    for one in done.files:
        if one.error:
            with pytest.raises(InputError):
                list(read(Path(one.source)))
            continue
        entries = list(read(Path(one.source), gate=True))
        kinds = [sum(isinstance(entry, kind) for entry in entries) for kind in (Record, Skipped, Reject, Deletion)]
        counts = one.counts
        assert counts.records + counts.rejected + counts.deleted == sum(kinds) == len(entries)
        assert counts.records == counts.citations + counts.gated == kinds[0] + kinds[1]
        assert (counts.rejected, counts.deleted) == tuple(kinds[2:])
    assert pq.read_table(done.table).num_rows == done.in_scope + done.out_of_scope
