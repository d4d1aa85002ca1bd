"""PubMed dumps of real shape, of any size, from our own sentences.

    python benchmarks/dumps.py DIR [--records 30000] [--files 1] [--seed 1] [--update]

A dump of 30,000 records is about 320 MB of XML, as PubMed's are: indented, with structured abstracts, affiliations,
MeSH headings, chemicals, grants, corrections and lists of references. Some 1.2 % are about a liver cancer; others speak
of the liver, of cancer, or of both in passing. What a record says depends on the seed and its PMID alone, so an update
file can give a revision whose text is unchanged. No sentence is repeated word for word often enough to flatter gzip:
all are drawn from templates with several open places.
"""

import argparse
import gzip
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dump_text import Draw, Text, pick_topic, title_and_abstract
from dump_words import CHECK_TAGS, DEPARTMENTS, GIVEN, JOURNALS, MONTHS, NAMES, PLACES, QUALIFIERS, SUBSTANCES, TYPES

FIRST_PMID = 60_000_001
"""Above every PMID that PubMed has given out."""

_HEAD = (
    '<?xml version="1.0" encoding="utf-8"?>\n<!DOCTYPE PubmedArticleSet SYSTEM '
    '"http://dtd.nlm.nih.gov/ncbi/pubmed/out/pubmed_250101.dtd">\n<PubmedArticleSet>\n'
)
_FOOT = "</PubmedArticleSet>\n"


@dataclass(frozen=True)
class Shape:
    """What a dump holds: its seed, the share of records on liver cancer, and whether lists are at full length."""

    seed: int = 1
    liver: float = 0.012
    full: bool = True


@dataclass(frozen=True)
class Update:
    """An update file: PMIDs that are new, revised in text, revised without a change of text, and deleted."""

    new: Sequence[int] = ()
    rewritten: Sequence[int] = ()
    touched: Sequence[int] = ()
    deleted: Sequence[int] = field(default=())


def article(pmid: int, shape: Shape, *, text: int = 0, revision: int = 0) -> str:
    """One ``PubmedArticle``.

    Args:
        pmid: Its PMID.
        shape: What the dump holds.
        text: Another number gives another title and abstract.
        revision: Another number gives other dates, headings and references around the same text.

    Returns:
        The element, indented as in a dump.
    """
    words, around = Draw(f"{shape.seed}:{pmid}:{text}"), Draw(f"{shape.seed}:{pmid}:around:{revision}")
    topic = pick_topic(words, shape.liver)
    writer = Text(words, topic)
    recent = around.random() < 0.62
    year = around.number(2004, 2026) if recent else around.number(1966, 2004)
    language = "eng" if words.random() < 0.91 else words.of(["fre", "ger", "spa", "chi", "rus", "jpn"])
    has_abstract = words.random() < 0.84
    title, abstract = title_and_abstract(words, writer, language, has_abstract, topic)
    journal, short, country = around.of(JOURNALS)
    doi = f"10.{around.number(90000, 99999)}/made.{year}.{pmid}"
    return f"""  <PubmedArticle>
    <MedlineCitation Status="{around.of(["MEDLINE", "MEDLINE", "PubMed-not-MEDLINE"])}" Owner="NLM">
      <PMID Version="1">{pmid}</PMID>
{_date("DateCompleted", year + 1, around, 6)}{_date("DateRevised", year + 1 + revision, around, 6)}\
      <Article PubModel="{around.of(["Print", "Print-Electronic", "Electronic"])}">
        <Journal>
          <ISSN IssnType="Print">{around.number(1000, 9999)}-{around.number(1000, 9999)}</ISSN>
          <JournalIssue CitedMedium="Internet">
            <Volume>{around.number(1, 400)}</Volume>
            <Issue>{around.number(1, 13)}</Issue>
{_publication_date(around, year)}          </JournalIssue>
          <Title>{journal}</Title>
          <ISOAbbreviation>{short}.</ISOAbbreviation>
        </Journal>
        <ArticleTitle>{title}</ArticleTitle>
        <Pagination>
          <StartPage>{(page := around.number(1, 4000))}</StartPage>
          <EndPage>{page + around.number(1, 20)}</EndPage>
          <MedlinePgn>{page}-{page + 9}</MedlinePgn>
        </Pagination>
        <ELocationID EIdType="doi" ValidYN="Y">{doi}</ELocationID>
{abstract}{_authors(around, recent and shape.full)}        <Language>{language}</Language>
{_grants(around) if recent else ""}        <PublicationTypeList>
{_types(around)}        </PublicationTypeList>
{_vernacular(words, writer) if language != "eng" else ""}      </Article>
      <MedlineJournalInfo>
        <Country>{country}</Country>
        <MedlineTA>{short}</MedlineTA>
        <NlmUniqueID>{around.number(1000000, 9999999)}</NlmUniqueID>
        <ISSNLinking>{around.number(1000, 9999)}-{around.number(1000, 9999)}</ISSNLinking>
      </MedlineJournalInfo>
{_chemicals(around)}      <CitationSubset>IM</CitationSubset>
{_corrections(around)}{_mesh(around, writer.mesh)}{_keywords(around, writer, recent)}    </MedlineCitation>
    <PubmedData>
      <History>
{_history(around, year)}      </History>
      <PublicationStatus>{around.of(["ppublish", "epublish"])}</PublicationStatus>
      <ArticleIdList>
        <ArticleId IdType="pubmed">{pmid}</ArticleId>
        <ArticleId IdType="doi">{doi}</ArticleId>
      </ArticleIdList>
{_references(around, writer, recent and shape.full)}    </PubmedData>
  </PubmedArticle>
"""


