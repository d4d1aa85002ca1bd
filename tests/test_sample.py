"""The sample data, the gold labels and docs/labels.md are what data/README.md says."""

from __future__ import annotations

import csv
import gzip
import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lxml import etree

from pipeline.taxonomy import load_taxonomy

ROOT = Path(__file__).parents[1]
SAMPLE = ROOT / "data" / "sample"
GOLD = ROOT / "data" / "gold" / "labels.jsonl"
README = (ROOT / "data" / "README.md").read_text(encoding="utf-8")
MADE_UP = range(99_000_001, 100_000_000)
TAXONOMY = load_taxonomy()


def json_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def label_sets(rows: list[dict[str, Any]]) -> list[frozenset[str]]:
    return [TAXONOMY.parse(row["labels"], str(row.get("id") or row["pmid"] or row["doi"])) for row in rows]


def pubmed(name: str) -> etree._Element:
    data = (SAMPLE / name).read_bytes()
    if name.endswith(".gz"):
        data = gzip.decompress(data)
    return etree.fromstring(data, etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False))


def own_pmids(root: etree._Element) -> list[int]:
    found = root.xpath("PubmedArticle/MedlineCitation/PMID | PubmedBookArticle/BookDocument/PMID")
    return [int(pmid.text) for pmid in found]


def plain(element: etree._Element | None) -> str:
    return "" if element is None else " ".join(etree.tostring(element, method="text", encoding="unicode").split())


def article(root: etree._Element, pmid: int) -> etree._Element:
    """The last citation of ``pmid`` in the file."""
    found: etree._Element = root.xpath(f"PubmedArticle[MedlineCitation/PMID='{pmid}']")[-1]
    return found


@pytest.fixture(scope="module")
def train() -> list[dict[str, Any]]:
    return json_lines(SAMPLE / "train.jsonl")


@pytest.fixture(scope="module")
def dev() -> list[dict[str, Any]]:
    return json_lines(SAMPLE / "dev.jsonl")


@pytest.fixture(scope="module")
def first() -> etree._Element:
    return pubmed("pubmed99n0001.xml")


@pytest.fixture(scope="module")
def second() -> etree._Element:
    return pubmed("pubmed99n0002.xml.gz")


@pytest.fixture(scope="module")
def expected() -> list[dict[str, str]]:
    with (SAMPLE / "expected.csv").open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def test_corpus_has_the_size_and_the_share_of_negatives_promised(
    train: list[dict[str, Any]], dev: list[dict[str, Any]]
) -> None:
    assert len(train) >= 120
    assert len(dev) >= 40
    for name, rows in (("train", train), ("dev", dev)):
        negatives = sum(not labels for labels in label_sets(rows))
        assert negatives / len(rows) >= 0.25
        assert f"| `{name}.jsonl` | {len(rows)} | {len(rows) - negatives} | {negatives} |" in README


def test_every_label_has_two_positives_in_train_and_one_in_dev(
    train: list[dict[str, Any]], dev: list[dict[str, Any]]
) -> None:
    for rows, least in ((train, 2), (dev, 1)):
        counts = Counter(name for labels in label_sets(rows) for name in labels)
        assert [name for name in TAXONOMY.names if counts[name] < least] == []


def test_corpus_records_are_complete_and_made_up(train: list[dict[str, Any]], dev: list[dict[str, Any]]) -> None:
    rows = train + dev
    fields = {"id", "pmid", "doi", "title", "abstract", "year", "source", "labels", "note"}
    axes = [axis.name for axis in TAXONOMY.axes]
    assert all(set(row) == fields and list(row["labels"]) == axes for row in rows)
    assert all(row["pmid"] in MADE_UP and row["doi"] is None for row in rows)
    assert all(row["title"] and row["abstract"] and row["note"] and 1980 <= row["year"] <= 2026 for row in rows)
    for field in ("id", "pmid", "abstract"):
        assert len({row[field] for row in rows}) == len(rows)


def test_minimal_pairs_stay_on_one_side(train: list[dict[str, Any]], dev: list[dict[str, Any]]) -> None:
    # The numbers of a pair follow each other in the stock of written records, but for two pairs.
    starts = (1051, 2009, 2020, 2027, 2030, 2035, 3001, 3034, 5054, 7006, *range(6001, 6024, 2))
    pairs = [{f"w{n}", f"w{n + 1}"} for n in starts] + [{"w4021", "w4070"}, {"w4010", "w4040"}]
    sides = [{row["id"] for row in rows} for rows in (train, dev)]
    present = [pair for pair in pairs if pair & (sides[0] | sides[1])]
    assert present
    assert [pair for pair in present if all(pair & side for side in sides)] == []


