"""Configs: defaults, overrides, sentences for slips, and the shipped files."""

import re
from pathlib import Path

import pytest
import yaml

from pipeline.config import DistillConfig, PretrainConfig, TrainConfig, differences, load_config, to_yaml
from pipeline.errors import ConfigError
from pipeline.sweep_config import SweepConfig

ROOT = Path(__file__).parents[1]
SHIPPED = sorted((ROOT / "configs").glob("*.yaml"))
LEAST = {
    "data": {"train": "train.jsonl", "dev": "dev.jsonl"},
    "model": {"base_model": "base"},
    "output": "out/model",
}


def write(folder, content=LEAST):
    path = folder / "config.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content), encoding="utf-8")
    return path


def refused(folder, content=LEAST, overrides=()):
    """The one sentence that a config is refused with."""
    with pytest.raises(ConfigError) as caught:
        load_config(TrainConfig, write(folder, content), overrides)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_path_alone_is_a_list_of_one(tmp_path):
    config = load_config(TrainConfig, write(tmp_path))
    assert config.data.train == (Path("train.jsonl"),)
    assert config.data.dev == (Path("dev.jsonl"),)


def test_unknown_key_names_the_dotted_path_and_the_known_ones(tmp_path):
    sentence = refused(tmp_path, {**LEAST, "training": {"learning_rat": 1e-4}})
    assert "unknown key “training.learning_rat”" in sentence
    assert "learning_rate" in sentence
    assert "batch_size" in sentence
    assert "base_model" not in sentence  # of another section
    sentence = refused(tmp_path, {**LEAST, "trainig": {"epochs": 3}})
    assert "“trainig”" in sentence
    assert "training, tracking, output" in sentence


def test_unknown_key_in_an_override(tmp_path):
    assert "“model.max_len”" in refused(tmp_path, overrides=["model.max_len=128"])


@pytest.mark.parametrize("raw", ["3e-5", "0.00003", "3.0e-5"])
def test_rates_in_any_notation_are_numbers(tmp_path, raw):
    # YAML 1.1 takes 3e-5, which has no point, for a text.
    config = load_config(TrainConfig, write(tmp_path), [f"training.learning_rate={raw}"])
    assert config.training.learning_rate == pytest.approx(3e-5)
    assert isinstance(config.training.learning_rate, float)


def test_rate_without_a_point_in_the_file_is_a_number(tmp_path):
    path = write(tmp_path, yaml.safe_dump(LEAST) + "training:\n  learning_rate: 6e-3\n")
    assert load_config(TrainConfig, path).training.learning_rate == pytest.approx(6e-3)


def test_the_command_line_wins_and_may_open_a_section(tmp_path):
    path = write(tmp_path, {**LEAST, "training": {"epochs": 2, "seed": 7}})
    config = load_config(
        TrainConfig,
        path,
        ["training.epochs=5", "tracking.run_name=first try", "data.train=[a.jsonl, b.jsonl]", "model.revision="],
    )
    assert (config.training.epochs, config.training.seed) == (5, 7)
    assert config.tracking.run_name == "first try"
    assert config.data.train == (Path("a.jsonl"), Path("b.jsonl"))
    assert config.model.revision is None


def test_tracking_none_switches_tracking_off(tmp_path):
    path = write(tmp_path, {**LEAST, "tracking": {"experiment": "mine"}})
    assert load_config(TrainConfig, path, ["tracking=none"]).tracking.uri == "none"
    assert load_config(TrainConfig, path, ["tracking.uri=none"]).tracking.uri == "none"
    for word in ("off", "no", "false"):
        assert load_config(TrainConfig, path, [f"tracking.uri={word}"]).tracking.uri == "none"
        assert load_config(TrainConfig, path, [f"tracking={word}"]).tracking.uri == "none"
    assert load_config(TrainConfig, path).tracking.uri.startswith("sqlite:///")


@pytest.mark.parametrize("override", ["epochs", "=3", ""])
def test_an_override_without_key_and_value(tmp_path, override):
    assert "write key=value" in refused(tmp_path, overrides=[override])