def _date(tag: str, year: int, draw: Draw, indent: int) -> str:
    pad = " " * indent
    return (
        f"{pad}<{tag}>\n{pad}  <Year>{year}</Year>\n{pad}  <Month>{draw.number(1, 13):02}</Month>\n"
        f"{pad}  <Day>{draw.number(1, 29):02}</Day>\n{pad}</{tag}>\n"
    )


def _publication_date(draw: Draw, year: int) -> str:
    kind = draw.random()
    if kind < 0.1:
        inner = f"<MedlineDate>{year} {draw.of(MONTHS)}-{draw.of(MONTHS)}</MedlineDate>"
    elif kind < 0.2:
        inner = f"<Year>{year}</Year>\n              <Season>{draw.of(['Spring', 'Summer', 'Winter'])}</Season>"
    else:
        inner = f"<Year>{year}</Year>\n              <Month>{draw.of(MONTHS)}</Month>"
        if kind < 0.7:
            inner += f"\n              <Day>{draw.number(1, 29):02}</Day>"
    return f"            <PubDate>\n              {inner}\n            </PubDate>\n"


def _authors(draw: Draw, long: bool) -> str:
    out = ['        <AuthorList CompleteYN="Y">\n']
    for _ in range(draw.number(1, 12 if long else 6)):
        given = draw.of(GIVEN)
        out.append(
            f'          <Author ValidYN="Y">\n            <LastName>{draw.of(NAMES)}</LastName>\n'
            f"            <ForeName>{given} {chr(draw.number(65, 91))}</ForeName>\n"
            f"            <Initials>{given[0]}</Initials>\n"
        )
        if long and draw.random() < 0.3:
            number = f"{draw.number(1000, 9999)}-{draw.number(1000, 9999)}-{draw.number(1000, 9999)}"
            out.append(f'            <Identifier Source="ORCID">0000-{number}</Identifier>\n')
        if long and draw.random() < 0.85:
            place, country = draw.of(PLACES)
            out.append(
                f"            <AffiliationInfo>\n              <Affiliation>{draw.of(DEPARTMENTS)}, University of "
                f"{place.split(',')[0].split()[0]}, {draw.number(1, 900)} {draw.of(NAMES)} Street, {place}, {country}."
                "</Affiliation>\n            </AffiliationInfo>\n"
            )
        out.append("          </Author>\n")
    if draw.random() < 0.02:
        out.append(f'          <Author ValidYN="Y">\n            <CollectiveName>{draw.of(NAMES)} Study Group'
                   "</CollectiveName>\n          </Author>\n")  # fmt: skip
    return "".join(out) + "        </AuthorList>\n"


def _grants(draw: Draw) -> str:
    if draw.random() < 0.7:
        return ""
    grants = "".join(
        f"          <Grant>\n            <GrantID>{draw.of('RUPK')}0{draw.number(1, 9)} {draw.of('ABCDEH')}"
        f"{draw.number(10000, 999999)}</GrantID>\n            <Agency>{draw.of(NAMES)} Foundation</Agency>\n"
        f"            <Country>{draw.of(PLACES)[1]}</Country>\n          </Grant>\n"
        for _ in range(draw.number(1, 5))
    )
    return f'        <GrantList CompleteYN="Y">\n{grants}        </GrantList>\n'