def test_update_file_counts_are_those_of_the_readme(first: etree._Element) -> None:
    articles, books = (len(first.findall(tag)) for tag in ("PubmedArticle", "PubmedBookArticle"))
    pmids = set(own_pmids(first))
    assert articles >= 64
    assert books == 1
    assert f"{articles} `PubmedArticle` and one `PubmedBookArticle`, {len(pmids)} PMIDs" in README


@pytest.mark.parametrize("name", ["pubmed99n0001.xml", "pubmed99n0002.xml.gz"])
def test_every_pmid_and_doi_in_the_xml_is_made_up(name: str) -> None:
    root = pubmed(name)
    assert all(int(pmid.text or 0) in MADE_UP for pmid in root.iter("PMID"))
    for identifier in root.xpath("//ArticleId | //ELocationID"):
        kind = identifier.get("IdType") or identifier.get("EIdType")
        if kind == "doi":
            assert identifier.text.startswith("10.99999/")
        if kind == "pubmed":
            assert int(identifier.text) in MADE_UP


def test_update_file_holds_no_text_of_the_corpus(
    first: etree._Element, train: list[dict[str, Any]], dev: list[dict[str, Any]]
) -> None:
    known = {row["title"].rstrip(".") for row in train + dev}
    assert not known & {plain(title).rstrip(".") for title in first.iter("ArticleTitle")}


def test_expected_labels_are_valid_and_belong_to_the_file(
    first: etree._Element, expected: list[dict[str, str]]
) -> None:
    pmids = [int(row["pmid"]) for row in expected]
    deleted = {int(pmid.text or 0) for pmid in first.iterfind("DeleteCitation/PMID")}
    assert len(set(pmids)) == len(pmids)
    assert set(pmids) <= set(own_pmids(first)) - deleted
    for row in expected:
        labels = row["labels"].split(";") if row["labels"] else []
        assert all(name in TAXONOMY.index for name in labels)
        assert TAXONOMY.violations(labels) == []
        assert row["in_scope"] == ("true" if labels else "false")
    inside = sum(row["in_scope"] == "true" for row in expected)
    assert 0.4 <= inside / len(expected) <= 0.6
    assert f"{len(expected)} of the PMIDs, {inside} in scope and {len(expected) - inside} out of scope" in README


def awkward() -> Iterator[tuple[int, str]]:
    """The rows of the README's table of cases: one PMID each."""
    for pmids, case in re.findall(r"^\| ([\d, ]+) \| (.+) \|$", README, re.MULTILINE):
        for pmid in pmids.split(", "):
            yield int(pmid), case


def test_awkward_cases_are_in_the_file_where_the_readme_says(first: etree._Element) -> None:
    table = README.split("## pubmed99n0002")[0]
    cases = {case: pmid for pmid, case in awkward() if f"| {case} |" in table}
    assert set(cases.values()) <= set(own_pmids(first))

    def at(start: str) -> etree._Element:
        return article(first, next(pmid for case, pmid in cases.items() if case.startswith(start)))

    assert at("a letter without").find(".//Abstract") is None
    assert at("title only").find(".//Abstract") is not None
    assert plain(at("title only").find(".//Abstract")) == ""
    assert plain(at("no title").find(".//ArticleTitle")) == ""
    assert plain(at("title “[Not Available].”").find(".//ArticleTitle")) == "[Not Available]."
    assert at("inline markup").xpath("count(.//*[namespace-uri()='http://www.w3.org/1998/Math/MathML'])") > 4
    assert at("CDATA").xpath("count(.//AbstractText/comment())") == 1
    assert "TNF-\N{GREEK SMALL LETTER ALPHA} & IL-6" in plain(at("character references").find(".//ArticleTitle"))
    assert "ABSTRACT TRUNCATED AT 250 WORDS" in plain(at("an abstract cut").find(".//Abstract"))
    assert at("bracketed translated").find(".//OtherAbstract").get("Language") == "chi"
    assert at("English abstract").find(".//OtherAbstract").get("Language") == "spa"
    assert "Retracted Publication" in [plain(kind) for kind in at("a retracted").iter("PublicationType")]
    assert at("nested reference").find("PubmedData/ReferenceList/ReferenceList") is not None
    assert all(
        article(first, pmid).find(".//MedlineDate") is not None for pmid, case in awkward() if "MedlineDate" in case
    )


