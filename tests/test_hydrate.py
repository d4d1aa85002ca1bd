"""Labels without text get it back: over the network, from dumps, from a library."""

import gzip
import json
import sys
from datetime import date
from pathlib import Path

import pytest
from servers import PubMed, Site, made_up, serving

from pipeline.cli import main
from pipeline.corpus import read_examples
from pipeline.entrez import Entrez
from pipeline.errors import HepatagError, InputError, LabelError, NetworkError, OutputError
from pipeline.hydrate import hydrate
from pipeline.web import Patience

ROOT = Path(__file__).parents[1]
SAMPLE = ROOT / "data" / "sample"
DUMPS = [SAMPLE / "pubmed99n0001.xml", SAMPLE / "pubmed99n0002.xml.gz"]
WAITS = Patience(tries=2, pause=0.01, longest=5, timeout=5)
FIRST = 99_100_000
NONE = {axis: [] for axis in ("cancer_type", "ir_modality", "immunotherapy", "combination", "study_design", "finding")}
HCC = NONE | {"cancer_type": ["hcc"], "ir_modality": ["tace"], "study_design": ["retrospective"]}


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("NCBI_API_KEY", raising=False)


@pytest.fixture
def site():
    with serving(Site(eutils=PubMed(made_up(300)))) as site:
        yield site


@pytest.fixture
def gold(tmp_path):
    def write(*rows):
        path = tmp_path / "gold.jsonl"
        path.write_text("".join(json.dumps({"split": "train", "scheme": 1} | row) + "\n" for row in rows))
        return path

    return write


def client(site):
    return Entrez(site.url, patience=WAITS, interval=0)


def row(pmid=None, doi=None, labels=None):
    return {"pmid": pmid, "doi": doi, "labels": labels or NONE}


def test_over_the_network(site, gold, tmp_path):
    labels = gold(
        row(FIRST, labels=HCC), row(FIRST + 1, "10.99999/another"), row(None, f"10.99999/X.{FIRST + 2}", HCC),
        row(99_199_999), row(None, "10.99999/unknown"),
        *(row(None, f"10.99999/x.{FIRST + 20 + n}") for n in range(230)),
    )  # fmt: skip
    out = tmp_path / "train.jsonl"
    done = hydrate(labels, out, entrez=client(site))
    assert (done.asked, done.examples, done.in_scope, done.repeated) == (235, 233, 2, ())
    assert done.missing == ("99199999", "10.99999/unknown")
    assert Path(done.missing_file).read_text().split() == list(done.missing)
    assert len(site.asked("/esearch.fcgi")) == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "gold.jsonl", "train.jsonl", "train.jsonl.missing.txt",
    ]  # fmt: skip
    examples = read_examples([out])
    assert len(examples) == 233
    assert [one.record.id for one in examples[:3]] == [str(FIRST), str(FIRST + 1), str(FIRST + 2)]
    assert examples[2].labels == {"cancer_type:hcc", "ir_modality:tace", "study_design:retrospective"}
    assert examples[0].record.abstract_text() == f"Nobody wrote number {FIRST} < the next."
    assert json.loads(out.read_text().splitlines()[0]) | {"title": ""} == {
        "id": str(FIRST), "pmid": FIRST, "doi": f"10.99999/x.{FIRST}", "title": "", "year": 2021, "source": "PubMed",
        "abstract": f"Nobody wrote number {FIRST} < the next.", "split": "train", "labels": HCC,
    }  # fmt: skip


def test_a_break_is_gone_on_with(site, gold, tmp_path):
    labels = gold(*(row(FIRST + number) for number in range(300)))
    site.faults["/efetch.fcgi"] = ["", "drop", "drop"]
    with pytest.raises(NetworkError):
        hydrate(labels, tmp_path / "train.jsonl", entrez=client(site))
    site.requests.clear()
    assert hydrate(labels, tmp_path / "train.jsonl", entrez=client(site)).examples == 300
    assert len(site.requests) == 1


def test_from_dumps_the_newest_text_counts(gold, tmp_path):
    labels = gold(
        row(99001050),
        row(99001022),
        row(99001030),
        row(99001071),
        row(99001074),
        row(None, "10.99999/HEPATAG.99001001"),
    )
    # Given out of order: 99001022 was corrected and 99001030 deleted by the second file, 99001071 by the first.
    done = hydrate(labels, tmp_path / "train.jsonl", sources=DUMPS[::-1])
    assert done.missing == ("99001030",)
    found = {one.record.pmid: one.record for one in read_examples([tmp_path / "train.jsonl"])}
    assert set(found) == {99001050, 99001022, 99001071, 99001074, 99001001}
    assert found[99001050].abstract  # which only the second file holds
    old = hydrate(gold(row(99001022)), tmp_path / "old.jsonl", sources=DUMPS[:1])
    assert old.examples == 1
    assert (
        read_examples([tmp_path / "old.jsonl"])[0].record.abstract_text() != found[99001022].abstract_text()
    )  # fmt: skip


def test_what_has_neither_is_found_by_the_id_of_its_source(gold, tmp_path):
    notes = tmp_path / "notes.jsonl"
    notes.write_text("".join(json.dumps({"id": name, "title": f"On {name}"}) + "\n" for name in ("r1", "r2", "r3")))
    labels = gold(row(labels=HCC) | {"id": "r2"}, row() | {"id": "r9"}, row(99001050) | {"id": "r1"})
    done = hydrate(labels, tmp_path / "train.jsonl", sources=[notes, *DUMPS])
    assert done.missing == ("r9",)
    found = read_examples([tmp_path / "train.jsonl"])
    assert [one.record.id for one in found] == ["r2", "99001050"]
    assert found[0].record.title == "On r2"
    assert found[0].labels