def _types(draw: Draw) -> str:
    chosen = dict([TYPES[0], *(draw.of(TYPES) for _ in range(draw.number(0, 3)))])
    return "".join(f'          <PublicationType UI="{ui}">{name}</PublicationType>\n' for ui, name in chosen.items())


def _vernacular(draw: Draw, writer: Text) -> str:
    text = (
        f"{draw.of(NAMES)} {draw.of(['über', 'et la', 'sobre el', 'към', 'における'])} {draw.of(writer.words['who'])}"
    )
    return f"        <VernacularTitle>{text}.</VernacularTitle>\n"


def _chemicals(draw: Draw) -> str:
    items = "".join(
        f"        <Chemical>\n          <RegistryNumber>{draw.of(['0', 'EC 3.4.21.6', '451W47IQ8X', 'S88TT14065'])}"
        f'</RegistryNumber>\n          <NameOfSubstance UI="D{draw.number(1, 99999):06}">{draw.of(SUBSTANCES)}'
        "</NameOfSubstance>\n        </Chemical>\n"
        for _ in range(draw.number(0, 6))
    )
    return f"      <ChemicalList>\n{items}      </ChemicalList>\n" if items else ""


def _corrections(draw: Draw) -> str:
    if draw.random() < 0.9:
        return ""
    kind = draw.of(["CommentIn", "CommentOn", "ErratumIn", "UpdateOf"])
    return (
        f'      <CommentsCorrectionsList>\n        <CommentsCorrections RefType="{kind}">\n          <RefSource>'
        f"{draw.of(JOURNALS)[1]}. {draw.number(1970, 2026)};{draw.number(1, 90)}:{draw.number(1, 999)}</RefSource>\n"
        f'          <PMID Version="1">{draw.number(1000000, 39000000)}</PMID>\n        </CommentsCorrections>\n'
        "      </CommentsCorrectionsList>\n"
    )


def _mesh(draw: Draw, headings: Sequence[str]) -> str:
    chosen = [*(draw.of(headings) for _ in range(draw.number(2, 5)))]
    chosen += [draw.of(CHECK_TAGS) for _ in range(draw.number(3, 10))]
    out = []
    for name in dict.fromkeys(chosen):
        out.append(
            f'        <MeshHeading>\n          <DescriptorName UI="D{draw.number(1, 99999):06}" '
            f'MajorTopicYN="{draw.of("NNY")}">{name}</DescriptorName>\n'
        )
        if name in headings:
            out.append(
                f'          <QualifierName UI="Q{draw.number(1, 999):06}" MajorTopicYN="{draw.of("NY")}">'
                f"{draw.of(QUALIFIERS)}</QualifierName>\n"
            )
        out.append("        </MeshHeading>\n")
    return f"      <MeshHeadingList>\n{''.join(out)}      </MeshHeadingList>\n"


def _keywords(draw: Draw, writer: Text, recent: bool) -> str:
    if not recent or draw.random() < 0.3:
        return ""
    words = [draw.of(writer.words[draw.of(["what", "out", "factor", "method"])]) for _ in range(draw.number(3, 7))]
    items = "".join(f'        <Keyword MajorTopicYN="N">{word}</Keyword>\n' for word in words)
    return f'      <KeywordList Owner="NOTNLM">\n{items}      </KeywordList>\n'


def _history(draw: Draw, year: int) -> str:
    out = []
    for status in ("received", "accepted", "pubmed", "medline", "entrez")[draw.number(0, 3) :]:
        out.append(
            f'        <PubMedPubDate PubStatus="{status}">\n          <Year>{year}</Year>\n'
            f"          <Month>{draw.number(1, 13)}</Month>\n          <Day>{draw.number(1, 29)}</Day>\n"
            f"          <Hour>{draw.number(0, 24)}</Hour>\n          <Minute>0</Minute>\n        </PubMedPubDate>\n"
        )
    return "".join(out)


