"""One process of the bad-input campaign: mutated inputs through everything that reads, and what may not happen.

`python tests/abuse/campaign.py FIRST COUNT FOLDER` tries the inputs of COUNT seeds from FIRST on and prints one JSON
document: how many of each kind, how they ended, the peak of memory. An input that breaks something stays in FOLDER.
A case of more than 10 s of processor time ends the process, with the place where it hung on stderr.
"""

from __future__ import annotations

import faulthandler
import json
import random
import re
import signal
import sys
from collections import Counter
from pathlib import Path

from lxml import etree
from mutator import KINDS, RECORDS, ROOT, mutated

sys.path.insert(0, str(ROOT))

from pipeline.citation import entries_of
from pipeline.config import PretrainConfig, TrainConfig, load_config
from pipeline.corpus import read_examples
from pipeline.corrections import read_corrections
from pipeline.errors import HepatagError, InputError
from pipeline.gate import could_matter, could_matter_bytes, screen
from pipeline.model_folder import read_card
from pipeline.pubmed import read_pubmed
from pipeline.readers import read
from pipeline.records import Deletion, Record, Reject, Skipped
from pipeline.splitting import TAGS
from pipeline.taxonomy import load_taxonomy

SECONDS = 10
GATED = {"screen": screen, "gate": could_matter_bytes, "text_gate": could_matter}


def entries(path, gate):
    """The entries up to the end or to the error, and that error's sentence."""
    found = []
    try:
        for entry in read(path, gate=gate):
            found.append(entry)
    except InputError as error:
        return found, str(error)
    return found, ""


def check_records(path, kind):
    """Every entry is counted once, with the gate or without, and can be kept."""
    every, error = entries(path, gate=False)
    gated, same = entries(path, gate=True)
    assert error == same, (error, same)
    assert len(every) == len(gated), (len(every), len(gated))
    for one, other in zip(every, gated, strict=True):
        assert isinstance(one, Record | Deletion | Reject)
        if isinstance(one, Record):
            matters = could_matter(f"{one.title}\n{one.abstract_text()}")
            assert isinstance(other, Record) == matters, (one.id, matters, other)
            assert other == one if matters else isinstance(other, Skipped) and other.pmid == one.pmid
            assert 0 < one.version < 2**31 and (one.pmid is None or 0 < one.pmid < 2**63) and one.id
            json.dumps([one.id, one.title, one.doi, one.journal, *one.publication_types], ensure_ascii=False).encode()
        elif isinstance(one, Reject):
            assert "\n" not in one.reason and one.reason, one
    if kind == "sound":
        check_sound(path, every)
    return "read" if not error else "refused"


def check_sound(path, found):
    """What a parse of the whole document finds, the splitter finds, however the blocks fall."""
    # The reader takes an entity that nothing declares for a node, as a DOCTYPE line makes a parser do.
    head = rb"^(<\?xml.*?\?>\s*|<!-- made up --><!DOCTYPE PubmedArticleSet>)?"
    data = re.sub(head, b'<!DOCTYPE PubmedArticleSet SYSTEM "x">', path.read_bytes(), count=1)
    try:
        root = etree.fromstring(data, etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False))
    except etree.XMLSyntaxError:  # a change within what an earlier one put there
        return
    records = [one for one in root.iter(*TAGS) if not any(above.tag in TAGS for above in one.iterancestors())]
    want = [entry for place, one in enumerate(records, 1) for entry in entries_of(one, path.name, f"record {place}")]
    assert found == want, next((pair for pair in zip(found, want, strict=False) if pair[0] != pair[1]), len(want))
    for size in (17, 64, 1000):
        assert list(read_pubmed(path, block_bytes=size)) == want, size


def check(path, kind):
    """How a case ended: read, or refused in one sentence."""
    try:
        if kind in RECORDS:
            return check_records(path, kind)
        if kind == "labels":
            read_examples([path])
        elif kind == "corrections":
            for one in read_corrections(path)[0]:
                one.checked(load_taxonomy())
        elif kind == "card":
            read_card(path.parent)
        else:
            load_config(PretrainConfig if b"corpus:" in path.read_bytes() else TrainConfig, path)
    except HepatagError as error:
        sentence = str(error)
        assert sentence and "\n" not in sentence.strip() and len(sentence) < 2_000, sentence
        return "refused"
    return "read"


def main(first, count, folder):
    """Try the inputs of some seeds."""
    model = ROOT / "data" / "models" / "hepatag-mini"
    for name in ("config.json", "model.safetensors", "tokenizer.json"):  # beside the cards
        (folder / name).write_bytes((model / name).read_bytes())
    faulthandler.register(signal.SIGPROF, chain=True)
    ended, broken = Counter(), []
    for seed in range(first, first + count):
        draw = random.Random(seed)
        kind = KINDS[seed % len(KINDS)]
        name, data = mutated(kind, draw)
        path = folder / name
        path.write_bytes(data)
        (folder / "case").write_text(f"{seed} {kind} {name}")
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        try:
            ended[f"{kind} {check(path, kind)}"] += 1
        except Exception as error:
            broken.append(f"seed {seed} ({kind}): {type(error).__name__}: {str(error)[:300]}")
            path.rename(folder / f"broken-{seed}-{name}")
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
        path.unlink(missing_ok=True)
    # Not ru_maxrss: a process inherits that of the one that started it.
    status = Path("/proc/self/status").read_text(encoding="ascii")
    peak = next(int(line.split()[1]) >> 10 for line in status.splitlines() if line.startswith("VmHWM"))
    sys.stdout.write(json.dumps({"tried": count, "ended": ended, "broken": broken, "peak_mb": peak}))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
