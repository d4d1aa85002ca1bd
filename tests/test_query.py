"""The query language: examples, errors, and SQL that says the same as the plain filter."""

import csv
import io
import json
import re
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline import search
from pipeline.conditions import (
    Equal,
    Every,
    Holds,
    Human,
    InScope,
    Labels,
    Not,
    Phrase,
    Probability,
    Some,
    Year,
    fold,
)  # fmt: skip
from pipeline.errors import ConfigError, HepatagError, OutputError
from pipeline.query import FLAGS, MAX_CHARACTERS, MAX_DEPTH, Query, QueryError, parse
from pipeline.records import Record, Section
from pipeline.shards import Counts, LedgerEntry, Library, probability_column, write_table
from pipeline.staging import CitationWriter
from pipeline.taxonomy import load_taxonomy
from pipeline.vocabulary import MAX_WORDS, key, nearest, vocabulary

CASES = json.loads((Path(__file__).parent / "query_cases.json").read_text(encoding="utf-8"))
ROWS = CASES["rows"]
TAXONOMY = load_taxonomy()


def library_of(folder, rows, source="written.jsonl", leave_out=()):
    """A library that holds the rows, written as `hepatag label` writes one."""
    library, name = Library.open(folder, create=True), source.split(".")[0]
    writer = CitationWriter(library, name)
    for position, row in enumerate(rows):
        abstract = (Section("", row["abstract"]),) if row["abstract"] else ()
        record = Record(
            row["id"], row["title"], abstract, pmid=row["pmid"], year=row["year"], journal=row["journal"],
            doi=row.get("doi", ""), language=row.get("language", ""),
            publication_types=tuple(row.get("publication_types", ())), flags=tuple(row["flags"]),
        )  # fmt: skip
        writer.add(record, position, f"hash{position}")
    writer.finish()
    entry = LedgerEntry(name, source, "md5", (0, 1), "none", "1", Counts(), 0.1, "2026-01-01T00:00:00+00:00", ("f",))
    library.write_ledger(entry)
    lists, text = pa.list_(pa.string()), pa.string()
    fields = [
        ("id", text), ("pmid", pa.int64()), ("version", pa.int32()), ("title", text), ("year", pa.int32()),
        ("journal", text), ("doi", text), ("in_scope", pa.bool_()), *((axis.name, lists) for axis in TAXONOMY.axes),
        *((probability_column(label), pa.float32()) for label in TAXONOMY.names), ("flags", lists), ("source", text),
        ("model", text), ("labelled_by", text), ("doubtful", lists),
    ]  # fmt: skip
    schema = pa.schema([field for field in fields if field[0] not in leave_out])
    filled = [{"version": 1, "source": source, "model": "tiny@f", **row} for row in rows]
    write_table(pa.Table.from_pylist(filled, schema=schema), folder / "labels.parquet")
    return folder


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    return library_of(tmp_path_factory.mktemp("query") / "library", ROWS)


def hepatag(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "pipeline.cli", *map(str, arguments)],
        capture_output=True, text=True, encoding="utf-8", check=False,
    )  # fmt: skip


def test_there_are_enough_examples():
    assert len(CASES["cases"]) >= 40


@pytest.mark.parametrize("case", CASES["cases"], ids=lambda case: case["query"])
def test_examples(case, memory):
    query = parse(case["query"])
    assert [row["id"] for row in ROWS if query.matches(row)] == case["ids"]
    condition, parameters = search.where(query)
    found = memory.execute(f"SELECT id FROM labels WHERE {condition}", parameters).fetchall()
    assert sorted(one for (one,) in found) == sorted(case["ids"])


def test_examples_over_files(library):
    for text in ("", 'tace or "portal vein thrombosis"', "all not in_scope", "doubtful:finding"):
        expected = sorted(row["id"] for row in ROWS if parse(text).matches(row))
        assert sorted(search.run(library, parse(text), ["id"])["id"].to_pylist()) == expected


@pytest.mark.parametrize("case", CASES["errors"], ids=lambda case: case["query"])
def test_errors_show_the_place(case):
    with pytest.raises(QueryError) as caught:
        parse(case["query"])
    error = caught.value
    assert error.start == case["start"]
    message, line, marks = str(error).split("\n")
    assert "xpected" in message
    assert message.endswith(".")
    assert line == f"  {case['query']}"
    assert marks.index("^") == case["start"] + 2


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("tacee", "did you mean tace"),
        ("microwav", "microwave"),
        ("tace-tare", "did you mean tace and tare"),
        ("sorafenib", 'put it in quotes: "sorafenib"'),
        ("year>=2022", "since 2022"),
        ("12345", "pmid:123"),
        ("ir:anti_pd1", "anti_pd1 means immunotherapy:anti_pd1"),
        ("tace>=90", "write 0.9 for 90 %"),
        ("tace, tare", "join terms with and, or"),
        ("(tace", "opened at character 1"),
        ("tace)", "no bracket to close"),
        ("tace all", "at the beginning only"),
        ("foo:bar", "text, title, journal"),
    ],
)
def test_errors_say_what_to_write(text, expected):
    with pytest.raises(QueryError, match=re.escape(expected)):
        parse(text)


