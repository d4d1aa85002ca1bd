"""The state of a library, and what a new baseline year dropped."""

import json
import subprocess
import sys
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console
from typer.testing import CliRunner

from pipeline.baseline import newest_year, ranges, vanished
from pipeline.cli import app
from pipeline.errors import OutputError
from pipeline.label import label
from pipeline.predict import Predictor
from pipeline.shards import Counts, LedgerEntry, Library, input_order
from pipeline.status import render, status

SAMPLE = Path(__file__).parents[1] / "data" / "sample"
FIRST, SECOND = SAMPLE / "pubmed99n0001.xml", SAMPLE / "pubmed99n0002.xml.gz"
CITATION = (
    "<PubmedArticle><MedlineCitation Status='MEDLINE'><PMID Version='1'>{pmid}</PMID><Article><ArticleTitle>"
    "Chemoembolization of hepatocellular carcinoma in heron {pmid}</ArticleTitle></Article></MedlineCitation>"
    "</PubmedArticle>"
)


def dump(path, pmids, deleted=()):
    """An XML file as PubMed's, with a citation on liver cancer for each PMID."""
    body = "".join(CITATION.format(pmid=pmid) for pmid in pmids)
    if deleted:
        body += "<DeleteCitation>" + "".join(f"<PMID Version='1'>{one}</PMID>" for one in deleted) + "</DeleteCitation>"
    path.write_text(f"<PubmedArticleSet>{body}</PubmedArticleSet>", encoding="utf-8")
    return path


def entry(name, finished="2026-11-20T10:00:00+00:00", **counts):
    return LedgerEntry(
        name, f"{name}.xml.gz", "0" * 32, input_order(name, 1), "terms", "1", Counts(**counts), 1.0, finished,
        ("0123456789ab",),
    )  # fmt: skip


def printed(found):
    console = Console(file=StringIO(), width=400)
    render(found, console)
    return console.file.getvalue()


@pytest.fixture
def library(predictor, tmp_path):
    label([FIRST, SECOND, SAMPLE / "records.csv"], predictor, tmp_path / "library")
    return tmp_path / "library"


def test_what_is_there_is_counted(library, predictor):
    found = status(library)
    ledger = Library.open(library, create=False).ledger()
    rows = pq.read_table(library / "labels.parquet")
    assert found.files == 3
    assert found.data_as_of.source == SECOND.name
    assert found.data_as_of.finished == ledger["pubmed99n0002"].finished
    assert found.last_run.finished == max(one.finished for one in ledger.values())
    for name in ("records", "citations", "gated", "deleted", "rejected"):
        assert getattr(found, name) == sum(getattr(one.counts, name) for one in ledger.values())
    assert found.records == found.citations + found.gated
    assert found.in_scope == sum(rows["in_scope"].to_pylist())
    assert found.in_scope + found.out_of_scope == rows.num_rows
    assert found.model == f"{predictor.name}@{predictor.fingerprint}"
    assert [(one.fingerprint, one.name, one.inputs) for one in found.models] == [
        (predictor.fingerprint, predictor.name, 3)
    ]
    assert (found.waiting, found.waiting_texts, found.without_predictions) == ([], 0, [])
    assert (found.damaged, found.partial, found.running, found.view) == ([], [], "", "")
    assert (found.baseline.first, found.baseline.last, found.baseline.missing) == (1, 2, ())


def test_a_library_of_own_files_has_no_pubmed_file(predictor, tmp_path):
    label([SAMPLE / "records.csv"], predictor, tmp_path / "library")
    found = status(tmp_path / "library")
    assert (found.data_as_of, found.baseline, found.vanished) == (None, None, 0)
    assert found.last_run.source == "records.csv"


def test_an_empty_library_and_none(tmp_path):
    Library.open(tmp_path / "library", create=True)
    found = status(tmp_path / "library")
    assert (found.files, found.in_scope, found.model, found.last_run) == (0, None, "", None)
    assert "no labels.parquet yet" in printed(found)
    with pytest.raises(OutputError, match="found none"):
        status(tmp_path / "elsewhere")


def test_inputs_that_wait_for_the_model_of_the_view(library, predictor):
    newcomer = Predictor(replace(predictor.model, fingerprint="0123456789ab"), predictor.device)
    label([SECOND], newcomer, library)
    found = status(library)
    assert found.waiting == ["records", "pubmed99n0001"]
    texts = {
        one
        for name in found.waiting
        for one in Library.open(library, create=False).citations(name)["text_hash"].to_pylist()
    }
    assert found.waiting_texts == len(texts - Library.open(library, create=False).known_hashes("0123456789ab")) > 0
    assert {one.fingerprint: one.inputs for one in found.models} == {predictor.fingerprint: 3, "0123456789ab": 1}
    label([SECOND, FIRST, SAMPLE / "records.csv"], newcomer, library)
    assert (status(library).waiting, status(library).waiting_texts) == ([], 0)


