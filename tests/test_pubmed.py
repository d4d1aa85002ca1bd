"""The PubMed reader against a plain whole-document parse, and each awkward case by its expected value."""

import gzip
import subprocess
import sys
from pathlib import Path

import pytest
from lxml import etree

from pipeline.citation import entries_of
from pipeline.errors import InputError
from pipeline.gate import could_matter, could_matter_bytes
from pipeline.pubmed import read_pubmed
from pipeline.readers import read
from pipeline.records import Deletion, Record, Reject, Section, Skipped

SHARED = Path(__file__).parents[2] / "shared"
sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))

from dumps import FIRST_PMID, Shape, Update, write_dump, write_update  # noqa: E402

DOCTYPE = (
    '<?xml version="1.0" encoding="utf-8"?>\n<!DOCTYPE PubmedArticleSet PUBLIC "-//NLM//DTD PubMedArticle, 1st January '
    '2025//EN" "https://dtd.nlm.nih.gov/ncbi/pubmed/out/pubmed_250101.dtd">\n'
)


def article(pmid, body, *, head="", tail="", data="", version="1"):
    return (
        f'<PubmedArticle><MedlineCitation Status="MEDLINE"><PMID Version="{version}">{pmid}</PMID>{head}'
        f'<Article PubModel="Print">{body}</Article>{tail}</MedlineCitation>'
        f"<PubmedData>{data}</PubmedData></PubmedArticle>"
    )


def simple(pmid, title="A made-up title.", abstract="Made-up words.", **more):
    return article(
        pmid,
        f"<ArticleTitle>{title}</ArticleTitle><Abstract><AbstractText>{abstract}</AbstractText></Abstract>"
        "<Language>eng</Language>",
        **more,
    )


REFERENCES = (
    "<ReferenceList><Reference><Citation>Somebody. Elsewhere. 1999.</Citation><ArticleIdList>"
    '<ArticleId IdType="pubmed">555</ArticleId><ArticleId IdType="doi">10.5555/cited</ArticleId></ArticleIdList>'
    "<PubmedArticle><MedlineCitation><PMID>556</PMID><Article><ArticleTitle>Cited</ArticleTitle></Article>"
    "</MedlineCitation></PubmedArticle></Reference></ReferenceList>"
)