def test_limits_end_in_an_error_too():
    for text in ("(" * 5000 + "tace", "not " * (MAX_DEPTH + 1) + "tace", "x" * (MAX_CHARACTERS + 1)):
        with pytest.raises(QueryError):
            parse(text)
    assert parse("not " * (MAX_DEPTH - 1) + "tace").matches({"in_scope": True})


def test_a_long_query_keeps_its_place_in_sight():
    with pytest.raises(QueryError) as caught:
        parse("tace or " * 100 + "tacee or hcc")
    _, line, marks = str(caught.value).split("\n")
    assert len(line) < 120
    assert line[marks.index("^") :].startswith("tacee")


def test_a_long_query_of_many_terms_runs(library):
    text = " or ".join(f"pmid:{number}" for number in range(1, 700))
    assert search.run(library, parse(text), ["pmid"])["pmid"].to_pylist() == [101, 102, 103, 104, 105, 108]


def test_drug_names_are_read_as_classes_and_say_so():
    assert parse("nivolumab").tree == parse("anti_pd1").tree
    assert "immunotherapy:anti_pd1" in parse("Nivolumab nivolumab").notes[0]
    assert not parse("anti_pd1").notes
    assert not parse('"nivolumab"').notes


def test_no_name_is_lost():
    words = {"all", "and", "or", "not", "since", "until", "in", "human", "doubtful", "inscope", *FLAGS}
    assert not words & set(vocabulary())
    for known, name in vocabulary().items():
        assert known == key(name.shown)
        assert len(name.shown.split()) <= MAX_WORDS
        found = parse(name.shown).tree
        assert found == Labels(name.labels), name.shown
    for axis in TAXONOMY.axes:
        for label in axis.labels:
            assert parse(f"{axis.name}:{label}").tree == parse(label).tree


def test_synonyms_agree_with_the_lexicon():
    """Where the lexicon knows a synonym as terms of one axis, they are those of its label."""
    from pipeline.lexicon import mentions

    checked = 0
    for name in vocabulary().values():
        if name.kind in ("synonym", "drug"):
            axis = name.labels[0].split(":")[0]
            found = {one.concept for one in mentions(name.shown, "") if one.concept.startswith(f"{axis}:")}
            checked += bool(found)
            assert not found or name.labels[0] in found, (name.shown, found)
    assert checked > 60


def test_nearest_names():
    assert nearest("radioembolisaton")[0] == "radioembolisation"
    assert nearest("zzzzz") == []


def test_rows_may_lack_columns():
    assert not parse("tace or since 2000 or tace>=0 or doubtful or human or retracted").matches({"in_scope": True})
    assert parse("not tace").matches({"in_scope": True})
    assert not parse("").matches({})


def test_fold():
    assert fold("Y-90  (TARE)_x: TGF-β²\n") == "y 90 tare x tgf β²"
    assert fold("ΑΣ İ") == "ας i".replace("ς", "σ")


# ---- SQL against the plain filter over random trees -----------------------------------------------------------------

NAMES = st.sampled_from([*(name.shown for name in vocabulary().values()), *TAXONOMY.names])
USED = ["tace", "hcc", "ir_modality", "immunotherapy:anti_pd1", "ablation", "retrospective", "SIRT", "p(tace)"]
WORDS = st.sampled_from(
    ["portal", "vein", "thrombosis", "Embol*", "TGF-β", "heron", "of", "n=12", "radiology", "chemo*"]
)
TERMS = st.one_of(
    NAMES,
    st.sampled_from(USED[:-1]),
    st.builds(
        "{}{}{}".format, st.sampled_from(USED), st.sampled_from([">=", ">", "<=", "<", "≥", " ≤ "]),
        st.sampled_from(["0", "0.5", ".55", "0.6", "0.9", "0.95", "1"]),
    ),
    st.builds('"{}"'.format, WORDS),
    st.builds('"{} {}"'.format, WORDS, WORDS),
    st.builds('{}:"{}"'.format, st.sampled_from(["text", "title", "journal"]), WORDS),
    st.builds("{} {}".format, st.sampled_from(["since", "until", "in"]), st.integers(2018, 2025)),
    st.builds("pmid:{}".format, st.integers(101, 109)),
    st.sampled_from(["id:102", 'id:"NCT00000107"', "in_scope", "human", "doubtful", *FLAGS.values()]),
    st.builds("doubtful:{}".format, st.sampled_from([axis.name for axis in TAXONOMY.axes])),
)  # fmt: skip