def _references(draw: Draw, writer: Text, long: bool) -> str:
    if not long or draw.random() < 0.45:
        return ""
    items = []
    for _ in range(draw.number(8, 50)):
        citation = (
            f"{draw.of(NAMES)} {draw.of('ABCDEJKLMNPRST')}, {draw.of(NAMES)} {draw.of('ABCDEJKLMNPRST')}. "
            f"{draw.of(writer.words['out'])} in {draw.of(writer.words['who'])} with {draw.of(writer.words['what'])}. "
            f"{draw.of(JOURNALS)[1]}. {draw.number(1970, 2026)};{draw.number(1, 300)}({draw.number(1, 13)}):"
            f"{draw.number(1, 3000)}–{draw.number(3001, 4000)}."
        )
        items.append(f"        <Reference>\n          <Citation>{citation}</Citation>\n")
        if draw.random() < 0.75:
            number = draw.number(1000000, 39000000)
            items.append(
                f'          <ArticleIdList>\n            <ArticleId IdType="doi">10.{number % 8000 + 1000}/x.{number}'
                f'</ArticleId>\n            <ArticleId IdType="pubmed">{number}</ArticleId>\n'
                "          </ArticleIdList>\n"
            )
        items.append("        </Reference>\n")
    return f"      <ReferenceList>\n{''.join(items)}      </ReferenceList>\n"


def records(pmids: Sequence[int], shape: Shape) -> Iterator[str]:
    """The articles of ``pmids``, one after another."""
    return (article(pmid, shape) for pmid in pmids)


def write_dump(path: Path, pmids: Sequence[int], shape: Shape | None = None) -> int:
    """Write a baseline file.

    Args:
        path: gz where its name says so.
        pmids: The records' PMIDs.
        shape: What the dump holds.

    Returns:
        The size of the XML in bytes.
    """
    return _write(path, records(pmids, shape or Shape()))


def write_update(path: Path, update: Update, shape: Shape | None = None, *, revision: int = 1) -> int:
    """Write an update file: new and revised records in the order of PMIDs, then the deletions.

    Args:
        path: gz where its name says so.
        update: Which PMIDs it holds.
        shape: What the baseline holds.
        revision: Counts the updates of a record.

    Returns:
        The size of the XML in bytes.
    """
    shape = shape or Shape()
    rewritten, touched = set(update.rewritten), set(update.touched)

    def parts() -> Iterator[str]:
        for pmid in sorted({*update.new, *rewritten, *touched}):
            yield article(
                pmid,
                shape,
                text=revision if pmid in rewritten else 0,
                revision=revision if pmid in rewritten | touched else 0,
            )
        if update.deleted:
            gone = "".join(f'    <PMID Version="1">{pmid}</PMID>\n' for pmid in update.deleted)
            yield f"  <DeleteCitation>\n{gone}  </DeleteCitation>\n"

    return _write(path, parts())


def _write(path: Path, parts: Iterator[str]) -> int:
    size = 0
    with gzip.open(path, "wb", compresslevel=6) if path.suffix == ".gz" else path.open("wb") as file:
        size += file.write(_HEAD.encode())
        for part in parts:
            size += file.write(part.encode())
        size += file.write(_FOOT.encode())
    return size


def main() -> None:
    """Write dumps, and an update where asked."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("folder", type=Path)
    options.add_argument("--records", type=int, default=30_000, help="per file")
    options.add_argument("--files", type=int, default=1)
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--liver", type=float, default=0.012, help="share of records on liver cancer")
    options.add_argument("--update", action="store_true", help="also an update file over all records")
    chosen = options.parse_args()
    chosen.folder.mkdir(parents=True, exist_ok=True)
    shape = Shape(seed=chosen.seed, liver=chosen.liver)
    for number in range(chosen.files):
        pmids = range(FIRST_PMID + number * chosen.records, FIRST_PMID + (number + 1) * chosen.records)
        path = chosen.folder / f"pubmed99n{number + 1:04}.xml.gz"
        print(path, write_dump(path, pmids, shape), "bytes of XML")
    if chosen.update:
        every = range(FIRST_PMID, FIRST_PMID + chosen.files * chosen.records)
        new = range(every.stop, every.stop + len(every) // 10)
        update = Update(new=new, rewritten=every[::50], touched=every[1::10], deleted=every[2::500])
        path = chosen.folder / f"pubmed99n{chosen.files + 1:04}.xml.gz"
        print(path, write_update(path, update, shape), "bytes of XML")


if __name__ == "__main__":
    main()