SAMPLE = [
    # structured abstract, markup inside words, MathML, entities
    article(
        900000001,
        "<Journal><JournalIssue><PubDate><MedlineDate>1998 Dec-1999 Jan</MedlineDate></PubDate></JournalIssue>"
        "<Title>Journal of Made-up Hepatology</Title><ISOAbbreviation>J Made Up</ISOAbbreviation></Journal>"
        "<ArticleTitle>Uptake of <sup>90</sup>Y and CO<sub>2</sub> in "
        "<i>hepa</i>toma &lt;5 cm &amp; more.</ArticleTitle>"
        '<ELocationID EIdType="doi" ValidYN="N">10.5555/wrong</ELocationID>'
        '<ELocationID ValidYN="Y" EIdType="doi">10.5555/own.1</ELocationID>'
        '<Abstract><AbstractText NlmCategory="BACKGROUND" Label="AIMS">We asked this.</AbstractText>'
        '<AbstractText Label="RESULTS">Dose <mml:math xmlns:mml="http://www.w3.org/1998/Math/MathML"><mml:mrow>\n'
        "<mml:msub><mml:mi>D</mml:mi>\n <mml:mn>0</mml:mn></mml:msub><mml:mo>=</mml:mo><mml:mfrac><mml:mn>1</mml:mn>"
        "<mml:mn>2</mml:mn></mml:mfrac></mml:mrow></mml:math> Gy.</AbstractText>"
        "<AbstractText></AbstractText></Abstract><AuthorList><Author>"
        "<CollectiveName>The Group</CollectiveName></Author></AuthorList><Language>eng</Language>"
        "<PublicationTypeList><PublicationType UI='D1'>Retracted Publication"
        "</PublicationType><PublicationType>Journal Article</PublicationType></PublicationTypeList>",
        data='<ArticleIdList><ArticleId IdType="doi">10.5555/second</ArticleId></ArticleIdList>' + REFERENCES,
        version="2",
    ),
    # comment and CDATA that hold tags
    "<!-- <PubmedArticle><PMID>1</PMID></PubmedArticle> -->"
    + simple(
        900000002,
        "Plain <!-- </PubmedArticle> hidden -->title",
        "Cut <![CDATA[</PubmedArticle> <b>raw</b>]]> here. (ABSTRACT TRUNCATED AT 250 WORDS)",
    ),
    # translated title, no abstract but another in two languages, of which one English
    article(
        900000003,
        "<ArticleTitle>[Ablation of [small] tumours].</ArticleTitle><Language>fre</Language>"
        "<VernacularTitle>Ablation des petites tumeurs.</VernacularTitle>",
        tail='<OtherAbstract Language="fre" Type="Publisher"><AbstractText>Les mots.</AbstractText></OtherAbstract>'
        '<OtherAbstract Type="Publisher" Language="eng"><AbstractText>The words.</AbstractText></OtherAbstract>',
    ),
    # only a foreign abstract, only a vernacular title; year from the electronic date; DOI from the id list
    article(
        900000004,
        "<Journal><JournalIssue><PubDate><Season>Summer</Season></PubDate></JournalIssue></Journal>"
        "<ArticleTitle>[Not Available].</ArticleTitle><Language>ger</Language>"
        "<ArticleDate><Year>2011</Year></ArticleDate>"
        "<VernacularTitle>Leberkrebs heute.</VernacularTitle>",
        tail='<OtherAbstract Language="ger"><AbstractText>Die Worte.</AbstractText></OtherAbstract>',
        data='<ArticleIdList><ArticleId IdType="doi">https://doi.org/10.5555/list.</ArticleId></ArticleIdList>'
        + REFERENCES,
    ),
    # title alone, a bracket that is no pair of PubMed's; retraction by link; line breaks in tags
    "<PubmedArticle\n  >\n<MedlineCitation\nStatus='x'><PMID\n Version='3'\n>\n900000005\n</PMID><Article>"
    "<ArticleTitle\n>[18F]FDG in the [liver]</ArticleTitle></Article><CommentsCorrectionsList><CommentsCorrections "
    'RefType="RetractionIn"><PMID Version="1">77</PMID></CommentsCorrections></CommentsCorrectionsList>'
    "</MedlineCitation></PubmedArticle\n>",
    # neither title nor abstract; no PMID; no citation at all; not well-formed
    article(900000006, "<ArticleTitle/>"),
    "<PubmedArticle><MedlineCitation><Article><ArticleTitle>X</ArticleTitle></Article></MedlineCitation></PubmedArticle>",
    "<PubmedArticle/>",
    # a book
    '<PubmedBookArticle><BookDocument><PMID Version="1">900000007</PMID><ArticleIdList><ArticleId IdType="doi">'
    "10.5555/book</ArticleId></ArticleIdList><Book><BookTitle>A Book</BookTitle>"
    "<PubDate><Year>2003</Year></PubDate></Book>"
    "<ArticleTitle>A chapter</ArticleTitle><Language>eng</Language><PublicationType>Review</PublicationType><Abstract>"
    "<AbstractText>On it.</AbstractText></Abstract></BookDocument><PubmedBookData/></PubmedBookArticle>",
    '<DeleteCitation><PMID Version="1">900000008</PMID>\n<PMID Version="2">900000009</PMID></DeleteCitation>',
]


def document(*records, root="PubmedArticleSet"):
    return (DOCTYPE + f"<{root}>\n" + "\n".join(records) + f"\n</{root}>\n").encode()


def whole(data: bytes, name: str):
    """The reference: one parse of the whole document, then its top-level elements."""
    root = etree.fromstring(data, etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False))
    return [
        entry
        for number, element in enumerate(root.iterchildren(etree.Element), 1)
        for entry in entries_of(element, name, f"record {number}")
    ]