@st.composite
def expressions(draw):
    """An expression with every part in brackets, and the same as (operator, parts) for a reading of our own."""
    tree = draw(
        st.recursive(
            TERMS,
            lambda inner: st.one_of(
                st.tuples(st.just("not"), inner),
                st.tuples(st.sampled_from(["and", "or", " "]), st.lists(inner, min_size=2, max_size=3)),
            ),
            max_leaves=6,
        )
    )
    return draw(st.sampled_from(["", "all "])), tree


def rendered(tree):
    if isinstance(tree, str):
        return tree
    operator, parts = tree
    if operator == "not":
        return f"NOT ({rendered(parts)})"
    return f" {operator} ".join(f"({rendered(part)})" for part in parts)


def meaning(tree, row):
    """What the expression means, by the readings of its terms and Python's own logic."""
    if isinstance(tree, str):
        return parse(f"all {tree}").matches(row)
    operator, parts = tree
    if operator == "not":
        return not meaning(parts, row)
    return (any if operator == "or" else all)(meaning(part, row) for part in parts)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(expression=expressions())
def test_sql_says_the_same_as_the_plain_filter(expression, memory):
    prefix, tree = expression
    query = parse(prefix + rendered(tree))
    plain = {row["id"] for row in ROWS if query.matches(row)}
    assert plain == {row["id"] for row in ROWS if (prefix or row["in_scope"]) and meaning(tree, row)}
    condition, parameters = search.where(query)
    assert condition.count("?") == len(parameters)
    found = memory.execute(f"SELECT id FROM labels WHERE {condition}", parameters).fetchall()
    assert {one for (one,) in found} == plain


@pytest.fixture(scope="module")
def memory(library):
    """The view `labels` as a table, so that 150 queries take a second."""
    import duckdb

    labels = search.run(library, parse("all"))
    with duckdb.connect() as connection:
        connection.register("given", labels)
        connection.execute("CREATE TABLE labels AS FROM given")
        yield connection


# Beyond these blocks the two may know letters of different editions of Unicode.
LETTERS = st.characters(min_codepoint=1, max_codepoint=0x3FF, exclude_categories=["Cn"]) | st.sampled_from(
    "²½₂‐–—’ 肝癌ﬁ"
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(LETTERS, max_size=30))
def test_folding_in_sql_is_folding_in_python(text, memory):
    found = memory.execute(f"SELECT {search._folded('t')} FROM (SELECT ? AS t)", [text]).fetchone()
    assert found == (f" {fold(text)} " if fold(text) else "  ",)


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.text(max_size=40), st.lists(st.sampled_from(
    ["tace", "and", "or", "not", "(", ")", ":", ">=", "0.9", '"', "all", "since", "2022", "p", "doubtful", "x", "pmid"]
), max_size=8).map(" ".join)))  # fmt: skip
def test_any_text_is_a_query_or_an_error_with_a_place(text):
    try:
        parse(text).matches(ROWS[0])
    except QueryError as error:
        assert 0 <= error.start <= len(text)


def test_every_condition_has_sql():
    tree = Every((
        Some((Labels(("ir_modality:tace", "immunotherapy:vaccine")), Probability(("ir_modality:tace",), "<", 0.5))),
        Not(Phrase(("title",), "x")), Year(1, 2), Equal("pmid", 1), Holds("flags"), Human(), InScope(),
    ))  # fmt: skip
    sql, parameters = search.where(Query("", tree, everything=True))
    assert sql.count("?") == len(parameters)


# ---- libraries ---------------------------------------------------------------------------------------------------


def test_columns_and_abstracts(library):
    table = search.run(library, parse("pmid:102"))
    assert {"abstract", "language", "publication_types", "labelled_by", "title"} <= set(table.column_names)
    assert table["abstract"].to_pylist() == [ROWS[1]["abstract"]]
    assert search.run(library, parse("all"), ["pmid", "id"], limit=2).to_pylist() == [
        {"pmid": 101, "id": "101"},
        {"pmid": 102, "id": "102"},
    ]


def test_values_are_bound_never_pasted(library):
    for text in ('id:"x\' OR 1=1 --"', '"x\' OR true --"', 'journal:"\'; DROP TABLE labels; --"'):
        sql, parameters = search.where(parse(text))
        assert "OR 1=1" not in sql.upper()
        assert parameters
        assert search.run(library, parse(text), ["id"]).num_rows == 0