def test_damage_is_named_and_never_a_traceback(library, predictor):
    (library / "predictions" / predictor.fingerprint / "records.parquet").unlink()
    (library / "ledger" / "pubmed99n0001.json").write_text('{"name": "pubmed', encoding="utf-8")
    (library / "citations" / ".pubmed99n0003.parquet.part").write_bytes(b"PAR1")
    (library / "labels.parquet").write_bytes(b"PAR1")
    found = status(library)
    assert found.without_predictions == ["records"]
    assert found.damaged == [str(library / "ledger" / "pubmed99n0001.json")]
    assert found.partial == [str(library / "citations" / ".pubmed99n0003.parquet.part")]
    assert (found.files, found.in_scope, found.vanished) == (2, None, None)
    text = printed(found)
    assert "labels.parquet cannot be read" in text
    assert f"hepatag verify {library}" in text


def test_a_run_at_work_is_named(library):
    held = subprocess.Popen(
        [
            sys.executable, "-c",
            "import sys; from pathlib import Path; from pipeline.lock import hold\n"
            "with hold(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()",
            str(library),
        ],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=SAMPLE.parents[1],
    )  # fmt: skip
    try:
        assert held.stdout.readline() == b"held\n"
        assert f"process {held.pid} on" in status(library).running
    finally:
        held.communicate()
    assert status(library).running == ""


def test_many_inputs_are_counted_without_their_shards(tmp_path):
    """No shard is there, so none can have been read."""
    library = Library.open(tmp_path, create=True)
    for number in range(300):
        library.write_ledger(entry(f"pubmed26n{number + 1:04d}", records=10, gated=9, citations=1))
    table = {"pmid": [7], "in_scope": [True], "source": ["pubmed26n0001.xml.gz"], "model": ["mini@ba9876543210"]}
    pq.write_table(pa.table(table), tmp_path / "labels.parquet")
    found = status(tmp_path)
    assert (found.files, found.records, found.in_scope, found.out_of_scope) == (300, 3000, 1, 0)
    assert found.data_as_of.source == "pubmed26n0300.xml.gz"
    assert len(found.waiting) == 300
    assert found.waiting_texts is None


def test_what_a_new_baseline_year_dropped(predictor, tmp_path):
    """11 is in both years, 12 only in the older one, 13 is deleted in the older one, 14 in the newer one."""
    out = tmp_path / "library"
    label([dump(tmp_path / "pubmed26n0001.xml", [11, 12, 13, 14], deleted=[13])], predictor, out)
    assert (status(out).vanished, status(out).baseline.older) == (0, 0)
    assert "vanished" not in printed(status(out))
    label([dump(tmp_path / "pubmed27n0001.xml", [11]), dump(tmp_path / "pubmed27n0003.xml", [], [14])], predictor, out)
    found = status(out)
    assert (found.vanished, found.baseline.older, found.baseline.year) == (1, 1, 27)
    assert found.baseline.missing == (2,)
    text = printed(found)
    assert "1 records are only in the 1 files of older years" in text
    assert "once the whole baseline of pubmed27 is here" in text
    assert "not here between  0002" in text
    rows = vanished(pq.read_table(out / "labels.parquet"), Library.open(out, create=False).ledger())
    assert rows["pmid"].to_pylist() == [12]


def test_years_of_a_ledger():
    ledger = {one.name: one for one in (entry("notes"), entry("pubmed25n0009"), entry("pubmed26n0002"))}
    found = newest_year(ledger)
    assert (found.year, found.files, found.first, found.last, found.older) == (26, 1, 2, 2, 1)
    assert newest_year({"notes": entry("notes")}) is None
    table = pa.table({"pmid": pa.array([1, None, 3]), "source": ["pubmed25n0009.xml.gz", "notes.xml.gz", "x"]})
    assert vanished(table, ledger)["pmid"].to_pylist() == [1]
    assert ranges((3, 10, 11, 12)) == "0003, 0010–0012"


def test_the_command(library):
    result = CliRunner().invoke(app, ["status", str(library)])
    assert result.exit_code == 0
    assert "pubmed99n0002.xml.gz" in result.stdout
    document = json.loads(CliRunner().invoke(app, ["status", str(library), "--json"]).stdout)
    assert document == json.loads(json.dumps(status(library).to_dict()))