@pytest.fixture
def write(tmp_path):
    def put(data, name="file.xml"):
        path = tmp_path / name
        path.write_bytes(data if isinstance(data, bytes) else data.encode())
        return path

    return put


def test_sample_fields(write):
    first, second, third, fourth, fifth, *rest = read_pubmed(write(document(*SAMPLE)))
    assert first == Record(
        id="900000001",
        title="Uptake of 90Y and CO2 in hepatoma <5 cm & more.",
        abstract=(Section("AIMS", "We asked this."), Section("RESULTS", "Dose D0=1/2 Gy.")),
        pmid=900000001,
        version=2,
        language="eng",
        year=1998,
        journal="Journal of Made-up Hepatology",
        doi="10.5555/own.1",
        publication_types=("Retracted Publication", "Journal Article"),
        flags=("retracted",),
    )
    assert second.title == "Plain title"
    assert second.abstract_text() == "Cut </PubmedArticle> <b>raw</b> here."
    assert second.flags == ("truncated_source",)
    assert (third.title, third.abstract_text(), third.language) == ("Ablation of [small] tumours", "The words.", "fre")
    assert third.flags == ()
    assert (fourth.title, fourth.abstract_text()) == ("Leberkrebs heute.", "Die Worte.")
    assert (fourth.year, fourth.doi, fourth.flags) == (2011, "10.5555/list", ("not_english",))
    assert (fifth.title, fifth.pmid, fifth.version) == ("[18F]FDG in the [liver]", 900000005, 3)
    assert fifth.flags == ("no_abstract", "retracted")
    assert [type(entry) for entry in rest] == [Reject, Reject, Reject, Record, Deletion, Deletion]
    assert "neither" in rest[0].reason and "900000006" in rest[0].place
    assert "PMID" in rest[1].reason and "PMID" in rest[2].reason
    book = rest[3]
    assert (book.title, book.journal, book.year, book.doi) == ("A chapter", "A Book", 2003, "10.5555/book")
    assert rest[4:] == [Deletion(900000008, 1), Deletion(900000009, 2)]


def test_equals_whole_document_parse(write):
    data = document(*SAMPLE)
    assert list(read_pubmed(write(data))) == whole(data, "file.xml")
    # The same where the cut between blocks falls into every kind of place.
    for block_bytes in (1, 2, 3, 7, 31, 64, 97, 128, 500, 1021, 4096):
        assert list(read_pubmed(write(data), block_bytes=block_bytes)) == whole(data, "file.xml")


def test_shared_files_equal_whole_document_parse():
    files = sorted((SHARED / "xml").glob("*.xml*"))
    if not files:
        pytest.skip("the shared XML files are not here")
    counts = {Record: 0, Deletion: 0, Reject: 0}
    for path in files:
        data = path.read_bytes()
        data = gzip.decompress(data) if data.startswith(b"\x1f\x8b") else data
        entries = list(read_pubmed(path))
        assert entries == whole(data, path.name), path.name
        for entry in entries:
            counts[type(entry)] += 1
    assert counts == {Record: 779, Deletion: 26, Reject: 0}


def test_a_made_up_dump_is_read_whole_and_gated_as_its_text(tmp_path):
    shape, every = Shape(liver=0.2), range(FIRST_PMID, FIRST_PMID + 150)
    path, update = tmp_path / "pubmed99n0001.xml.gz", tmp_path / "pubmed99n0002.xml.gz"
    size = write_dump(path, every, shape)
    data = gzip.decompress(path.read_bytes())
    assert len(data) == size
    entries = whole(data, path.name)
    assert [entry.pmid for entry in entries] == list(every)
    assert list(read(path)) == entries
    gated = list(read(path, gate=True))
    assert gated == [
        entry if could_matter(f"{entry.title}\n{entry.abstract_text()}") else Skipped(entry.pmid, entry.version)
        for entry in entries
    ]
    assert 20 < sum(isinstance(entry, Record) for entry in gated) < 60
    # A revision without change of text, one with, a deletion; and the same seed gives the same bytes.
    write_update(update, Update(touched=[every[0]], rewritten=[every[1]], deleted=[every[2]]), shape)
    touched, rewritten, deleted = read(update)
    assert (touched.title, touched.abstract) == (entries[0].title, entries[0].abstract)
    assert rewritten.title != entries[1].title
    assert deleted == Deletion(every[2])
    write_dump(update, every, shape)
    assert gzip.decompress(update.read_bytes()) == data


