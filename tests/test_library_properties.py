"""A library after any sequence of files, revisions, deletions and models against a simple model in a dict."""

import gzip
import hashlib
import os
from collections import defaultdict
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import OutputError
from pipeline.label import label
from pipeline.predict import Predictor
from pipeline.records import Record, Section
from pipeline.taxonomy import load_taxonomy

TAXONOMY = load_taxonomy()
EXAMPLES = 25 * int(os.environ.get("HEPATAG_STRESS", "1"))
OFF_TOPIC = 3
"""The subject that the gate lets go by."""


class HashLabeller(Predictor):
    """A labeller whose probabilities derive from the text and its own fingerprint, without a network."""

    def raw_proba(self, texts, on_batch=None):
        """Probabilities (texts, labels) and whether a text was cut (never)."""
        raw = np.zeros((len(texts), len(TAXONOMY.names)), dtype=np.float32)
        for row, text in enumerate(texts):
            digest = hashlib.shake_128(f"{self.fingerprint}{text}".encode()).digest(raw.shape[1])
            raw[row] = (np.frombuffer(digest, dtype=np.uint8) + 0.5) / 256
            if on_batch:
                on_batch(1)
        return raw, np.zeros(len(texts), dtype=bool)


@pytest.fixture(scope="module")
def models(predictor):
    """Two labellers that differ in their fingerprints."""
    return [HashLabeller(replace(predictor.model, fingerprint=one * 12), predictor.device) for one in ("a", "b")]


@dataclass(frozen=True)
class Citation:
    """A record of a file: its subject stands for its text."""

    pmid: int
    version: int
    subject: int

    @property
    def title(self):
        """What it says."""
        return f"On {'herons' if self.subject == OFF_TOPIC else 'hepatocellular carcinoma'}, case {self.subject}"

    def xml(self):
        """As in a PubMed file."""
        return (
            f'<PubmedArticle><MedlineCitation><PMID Version="{self.version}">{self.pmid}</PMID><Article>'
            f"<ArticleTitle>{self.title}</ArticleTitle><Abstract><AbstractText>We saw it.</AbstractText></Abstract>"
            "<Language>eng</Language></Article></MedlineCitation></PubmedArticle>"
        )


@dataclass(frozen=True)
class Withdrawn:
    """A deletion in a file."""

    pmid: int

    def xml(self):
        """As in a PubMed file."""
        return f'<DeleteCitation><PMID Version="1">{self.pmid}</PMID></DeleteCitation>'


def write(folder, number, entries):
    """A PubMed file of these entries, in a folder of its own kind."""
    path = folder / f"pubmed99n{number:04}.xml"
    body = "".join(entry.xml() for entry in entries)
    path.write_text(f"<PubmedArticleSet>{body}</PubmedArticleSet>", encoding="utf-8")
    return path


@dataclass
class Expected:
    """What a library should show: the files it has, and which subjects each model has seen."""

    files: dict[int, tuple] = field(default_factory=dict)
    seen: dict[str, set] = field(default_factory=lambda: defaultdict(set))

    def label(self, number, entries, model):
        """A file goes through a model."""
        self.files[number] = entries
        self.seen[model.fingerprint] |= {
            one.subject for one in entries if isinstance(one, Citation) and one.subject != OFF_TOPIC
        }

    def view(self, model):
        """PMID → (version, title, file number) of current records that the model has seen, and how many wait."""
        newest: dict[int, tuple] = {}
        for number in sorted(self.files):
            entries = self.files[number]
            citations = sorted(
                (one.version, position, one) for position, one in enumerate(entries) if isinstance(one, Citation)
            )
            for _, _, one in citations:
                newest[one.pmid] = (one, number)
            for one in entries:
                if isinstance(one, Withdrawn):
                    newest.pop(one.pmid, None)
        current = {pmid: pair for pmid, pair in newest.items() if pair[0].subject != OFF_TOPIC}
        known = {pmid: pair for pmid, pair in current.items() if pair[0].subject in self.seen[model.fingerprint]}
        rows = {pmid: (one.version, one.title, number) for pmid, (one, number) in known.items()}
        return rows, len(current) - len(rows)


def shown(out):
    """The same from the view that a run wrote."""
    table = pq.read_table(out / "labels.parquet")
    return {
        row["pmid"]: (row["version"], row["title"], int(row["source"][9:13]))
        for row in table.select(["pmid", "version", "title", "source"]).to_pylist()
    }, table


PMIDS = st.integers(1, 4)
ENTRIES = st.one_of(
    st.builds(Citation, PMIDS, st.integers(1, 2), st.integers(0, OFF_TOPIC)),
    st.builds(Withdrawn, PMIDS),
)
RUNS = st.lists(
    st.tuples(
        st.integers(0, 1),
        st.dictionaries(st.integers(1, 4), st.lists(ENTRIES, max_size=4).map(tuple), min_size=1, max_size=3),
        st.booleans(),
    ),
    min_size=1,
    max_size=4,
)


