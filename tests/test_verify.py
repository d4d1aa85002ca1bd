"""Each damage is found, and the commands that verify prints mend it."""

import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.errors import OutputError
from pipeline.judge import Judge
from pipeline.label import label
from pipeline.shards import Library, write_table
from pipeline.verify import verify
from pipeline.view import Decisions, current_labels

SAMPLE = Path(__file__).parents[1] / "data" / "sample"
DUMP, NOTES = "pubmed99n0002", "notes"


@pytest.fixture(scope="module")
def sound(predictor, tmp_path_factory):
    """The inputs, and the library they give."""
    inputs = tmp_path_factory.mktemp("inputs")
    shutil.copy(SAMPLE / f"{DUMP}.xml.gz", inputs)
    rows = [{"id": f"n-{i}", "title": f"Case {i}", "abstract": f"Ablation of liver tumour {i}."} for i in range(4)]
    lines = [json.dumps(row) for row in rows] + ["{broken"]
    (inputs / f"{NOTES}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    label([inputs], predictor, inputs.parent / f"{inputs.name}-library")
    return inputs, inputs.parent / f"{inputs.name}-library"


@pytest.fixture
def library(sound, tmp_path):
    return Path(shutil.copytree(sound[1], tmp_path / "a library"))


def mend(commands, inputs, predictor, folder):
    """Run the commands that verify printed, with the inputs' real places."""
    for command in commands:
        program, *words = shlex.split(command)
        if program == "rm":
            for word in words:
                Path(word).unlink()
        elif words[0] == "labels":
            assert words[3:5] == [predictor.name, "--format"]
            result = CliRunner().invoke(app, [predictor_folder(predictor, one) for one in words])
            assert result.exit_code == 0
        else:
            names = [word.removeprefix("FILE-OF-") for word in words[1 : words.index("--out")]]
            sources = [one for name in names for one in inputs.glob(f"{name.split('.')[0]}.*")]
            assert len(sources) == len(names)
            assert words[words.index("--out") + 1] == str(folder)
            assert words[words.index("--model") + 1] == predictor.name
            gate = words[words.index("--gate") + 1] if "--gate" in words else "auto"
            label(sources, predictor, folder, force="--force" in words, gate=gate)


def predictor_folder(predictor, word):
    return str(predictor.model.folder) if word == predictor.name else word


def shard(library, predictor, kind, name):
    folder = library / "predictions" / predictor.fingerprint if kind == "predictions" else library / kind
    return folder / f"{name}.parquet"


def truncate(path):
    path.write_bytes(path.read_bytes()[:-40])


def flip(path):
    """Change one bit in the middle of the first column: the footer stays readable."""
    data = bytearray(path.read_bytes())
    column = pq.ParquetFile(path).metadata.row_group(0).column(0)
    # The dictionary stands before the data page: counted from the latter, half the column may end in the next one.
    start = column.dictionary_page_offset if column.has_dictionary_page else column.data_page_offset
    data[start + column.total_compressed_size // 2] ^= 0x10
    path.write_bytes(bytes(data))


def drop_row(path):
    table = pq.read_table(path)
    write_table(table.slice(1), path)


def other_column(path):
    table = pq.read_table(path)
    write_table(table.rename_columns(["x", *table.column_names[1:]]), path)


def probability(value):
    def spoil(path):
        table = pq.read_table(path)
        column = table.schema.names[-1]
        values = [value, *table[column].to_pylist()[1:]]
        write_table(table.set_column(len(table.schema) - 1, column, pa.array(values, pa.float32())), path)

    return spoil


def nothing(path):
    path.write_bytes(b"")


DAMAGES = [
    ("citations", Path.unlink, "missing"),
    ("citations", nothing, "cannot be read"),
    ("citations", truncate, "cannot be read"),
    ("citations", flip, "cannot be read"),
    ("citations", drop_row, "citations, "),
    ("citations", other_column, "no column id"),
    ("others", Path.unlink, "missing"),
    ("others", truncate, "cannot be read"),
    ("predictions", Path.unlink, "missing"),
    ("predictions", truncate, "cannot be read"),
    ("predictions", flip, "cannot be read"),
    ("predictions", drop_row, "no predictions for 1 of"),
    ("predictions", probability(float("nan")), "probabilities of 1 texts are NaN"),
    ("predictions", probability(1.5), "outside 0 to 1"),
    ("predictions", probability(None), "outside 0 to 1"),
]


def test_a_sound_library_has_no_findings(library):
    found = verify(library)
    assert (found.inputs, found.findings, found.commands) == (2, [], [])
    assert found.files == 2 + 2 + 2 + 1  # citations, others, predictions, the view


@pytest.mark.parametrize("name", [DUMP, NOTES])
@pytest.mark.parametrize(("kind", "damage", "says"), DAMAGES, ids=lambda one: getattr(one, "__name__", str(one)[:12]))
def test_a_damaged_shard_is_found_and_mended(sound, library, predictor, kind, damage, says, name):
    path = shard(library, predictor, kind, name)
    damage(path)
    found = verify(library)
    assert [one for one in found.findings if one.path == str(path) and says in one.damage]
    assert all(one.remedy and "\n" not in one.damage for one in found.findings)
    mend(found.commands, sound[0], predictor, library)
    assert verify(library).findings == []
    exact = [one for one in pq.read_schema(library / "labels.parquet").names if not one.startswith("p_")]
    expected = pq.read_table(sound[1] / "labels.parquet", columns=exact)
    assert pq.read_table(library / "labels.parquet", columns=exact).equals(expected)


def test_everything_at_once(sound, library, predictor):
    nothing(shard(library, predictor, "citations", DUMP))
    truncate(shard(library, predictor, "predictions", DUMP))
    nothing(shard(library, predictor, "others", NOTES))
    nothing(library / "labels.parquet")
    (library / "ledger" / ".x.json.part").write_text("{", encoding="utf-8")
    found = verify(library)
    assert len(found.findings) == 5
    mend([one.replace("FOLDER-OF-MODEL-" + predictor.fingerprint, predictor.name) for one in found.commands],
         sound[0], predictor, library)  # fmt: skip
    assert verify(library).findings == []


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '{"name": "notes"}', "\x00" * 40, None], ids=["0", "1", "2", "3", "4", "5", "other"]
)
def test_an_unreadable_ledger_entry(sound, library, predictor, text):
    path = library / "ledger" / f"{NOTES}.json"
    path.write_text((library / "ledger" / f"{DUMP}.json").read_text() if text is None else text, encoding="utf-8")
    (finding,) = verify(library).findings
    assert finding.path == str(path)
    assert finding.damage.startswith("no entry of the ledger: ")
    with pytest.raises(OutputError, match="hepatag verify"):
        label([sound[0]], predictor, library)
    for command in ("status", "show", "labels"):
        model = ["--model", str(predictor.model.folder)] if command == "labels" else []
        result = CliRunner().invoke(app, [command, str(library), *model])
        assert result.exception is None or isinstance(result.exception, OutputError | SystemExit)
    mend(verify(library).commands, sound[0], predictor, library)
    assert verify(library).findings == []