def test_an_override_below_a_plain_value(tmp_path):
    assert "a section at “output”" in refused(tmp_path, overrides=["output.folder=x"])


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["data.dev=train.jsonl"], ["train and dev must be different files", "train.jsonl"]),
        (["training.hint_dropout=1"], ["training.hint_dropout=1", "model.hints must be false"]),
        (["training.epochs=0"], ["training.epochs", "greater than 0", "found 0"]),
        (["training.batch_size=many"], ["training.batch_size", "found 'many'"]),
        (["training.loss=focal"], ["training.loss", "'bce'", "found 'focal'"]),
        (["model.max_length=4"], ["model.max_length", "16", "found 4"]),
        (["training.epochs=0", "training.seed=-1"], ["training.epochs", "(1 more)"]),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, overrides, words):
    sentence = refused(tmp_path, overrides=overrides)
    assert [word for word in words if word not in sentence] == []


def test_hints_may_be_dropped_always_where_there_are_none(tmp_path):
    overrides = ["training.hint_dropout=1", "model.hints=false"]
    assert load_config(TrainConfig, write(tmp_path), overrides).training.hint_dropout == 1


def test_a_missing_key_is_named_with_its_remedy(tmp_path):
    sentence = refused(tmp_path, {**LEAST, "model": {}})
    assert "“model.base_model” is missing" in sentence
    assert "model.base_model=…" in sentence


def test_files_that_are_no_config(tmp_path):
    with pytest.raises(ConfigError, match="found none"):
        load_config(TrainConfig, tmp_path / "absent.yaml")
    assert "found list" in refused(tmp_path, "- a\n- b\n")
    assert "found NoneType" in refused(tmp_path, "")
    assert "Expected YAML" in refused(tmp_path, "a: [b\nc: d\n")


def test_a_config_is_frozen(tmp_path):
    config = load_config(TrainConfig, write(tmp_path))
    with pytest.raises(ValueError, match="frozen"):
        config.training.epochs = 9


def test_differences_hold_what_is_off_its_default(tmp_path):
    config = load_config(
        TrainConfig, write(tmp_path), ["training.seed=3", "training.epochs=6", "data.train=[a.jsonl, b.jsonl]"]
    )
    assert differences(config) == {
        "data.train": "a.jsonl b.jsonl",
        "data.dev": "dev.jsonl",
        "model.base_model": "base",
        "training.seed": 3,
        "output": Path("out/model"),
    }


def test_the_resolved_config_reads_back_as_itself(tmp_path):
    config = load_config(TrainConfig, write(tmp_path), ["training.learning_rate=3e-5", "tracking=none"])
    again = tmp_path / "resolved.yaml"
    again.write_text(to_yaml(config), encoding="utf-8")
    assert load_config(TrainConfig, again) == config
    assert "weight_decay: 0.01" in to_yaml(config)


def test_every_default_is_described():
    for section in [TrainConfig.model_fields["training"].annotation, PretrainConfig]:
        assert [name for name, field in section.model_fields.items() if not field.description] == []


def test_there_are_shipped_configs():
    assert {"demo", "mini", "biomedbert", "biolinkbert", "longcontext", "pretrain"} <= {path.stem for path in SHIPPED}


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_shipped_config_loads_and_has_its_command_on_top(path):
    first = path.read_text(encoding="utf-8").splitlines()[0]
    command = re.search(rf"hepatag (train|distill|pretrain|sweep) configs/{path.name}", first)
    assert first.startswith("# hepatag ")
    assert command, first
    kinds = {"train": TrainConfig, "distill": DistillConfig, "pretrain": PretrainConfig, "sweep": SweepConfig}
    config = load_config(kinds[command[1]], path)
    # Only differences stand in the file: no key repeats its default.
    for name, value in differences_of_file(path):
        known = differences(config)
        assert name in known or name.split(".")[0] in known, f"{name}: {value} is the default"


def differences_of_file(path):
    for name, value in yaml.safe_load(path.read_text(encoding="utf-8")).items():
        if isinstance(value, dict):
            yield from ((f"{name}.{key}", inner) for key, inner in value.items())
        else:
            yield name, value


def test_no_config_learns_from_what_it_is_measured_on():
    held_out = {"dev.jsonl", "test.jsonl"}
    for path in SHIPPED:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
        if "space" in data:  # a sweep trains by another config
            continue
        learned = data.get("corpus") or data["data"]["train"]
        assert not held_out & {Path(one).name for one in ([learned] if isinstance(learned, str) else learned)}