def test_libraries_of_other_versions(tmp_path):
    folder = library_of(tmp_path / "old", ROWS, leave_out=("labelled_by", "doubtful"))
    assert search.run(folder, parse("human"), ["id"]).num_rows == 0
    assert search.run(folder, parse("not human and pmid:104"), ["id"]).num_rows == 1
    with pytest.raises(ConfigError, match="doubtful"):
        search.run(folder, parse("hcc or not (tace and doubtful:finding)"), ["id"])


def test_an_abstract_comes_from_the_newest_entry_of_its_own_input(tmp_path):
    row = {**ROWS[0], "abstract": "An older text of a heron."}
    folder = library_of(tmp_path / "twice", [row], source="a.jsonl")
    library_of(folder, [ROWS[0] | {"abstract": "Another text."}, ROWS[0]], source="b.jsonl")
    assert search.run(folder, parse("id:101"))["abstract"].to_pylist() == [ROWS[0]["abstract"]] * 2  # two rows given


def test_no_library_there(tmp_path):
    with pytest.raises(OutputError, match="library"):
        search.run(tmp_path, parse(""))
    Library.open(tmp_path / "empty", create=True)
    with pytest.raises(OutputError, match=r"labels\.parquet"):
        search.run(tmp_path / "empty", parse(""))


# ---- SQL ---------------------------------------------------------------------------------------------------------


def test_sql_over_the_views(library):
    found = search.select(library, "SELECT count(*) AS n, count(abstract) AS a FROM labels").to_pylist()
    assert found == [{"n": 8, "a": 8}]
    rows = search.select(library, "SELECT * FROM label_rows WHERE pmid = 102 AND axis = 'ir_modality'").to_pylist()
    assert [(row["label"], row["meaning"], round(row["probability"], 2)) for row in rows] == [
        ("tare", TAXONOMY.title("ir_modality:tare"), 0.9)
    ]
    given_labels = sum(len(row[axis.name]) for row in ROWS for axis in TAXONOMY.axes)
    assert search.select(library, "SELECT id FROM label_rows").num_rows == given_labels


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM read_csv('{0}')",
        "SELECT * FROM '{0}'",
        "SELECT * FROM read_text('{0}')",
        "SELECT * FROM glob('{1}/*')",
        "COPY labels TO '{1}/out.csv'",
        "EXPLAIN ANALYZE COPY labels TO '{1}/out.csv'",
        "ATTACH '{1}/out.db'",
        "SELECT * FROM query('COPY labels TO ''{1}/out.csv''')",
        "DROP TABLE labels",
        "SET enable_external_access = true",
        "INSTALL httpfs",
        "SELECT 1; SELECT 2",
        "SELECT * FROM ROWS",
        "selct",
        "",
    ],
)
def test_sql_reads_nothing_else(sql, library, tmp_path):
    file = tmp_path / "secret.csv"
    file.write_text("secret\n1\n", encoding="utf-8")
    with pytest.raises(HepatagError):
        search.select(library, sql.format(file, tmp_path))
    assert list(tmp_path.iterdir()) == [file]


# ---- the command -------------------------------------------------------------------------------------------------


def test_the_command(library):
    table = hepatag("query", library, "SIRT nivolumab")
    assert table.returncode == 0
    assert "102" in table.stdout
    assert "Yttrium-90" in table.stdout
    assert "1 paper matches." in table.stdout
    assert "nivolumab is read as immunotherapy:anti_pd1" in table.stderr
    document = json.loads(hepatag("query", library, "tace or rfa", "--json", "--limit", "2").stdout)
    assert document["count"] == 4
    assert [row["pmid"] for row in document["rows"]] == [101, 103]
    wrong = hepatag("query", library, "tacee")
    assert wrong.returncode == 2
    assert wrong.stdout == ""
    assert "did you mean tace" in wrong.stderr
    assert "\n  ^^^^^\n" in wrong.stderr


def test_csv_and_sql_of_the_command(library):
    rows = list(csv.DictReader(io.StringIO(hepatag("query", library, "tace", "--csv").stdout.removeprefix("\ufeff"))))
    assert [row["PMID"] for row in rows] == ["101", "103", "105"]
    assert rows[0]["Interventional radiology modality"] == TAXONOMY.title("ir_modality:tace")
    sql = "SELECT year, flags FROM labels WHERE pmid = 108"
    assert hepatag("query", library, sql, "--sql", "--csv").stdout.splitlines() == [
        "year,flags",
        "2021,not_english; cut_text",
    ]
    assert json.loads(hepatag("query", library, sql, "--sql", "--json").stdout)["count"] == 1
