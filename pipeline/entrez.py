"""PubMed's E-utilities: searches and citations.

NCBI's rules are kept: three requests a second, ten with a key, an e-mail address where one is given. Key and address
travel in the body of a POST request, so that no address in a log or message holds them.

A search gives at most 9,999 PMIDs, its history on the server included; a larger one is split here by the date on which
PubMed took a citation up.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

from lxml import etree

from pipeline.errors import ConfigError, InputError
from pipeline.web import Client, Patience, Unusable

EUTILS = "https://eutils.ncbi.nlm.nih.gov/entrez/eutils/"
BATCH = 200
"""PMIDs of one request, as NCBI advises."""
SEARCH_LIMIT = 9_999
"""What PubMed gives of one search, whatever its size."""

_FIRST_DAY = date(1780, 1, 1)
HEAD = b'<?xml version="1.0" encoding="utf-8"?>\n' + (
    b'<!DOCTYPE PubmedArticleSet PUBLIC "-//NLM//DTD PubMedArticle, 1st January 2025//EN" '
    b'"https://dtd.nlm.nih.gov/ncbi/pubmed/out/pubmed_250101.dtd">\n<PubmedArticleSet>\n'
)
TAIL = b"</PubmedArticleSet>\n"
_OPTIONS: dict[str, Any] = {"resolve_entities": False, "no_network": True, "load_dtd": False, "huge_tree": False}


@dataclass(frozen=True)
class Search:
    """What PubMed finds: ``count`` citations by its own count, ``pmids`` in its order, ``ignored`` words of the query.

    ``requests`` says into how many searches the query was split.
    """

    count: int
    pmids: tuple[str, ...]
    ignored: tuple[str, ...] = ()
    requests: int = 1


class Entrez:
    """A client of the E-utilities.

    Args:
        url: address of the folder that holds ``esearch.fcgi`` and ``efetch.fcgi``.
        key: NCBI's API key, empty for none.
        email: address under which NCBI may complain.
        patience: when to try again.
        interval: seconds between requests; by default what NCBI allows.
        on_wait: called with a sentence before each pause.
    """

    def __init__(
        self,
        url: str = EUTILS,
        *,
        key: str = "",
        email: str = "",
        patience: Patience | None = None,
        interval: float | None = None,
        on_wait: Callable[[str], None] | None = None,
    ) -> None:
        self.url = url if url.endswith("/") else url + "/"
        self._key = key
        self._common = {"db": "pubmed", "tool": "hepatag"}
        self._common |= ({"api_key": key} if key else {}) | ({"email": email} if email else {})
        pace = interval if interval is not None else (0.105 if key else 0.34)
        self._client = Client(patience, interval=pace, on_wait=on_wait)

    @classmethod
    def from_environment(cls, url: str = EUTILS, **options: Any) -> Entrez:
        """A client with the key and address of ``NCBI_API_KEY`` and ``NCBI_EMAIL``; ``options`` as in the class."""
        key, email = (os.environ.get(name, "").strip() for name in ("NCBI_API_KEY", "NCBI_EMAIL"))
        return cls(url, key=key, email=email, **options)

    def search(self, query: str, on_part: Callable[[int, int], None] | None = None) -> Search:
        """All PMIDs that a query finds, however many.

        Args:
            query: as in PubMed's search field.
            on_part: called with PMIDs found so far and PubMed's count.

        Returns:
            The PMIDs.

        Raises:
            ConfigError: an empty query, or a key that NCBI does not take.
            InputError: more than 9,999 citations of one day, which PubMed lists to nobody.
            NetworkError: no usable answer.
        """
        if not query.strip():
            raise ConfigError("Expected a query as in PubMed's search field, found nothing; give one.")
        count, pmids, ignored = self._search(query)
        if count <= SEARCH_LIMIT:
            return Search(count, tuple(dict.fromkeys(pmids)), ignored)
        found: dict[str, None] = {}
        requests = 1
        spans = [(_FIRST_DAY, datetime.now(UTC).date() + timedelta(days=366))]
        while spans:
            first, last = spans.pop()
            size, pmids, _ = self._search(query, first, last)
            requests += 1
            if size <= SEARCH_LIMIT:
                found.update(dict.fromkeys(pmids))
                if on_part:
                    on_part(len(found), count)
            elif first == last:
                raise InputError(
                    f"Expected at most {SEARCH_LIMIT:,} citations a day, found {size:,} on {first} for this query, and "
                    "PubMed lists no more of one search; narrow the query, or use hepatag mirror for all of PubMed."
                )
            else:
                middle = first + (last - first) // 2
                spans += [(first, middle), (middle + timedelta(days=1), last)]
        return Search(count, tuple(found), ignored, requests)

    def records(self, pmids: Sequence[str]) -> bytes:
        """The citations of up to 200 PMIDs.

        Args:
            pmids: the PMIDs.

        Returns:
            A whole XML file; PMIDs that PubMed does not hold are left out of it.

        Raises:
            ConfigError: a key that NCBI does not take.
            NetworkError: no usable answer.
        """
        form = {**self._common, "retmode": "xml", "id": ",".join(pmids), "retmax": str(len(pmids))}
        return self._client.post(f"{self.url}efetch.fcgi", form, self._read_records, statuses={400})

    def _search(
        self, query: str, first: date | None = None, last: date | None = None
    ) -> tuple[int, list[str], tuple[str, ...]]:
        form = {**self._common, "term": query, "retmode": "json", "retmax": str(SEARCH_LIMIT)}
        if first and last:
            form |= {"datetype": "edat", "mindate": f"{first:%Y/%m/%d}", "maxdate": f"{last:%Y/%m/%d}"}
        return self._client.post(f"{self.url}esearch.fcgi", form, self._read_search, statuses={400})

    def _read_search(self, body: bytes) -> tuple[int, list[str], tuple[str, ...]]:
        try:
            # NCBI's error texts hold raw line breaks.
            answer = json.loads(body, strict=False)
            result = answer.get("esearchresult", {})
            if error := result.get("ERROR") or answer.get("error"):
                raise self._refusal(str(error))
            pmids = [str(int(pmid)) for pmid in result["idlist"]]
            words = result.get("errorlist", {}).get("phrasesnotfound", [])
            count = int(result["count"])
        except (ValueError, TypeError, KeyError, AttributeError):
            raise Unusable("no search result in the answer") from None
        if count and not pmids:
            raise Unusable(f"none of {count:,} PMIDs")
        return count, pmids, tuple(str(word) for word in words)

    def _read_records(self, body: bytes) -> bytes:
        if b"<PubmedArticleSet" not in body:
            error = _error_in(body)
            if "ID list is empty" in error:
                return HEAD + TAIL
            raise self._refusal(error)
        return HEAD + b"".join(serialized(element) for element in elements_of(body)) + TAIL

    def _refusal(self, words: str) -> Exception:
        """What an error that NCBI spells out in its answer means for us; never with the key in it."""
        words = " ".join(words.split())[:200]
        if self._key:
            words = words.replace(self._key, "…")
        if re.search(r"api.?key", words, re.IGNORECASE):
            return ConfigError(
                f"Expected an API key that NCBI takes in NCBI_API_KEY, found one that it refuses ({words}); correct or "
                "unset it."
            )
        return Unusable(f"an error of NCBI ({words or 'without words'})")


def pmid_of(element: etree._Element) -> str:
    """The PMID of a citation's element, empty where it has none."""
    found = element.findtext("MedlineCitation/PMID") or element.findtext("BookDocument/PMID") or ""
    return found.strip()


def elements_of(body: bytes) -> list[etree._Element]:
    """The citations of a batch, parsed without a network, a DTD or entities.

    Args:
        body: a whole XML file.

    Returns:
        The elements of articles and book chapters.

    Raises:
        Unusable: it is cut, damaged or something else.
    """
    try:
        root = etree.fromstring(body, etree.XMLParser(**_OPTIONS))
    except etree.XMLSyntaxError:
        raise Unusable("a cut or damaged batch of citations") from None
    if root.tag != "PubmedArticleSet" or b"<!ENTITY" in body:
        raise Unusable("something else than PubMed's citations")
    return [element for element in root if element.tag in ("PubmedArticle", "PubmedBookArticle")]


def serialized(element: etree._Element) -> bytes:
    """An element as a line of a UTF-8 file."""
    element.tail = None
    return etree.tostring(element, encoding="utf-8", xml_declaration=False) + b"\n"


def _error_in(body: bytes) -> str:
    try:
        return str(json.loads(body, strict=False).get("error", ""))
    except (ValueError, AttributeError):
        match = re.search(rb"<ERROR>(.*?)</ERROR>", body, re.DOTALL)
        return match[1].decode("utf-8", "replace") if match else ""