def test_a_run_that_stopped_before_its_ledger_entry(sound, library, predictor):
    (library / "ledger" / f"{DUMP}.json").unlink()
    found = verify(library)
    assert [one.damage for one in found.findings] == [f"{DUMP} has shards and no entry in the ledger"]
    assert "finish the run" in found.findings[0].remedy
    mend(found.commands, sound[0], predictor, library)
    assert verify(library).findings == []


def test_an_orphan_may_be_removed_instead(library):
    shutil.copy(library / "citations" / f"{DUMP}.parquet", library / "citations" / "old.parquet")
    (finding,) = verify(library).findings
    assert finding.remedy.endswith(shlex.join(["rm", str(library / "citations" / "old.parquet")]))
    (library / "citations" / "old.parquet").unlink()
    assert verify(library).findings == []


def test_a_prediction_that_another_input_brought_is_missed_with_its_shard(predictor, tmp_path):
    """The second input has no predictions of its own, so losing the first's shard loses both's."""
    for name in ("a", "b"):
        text = json.dumps({"id": name, "title": "Case", "abstract": "Ablation of a liver tumour."})
        (tmp_path / f"{name}.jsonl").write_text(text, encoding="utf-8")
    out = tmp_path / "library"
    label([tmp_path / "a.jsonl", tmp_path / "b.jsonl"], predictor, out)
    shard(out, predictor, "predictions", "a").unlink()
    found = verify(out)
    assert [one.damage for one in found.findings] == [
        "missing", "no predictions for 1 of 1 texts of a", "no predictions for 1 of 1 texts of b"
    ]  # fmt: skip
    mend(found.commands, tmp_path, predictor, out)
    assert verify(out).findings == []
    assert pq.read_table(out / "labels.parquet").num_rows == 2