def test_gz_is_told_by_content(write):
    data = document(simple(5), simple(6))
    plain, packed = write(data, "a.xml.gz"), write(gzip.compress(data), "b.xml")
    assert [entry.pmid for entry in read_pubmed(plain)] == [entry.pmid for entry in read_pubmed(packed)] == [5, 6]


@pytest.mark.parametrize("encoding", ["utf-16", "iso-8859-1", "utf-8-sig"])
def test_other_encodings(write, encoding):
    name = "utf-8" if encoding == "utf-8-sig" else encoding
    text = document(*SAMPLE, simple(8, "Größe")).decode().replace("utf-8", name)
    want = whole(document(*SAMPLE, simple(8, "Größe")), "file.xml")
    assert list(read_pubmed(write(text.encode(encoding)))) == want


def test_prefix_of_the_root_and_undeclared_entity(write):
    record = simple(3, "A<x:math>b</x:math>&nbsp;c")
    data = document(record).replace(b"<PubmedArticleSet>", b'<PubmedArticleSet xmlns:x="urn:x">')
    assert next(read_pubmed(write(data))).title == "Ab c"


def test_damaged_record_costs_itself_only(write):
    bad = "<PubmedArticle><MedlineCitation><PMID>4</PMID><Article></MedlineCitation></PubmedArticle>"
    broken_bytes = simple(7, "Caf@").encode().replace(b"@", b"\xe9\x00")
    data = document(simple(3), bad, simple(5), "@").replace(b"@", broken_bytes)
    first, second, third, fourth = read_pubmed(write(data))
    assert (first.pmid, third.pmid, fourth.pmid) == (3, 5, 7)
    assert isinstance(second, Reject) and "record 2" in second.place and "well-formed" in second.reason
    assert fourth.title == "Caf\ufffd\ufffd"


def test_gate_keeps_every_number_and_what_matters(write):
    title_only = article(23, "<ArticleTitle>[Not available]</ArticleTitle><VernacularTitle>Hepatoma</VernacularTitle>")
    other = article(
        24,
        "<ArticleTitle>[Of the heart].</ArticleTitle>",
        tail='<OtherAbstract Language="eng"><AbstractText>On liver metastases.</AbstractText></OtherAbstract>',
    )
    corrected = (
        "<PubmedArticle><MedlineCitation><CommentsCorrectionsList><CommentsCorrections><PMID>9</PMID>"
        "</CommentsCorrections></CommentsCorrectionsList><PMID>25</PMID>"
        "<Article><ArticleTitle>Of lungs</ArticleTitle></Article></MedlineCitation>"
        "</PubmedArticle>"
    )
    cited = simple(26, "Of bones", data="<ReferenceList><Citation>Hepatocellular carcinoma.</Citation></ReferenceList>")
    data = document(
        simple(20, "Of hearts", version="4"),
        simple(21, "Of <i>HEPATO</i>CELLULAR carcinoma"),
        simple(22, "&#72;epatoma"),
        title_only,
        other,
        corrected,
        cited,
        SAMPLE[-1],
        "<PubmedArticle/>",
    )
    path = write(data)
    entries = list(read_pubmed(path, gate=could_matter_bytes, text_gate=could_matter))
    assert entries[0] == Skipped(20, 4)
    assert entries[5:7] == [Skipped(25, 1), Skipped(26, 1)]
    assert [type(entry) for entry in entries[1:5]] == [Record] * 4
    assert [type(entry) for entry in entries[7:]] == [Deletion, Deletion, Reject]
    ungated = list(read_pubmed(path))
    assert entries[1:5] == ungated[1:5]