@settings(max_examples=EXAMPLES, deadline=None)
@given(RUNS)
def test_any_sequence_ends_where_the_simple_model_does(models, tmp_path_factory, runs):
    folder = tmp_path_factory.mktemp("library")
    expected, out = Expected(), folder / "library"
    for number_of_model, files, backwards in runs:
        model = models[number_of_model]
        paths = [write(folder, number, entries) for number, entries in files.items()]
        done = label(paths[::-1] if backwards else paths, model, out)
        assert done.failed == []
        for result, number in zip(done.files, sorted(files), strict=True):
            entries = files[number]
            citations = [one for one in entries if isinstance(one, Citation)]
            assert result.counts.records == len(citations)
            assert result.counts.gated == sum(one.subject == OFF_TOPIC for one in citations)
            assert result.counts.deleted == len(entries) - len(citations)
            assert result.skipped <= (expected.files.get(number) == entries)
            expected.label(number, entries, model)
        rows, waiting = expected.view(model)
        found, table = shown(out)
        assert found == rows
        assert done.waiting == waiting
        assert_labels(table, model)


def assert_labels(table, model):
    """Every row's labels are what the model says of its text."""
    for row in table.to_pylist():
        one = next(Citation(row["pmid"], 1, subject) for subject in range(OFF_TOPIC) if str(subject) in row["title"])
        probabilities = model.predict_proba([Record("1", one.title, (Section("", "We saw it."),))])
        found = {f"{axis.name}:{name}" for axis in TAXONOMY.axes for name in row[axis.name]}
        assert found == {
            name for name, given in zip(TAXONOMY.names, model.decide(probabilities)[0], strict=True) if given
        }


def states(model, folder, *runs):
    """What the view shows after each run of files (number → entries)."""
    found = []
    for files in runs:
        paths = [write(folder, number, entries) for number, entries in files.items()]
        label(paths, model, folder / "library")
        found.append(shown(folder / "library")[0])
    return found


IN, REVISED, OUT = Citation(1, 1, 0), Citation(1, 1, 1), Citation(1, 1, OFF_TOPIC)


def test_a_record_that_leaves_the_scope_on_revision(models, tmp_path):
    before, after = states(models[0], tmp_path, {1: [IN, Citation(2, 1, 0)]}, {2: [OUT]})
    assert set(before) == {1, 2}
    assert set(after) == {2}


def test_deleted_then_added_again(models, tmp_path):
    _, gone, back = states(models[0], tmp_path, {1: [IN]}, {2: [Withdrawn(1)]}, {3: [REVISED]})
    assert gone == {}
    assert back == {1: (1, REVISED.title, 3)}


def test_a_file_that_gives_and_deletes_a_record_deletes_it(models, tmp_path):
    assert states(models[0], tmp_path, {1: [Withdrawn(1), IN]}) == [{}]


def test_one_pmid_in_three_files_out_of_order(models, tmp_path):
    files = {number: [Citation(1, 1, number - 1)] for number in (1, 2, 3)}
    for order in ((3, 1, 2), (2, 3, 1), (1, 3, 2)):
        place = tmp_path / "".join(map(str, order))
        place.mkdir()
        assert states(models[0], place, *({number: files[number]} for number in order))[-1] == {
            1: (1, files[3][0].title, 3)
        }


def test_two_versions_in_one_file(models, tmp_path):
    newer = Citation(1, 2, 1)
    assert states(models[0], tmp_path, {1: [newer, IN]}) == [{1: (2, newer.title, 1)}]


def test_an_update_before_its_baseline(models, tmp_path):
    first, both = states(
        models[0], tmp_path, {9: [REVISED, Withdrawn(2)]}, {1: [IN, Citation(2, 1, 0), Citation(3, 1, 0)]}
    )
    assert set(first) == {1}
    assert both == {1: (1, REVISED.title, 9), 3: (1, Citation(3, 1, 0).title, 1)}


def test_a_batch_of_deletions_alone(models, tmp_path):
    assert states(models[0], tmp_path, {2: [Withdrawn(1), Withdrawn(7)]}, {1: [IN]}, {3: [Withdrawn(1)]}) == [
        {},
        {},
        {},
    ]


def test_a_truncated_gz_in_the_middle_of_a_batch(models, tmp_path):
    for number in (1, 3):
        write(tmp_path, number, [Citation(number, 1, 0)])
    whole = write(tmp_path, 2, [Citation(2, 1, subject % 3) for subject in range(200)])
    broken = whole.with_suffix(".xml.gz")
    broken.write_bytes(gzip.compress(whole.read_bytes())[:-40])
    whole.unlink()
    done = label([tmp_path], models[0], tmp_path / "library")
    (failed,) = done.failed
    assert Path(failed.source) == broken
    assert set(shown(tmp_path / "library")[0]) == {1, 3}


def test_a_full_disk_costs_no_label(models, tmp_path):
    resource, signal = pytest.importorskip("resource"), pytest.importorskip("signal")
    before = states(models[0], tmp_path, {1: [IN, Citation(2, 1, 1)]})[0]
    many = write(tmp_path, 2, [Citation(pmid, 1, pmid % 3) for pmid in range(10, 900)])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # then a write beyond the limit fails as on a full disk
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4_096, hard))
        with pytest.raises(OutputError, match="same command again"):
            label([many], models[0], tmp_path / "library")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)
    assert shown(tmp_path / "library")[0] == before
    label([many], models[0], tmp_path / "library")
    assert len(shown(tmp_path / "library")[0]) == 2 + 890