def test_versions_repeats_and_deletions_of_the_first_file(first: etree._Element) -> None:
    versions: dict[str, list[str]] = {}
    for pmid in first.iterfind("PubmedArticle/MedlineCitation/PMID"):
        versions.setdefault(str(pmid.text), []).append(str(pmid.get("Version")))
    assert sorted(found for found in versions.values() if len(found) > 1) == [["1", "1"], ["1", "2"]]
    deleted = [int(pmid.text or 0) for pmid in first.iterfind("DeleteCitation/PMID")]
    assert [pmid in own_pmids(first) for pmid in deleted] == [True, False]


def test_second_file_revises_deletes_and_adds_again(first: etree._Element, second: etree._Element) -> None:
    before, now = set(own_pmids(first)), own_pmids(second)
    cases = {case: pmid for pmid, case in awkward()}
    gone = int(first.findtext("DeleteCitation/PMID") or 0)
    assert 6 <= len(now) <= 8
    assert cases["deleted by the first file, added again"] == gone
    assert gone in now
    assert {int(pmid.text or 0) for pmid in second.iterfind("DeleteCitation/PMID")} == {cases["deleted"]} <= before

    def texts(pmid: int) -> list[str]:
        return [plain(article(root, pmid).find(".//Abstract")) for root in (first, second)]

    old, new = texts(cases["revised without a change of text (one more MeSH heading)"])
    assert old == new
    old, new = texts(cases["gets an abstract"])
    assert not old
    assert new
    old, new = texts(next(pmid for case, pmid in cases.items() if case.startswith("corrected:")))
    assert "liver" in old
    assert "liver" not in new


def test_other_formats_hold_what_the_readme_says() -> None:
    nbib = (SAMPLE / "citation.nbib").read_text(encoding="utf-8")
    assert [int(pmid) for pmid in re.findall(r"^PMID- (\d+)$", nbib, re.MULTILINE)] == [99002001, 99002002, 99002003]
    assert len(re.findall(r"^AB  - ", nbib, re.MULTILINE)) == 2
    with (SAMPLE / "records.csv").open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert [int(row["pmid"]) for row in rows] == list(range(99002101, 99002106))
    assert sum(not row["abstract"] for row in rows) == 1
    assert any("\n" in row["abstract"] for row in rows)
    page = (SAMPLE / "page.txt").read_text(encoding="utf-8")
    assert page.index("Affiliations") < page.index("PMID: 99002201") < page.index("Abstract") < page.index("Resumen")


def test_gold_labels_are_valid_and_carry_no_text() -> None:
    rows = json_lines(GOLD)
    assert all(set(row) == {"pmid", "doi", "labels", "split", "scheme"} for row in rows)
    assert all(row["scheme"] == TAXONOMY.version and row["split"] in {"train", "references"} for row in rows)
    assert all(row["pmid"] or row["doi"] for row in rows)
    for field in ("pmid", "doi"):
        values = [row[field] for row in rows if row[field] is not None]
        assert len(set(values)) == len(values)
    assert all(row["pmid"] is None or row["pmid"] not in MADE_UP for row in rows)
    inside = sum(bool(labels) for labels in label_sets(rows))
    assert f"holds {len(rows):,} articles, {inside:,} of them in scope" in README


def test_gold_leaves_out_the_development_and_test_sets() -> None:
    held_out = [ROOT.parent / "shared" / "labelled" / name for name in ("dev.jsonl", "test.jsonl")]
    if not all(path.exists() for path in held_out):
        pytest.skip("the held-out sets are not on this machine")
    rows = [row for path in held_out for row in json_lines(path)]
    unseen = {row["pmid"] for row in rows if row["pmid"]} | {row["doi"].lower() for row in rows if row["doi"]}
    assert not [row for row in json_lines(GOLD) if row["pmid"] in unseen or row["doi"] in unseen]


def test_labels_page_names_every_label_under_its_axis() -> None:
    page = (ROOT / "docs" / "labels.md").read_text(encoding="utf-8")
    for axis in TAXONOMY.axes:
        section = page.split(f"\n## {axis.name}: ")[1].split("\n## ")[0]
        assert re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE) == list(axis.labels)


def test_data_is_small() -> None:
    files = [path for folder in (SAMPLE, GOLD.parent) for path in folder.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 1_500_000