def test_oversized_record_is_rejected_and_reading_goes_on(write):
    big = simple(2, abstract="w " * (2 << 20))
    entries = list(read_pubmed(write(document(simple(1), big, simple(3))), max_record_bytes=1 << 20))
    assert [getattr(entry, "pmid", None) for entry in entries] == [1, None, 3]
    assert isinstance(entries[1], Reject) and "1048576 bytes" in entries[1].reason


def test_memory_does_not_follow_the_file(tmp_path):
    path = tmp_path / "big.xml.gz"
    block = "".join(simple(number, abstract="words " * 300) for number in range(1, 501)).encode()
    packed = gzip.compress(block, 1)  # a gz file may consist of many
    start, end = document().split(b"</Pubmed")
    path.write_bytes(gzip.compress(start) + packed * 100 + gzip.compress(b"</Pubmed" + end))
    code = (
        "import sys\nfrom pathlib import Path\nfrom pipeline.readers import read\n"
        "print(sum(1 for _ in read(Path(sys.argv[1]), gate=True)))\n"
        "print(*(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))"
    )
    if not Path("/proc/self/status").exists():
        pytest.skip("peak memory is read from /proc")
    run = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    count, peak_kb = map(int, run.stdout.split())
    assert count == 50_000
    assert peak_kb < 200_000  # for 110 MB of XML, which as trees would take several times that


BOMB = '<?xml version="1.0"?><!DOCTYPE PubmedArticleSet [<!ENTITY a "ha"><!ENTITY b "&a;&a;">]><PubmedArticleSet/>'


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", ["an empty file"]),
        (gzip.compress(b"", mtime=0), ["an empty file"]),
        (b"<html><body>no</body></html>", ["PubmedArticleSet", "<html>", "again"]),
        (b"<!DOCTYPE html>\n<html></html>", ["<html>"]),
        (b"%PDF-1.7 x", ["a PDF"]),
        (b'{"pmid": 1}', ["JSON"]),
        (b"just words", ["not XML"]),
        (b"<eFetchResult><ERROR>no</ERROR></eFetchResult>", ["<eFetchResult>"]),
        (BOMB, ["declarations", "remove"]),
        (BOMB.encode("utf-16"), ["declarations", "remove"]),
        (b'<?xml version="1.0" encoding="klingon"?><PubmedArticleSet/>', ["klingon", "UTF-8"]),
        (b"\x1f\x8b\x08\x00 this is no gz", ["found damage", "again"]),
    ],
)
def test_bad_files(write, data, words):
    with pytest.raises(InputError) as caught:
        list(read_pubmed(write(data)))
    assert all(word in str(caught.value) for word in ["expected", "found", "file.xml", *words])


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(InputError, match=r"found nothing"):
        list(read_pubmed(tmp_path / "none.xml"))
    with pytest.raises(InputError, match="found a folder"):
        list(read_pubmed(tmp_path))


@pytest.mark.parametrize("packed", [False, True])
def test_truncated_file_yields_what_came_before(write, packed):
    data = document(*(simple(number, abstract=f"words {number**7} " * 300) for number in range(1, 1000)))
    data = gzip.compress(data) if packed else data
    seen = []
    with pytest.raises(InputError, match="again"):
        seen.extend(iter_into(read_pubmed(write(data[: len(data) * 2 // 3])), seen))
    assert len(seen) > 100 and [entry.pmid for entry in seen] == list(range(1, len(seen) + 1))


def iter_into(entries, seen):
    for entry in entries:
        seen.append(entry)
    return []


@pytest.mark.parametrize("cut", [b"</PubmedArticleSet>", b"</PubmedArticle>", b"ticleSet>"])
def test_missing_closing_tag(write, cut):
    data = document(simple(1))
    with pytest.raises(InputError, match="closing tag"):
        list(read_pubmed(write(data[: data.rindex(cut)])))


def test_single_record_without_a_set(write):
    assert [entry.pmid for entry in read_pubmed(write(simple(4)))] == [4]
    assert list(read_pubmed(write("<PubmedArticleSet></PubmedArticleSet>"))) == []
    assert list(read_pubmed(write("<PubmedArticleSet/>"))) == []