def test_rejects_leftovers_human_labels_and_the_view(sound, library, predictor):
    (library / "rejects" / f"{NOTES}.jsonl").unlink()
    (library / "citations" / ".x.parquet.part").write_bytes(b"")
    (library / "human").mkdir()
    (library / "human" / "20261101T000000-00000000.jsonl").write_text("{\n", encoding="utf-8")
    found = verify(library)
    damages = {Path(one.path).name: one.damage for one in found.findings}
    assert damages[f"{NOTES}.jsonl"] == "0 rejects, 1 in the ledger"
    assert damages[".x.parquet.part"] == "left over from a run that was stopped"
    assert "expected human labels" in damages["human"]
    (library / "human" / "20261101T000000-00000000.jsonl").unlink()  # as if restored
    mend(found.commands, sound[0], predictor, library)
    assert verify(library).findings == []


def test_a_lost_view_is_written_anew(library, predictor, monkeypatch):
    before = pq.read_table(library / "labels.parquet")
    (library / "labels.parquet").unlink()
    (command,) = verify(library).commands
    words = [str(predictor.model.folder) if one == "MODEL" else one for one in shlex.split(command)]
    assert CliRunner().invoke(app, words[1:]).exit_code == 0
    assert verify(library).findings == []
    assert pq.read_table(library / "labels.parquet").equals(before)


def test_a_shard_that_cannot_be_read_ends_in_one_sentence(library, predictor):
    judge = Judge.from_folder(str(predictor.model.folder))
    decisions = Decisions(judge.name, judge.fingerprint, judge.calibrate, judge.decide)
    for kind in ("predictions", "citations", "others"):
        nothing(shard(library, predictor, kind, DUMP))
        with pytest.raises(OutputError, match="hepatag verify") as caught:
            current_labels(Library.open(library, create=False), decisions)
        assert "\n" not in str(caught.value)
    with pytest.raises(OutputError, match="hepatag verify"):
        label([SAMPLE / "records.csv"], predictor, library)


def test_a_library_in_use_is_left_alone(library):
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
        with pytest.raises(OutputError, match=f"process {held.pid} on"):
            verify(library)
    finally:
        held.communicate()
    assert verify(library).findings == []


def test_the_command(library):
    result = CliRunner().invoke(app, ["verify", str(library)])
    assert result.exit_code == 0
    assert "2 inputs, 7 files read: all sound." in result.stdout
    (library / "others" / f"{DUMP}.parquet").unlink()
    result = CliRunner().invoke(app, ["verify", str(library)])
    assert result.exit_code == 1
    assert f"{DUMP}.xml.gz" in result.stdout
    result = CliRunner().invoke(app, ["verify", str(library), "--json"])
    assert result.exit_code == 1
    assert json.loads(result.stdout) == verify(library).to_dict()