def test_from_a_folder_of_dumps(gold, tmp_path):
    done = hydrate(gold(row(99001050)), tmp_path / "train.jsonl.gz", sources=[SAMPLE])
    assert done.examples == 1
    with gzip.open(tmp_path / "train.jsonl.gz", "rt") as file:
        assert json.loads(file.read())["abstract"]
    assert read_examples([tmp_path / "train.jsonl.gz"])[0].record.pmid == 99001050


def test_from_a_library(gold, tmp_path, predictor):
    from pipeline.label import label

    label(DUMPS, predictor, tmp_path / "library", gate="none")
    labels = gold(row(99001050), row(99001030), row(99001071))
    done = hydrate(labels, tmp_path / "train.jsonl", sources=[tmp_path / "library"])
    assert (done.examples, done.missing) == (2, ("99001030",))
    hydrate(labels, tmp_path / "same.jsonl", sources=DUMPS)
    texts = [[(one.record.title, one.record.abstract_text()) for one in read_examples([tmp_path / name])]
             for name in ("train.jsonl", "same.jsonl")]  # fmt: skip
    assert texts[0] == texts[1]
    shard = tmp_path / "library" / "citations" / "pubmed99n0001.parquet"
    shard.write_bytes(shard.read_bytes()[:100])
    with pytest.raises(HepatagError, match="hepatag verify"):
        hydrate(labels, tmp_path / "train.jsonl", sources=[tmp_path / "library"])


def test_an_article_that_stands_twice(site, gold, tmp_path):
    labels = gold(row(FIRST, labels=HCC), row(None, f"10.99999/x.{FIRST}"))
    done = hydrate(labels, tmp_path / "train.jsonl", entrez=client(site))
    assert (done.examples, done.repeated) == (1, (f"10.99999/x.{FIRST}",))
    assert read_examples([tmp_path / "train.jsonl"])[0].labels


def test_two_versions_in_one_file(gold, tmp_path):
    article = PubMed({FIRST: (date(2021, 1, 1), "")}).article(FIRST)
    newer = article.replace('Version="1"', 'Version="2"').replace("Made-up study", "Second version of study")
    (tmp_path / "some.xml").write_text(f"<PubmedArticleSet>{newer}{article}</PubmedArticleSet>")
    hydrate(gold(row(FIRST)), tmp_path / "train.jsonl", sources=[tmp_path / "some.xml"])
    assert read_examples([tmp_path / "train.jsonl"])[0].record.title.startswith("Second version")


def test_nothing_found(site, gold, tmp_path):
    with pytest.raises(InputError, match="found none"):
        hydrate(gold(row(1)), tmp_path / "train.jsonl", sources=DUMPS)
    with pytest.raises(InputError, match="found none"):
        hydrate(gold(row(1)), tmp_path / "train.jsonl", entrez=client(site))
    with pytest.raises(InputError, match="found none"):
        hydrate(gold(row(None, "10.99999/unknown")), tmp_path / "train.jsonl", entrez=client(site))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="--from"):
        hydrate(gold(row(1)), tmp_path / "train.jsonl", sources=[tmp_path / "empty"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "gold.jsonl"]


@pytest.mark.parametrize(
    ("broken", "error"),
    [
        (row(), InputError), (row("99001050"), InputError), (row(0), InputError), (row(True), InputError),
        (row(None, "no doi"), InputError), ({"pmid": 1}, InputError), (row(1, labels={"finding": "x"}), InputError),
        (row(1, labels={"cancer_type": ["lung"]}), LabelError), (row(1) | {"scheme": 99}, LabelError),
        (row(1, labels=HCC | {"study_design": []}), LabelError),
    ],
)  # fmt: skip
def test_labels_that_do_not_do(gold, tmp_path, broken, error):
    with pytest.raises(error, match=r"gold\.jsonl:2"):
        hydrate(gold(row(99001050), broken), tmp_path / "train.jsonl", sources=DUMPS)


def test_files_that_do_not_do(gold, tmp_path):
    with pytest.raises(InputError, match="check the path"):
        hydrate(tmp_path / "none.jsonl", tmp_path / "train.jsonl", sources=DUMPS)
    with pytest.raises(InputError, match="check the path"):
        hydrate(gold(row(1)), tmp_path / "train.jsonl", sources=[tmp_path / "none.xml"])
    with pytest.raises(OutputError):
        hydrate(gold(row(99001050)), tmp_path / "gold.jsonl" / "train.jsonl", sources=DUMPS)


def test_the_gold_set_can_be_read(site, tmp_path):
    rows = [json.loads(line) for line in (ROOT / "data" / "gold" / "labels.jsonl").read_text().splitlines()]
    day = date(2021, 1, 1)
    site.eutils.citations = {one["pmid"] or 99_500_000 + n: (day, one["doi"] or "") for n, one in enumerate(rows)}
    done = hydrate(ROOT / "data" / "gold" / "labels.jsonl", tmp_path / "gold.jsonl", entrez=client(site))
    assert (done.asked, done.missing) == (len(rows), ())
    assert done.examples + len(done.repeated) == len(rows)
    assert len(read_examples([tmp_path / "gold.jsonl"])) == done.examples


def test_the_command(gold, tmp_path, monkeypatch, capsys):
    labels = gold(row(99001050), row(99001022), row(5))
    words = ["corpus", "hydrate", labels, "--out", tmp_path / "train.jsonl"]
    for source in DUMPS:
        words += ["--from", source]
    monkeypatch.setattr(sys, "argv", ["hepatag", *map(str, words), "--json"])
    with pytest.raises(SystemExit) as end:
        main()
    out, err = capsys.readouterr()
    assert not end.value.code
    assert json.loads(out)["examples"] == 2
    assert "2 of 3 records have a text" in err
    assert "1 are not in the source: 5" in err
