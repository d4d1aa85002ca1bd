"""Models from outside: whatever could run code, read elsewhere, or label wrongly is refused with one sentence."""

import json
import shutil
import struct
from pathlib import Path

import pytest

from pipeline.errors import ModelError
from pipeline.model import load
from pipeline.model_files import is_model_file
from pipeline.taxonomy import load_taxonomy

ROOT = Path(__file__).parents[2]
CANARY = "import pathlib; pathlib.Path('ran').write_text('')\n"


@pytest.fixture
def folder(trained, tmp_path, monkeypatch):
    """A copy of a model, to be broken; a file of the name “ran” beside it says that code of it has run."""
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copytree(trained.folder, tmp_path / "model"))


def edit(path, change):
    data = json.loads(path.read_text(encoding="utf-8"))
    change(data)
    path.write_text(json.dumps(data), encoding="utf-8")


def refused(folder, *words):
    with pytest.raises(ModelError) as caught:
        load(str(folder))
    sentence = str(caught.value)
    assert "\n" not in sentence and len(sentence) < 1000
    assert [word for word in words if word not in sentence] == []
    assert not Path("ran").exists()


def test_the_copy_is_sound(folder):
    assert load(str(folder)).name == "model"


@pytest.mark.parametrize("name", ["pytorch_model.bin", "optimizer.pt", "model.pkl", "x.pickle", "x.joblib", "tf.h5"])
def test_what_can_hold_a_pickle(folder, name):
    (folder / name).write_bytes(b"cos\nsystem\n(S'touch ran'\ntR.")
    refused(folder, name, "can hold code")


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("auto_map", {"AutoConfig": "evil.Config", "AutoTokenizer": ["evil.Tokenizer", None]}),
        ("custom_pipelines", {"x": {"impl": "evil.Pipeline"}}),
        ("quantization_config", {"quant_method": "bitsandbytes"}),
        ("attn_implementation", "somebody/kernels"),
        ("_attn_implementation", "somebody/kernels"),
    ],
)
def test_settings_that_run_other_code(folder, name, key, value):
    edit(folder / name, lambda data: data.update({key: value}))
    refused(folder, key, "runs no code")


def test_code_in_the_folder(folder):
    (folder / "modeling_evil.py").write_text(CANARY)
    refused(folder, "modeling_evil.py")


@pytest.mark.parametrize("key", ["vocab_file", "tokenizer_file"])
@pytest.mark.parametrize("value", ["/etc/passwd", "../other/tokenizer.json"])
def test_names_of_files_that_lead_elsewhere(folder, key, value):
    edit(folder / "tokenizer_config.json", lambda data: data.update({key: value}))
    refused(folder, key, value)


@pytest.mark.parametrize("name", ["adapter_config.json", "model.safetensors.index.json"])
def test_weights_that_point_at_others(folder, name):
    weights = {"weight_map": {"classifier.bias": "../../else.safetensors"}, "base_model_name_or_path": "/else"}
    (folder / name).write_text(json.dumps(weights))
    refused(folder, name)


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "hepatag.json", "vocab.txt"])
def test_links_out_of_the_folder(folder, tmp_path, name):
    if (folder / name).exists():
        (folder / name).rename(tmp_path / name)
    else:
        (tmp_path / name).write_text("x")
    (folder / name).symlink_to(tmp_path / name)
    refused(folder, name, "a link out of it")


def test_links_of_the_hub_cache_are_its_own_way(folder, tmp_path):
    blobs, snapshot = tmp_path / "hub" / "blobs", tmp_path / "hub" / "snapshots" / "abc"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for path in folder.iterdir():
        shutil.copy(path, blobs / path.name)
        (snapshot / path.name).symlink_to(Path("../../blobs") / path.name)
    assert load(str(snapshot)).name == "abc"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda card: card["thresholds"].update({"tumor_type:hcc": 1.5}), "thresholds between 0 and 1"),
        (lambda card: card["thresholds"].update({"tumor_type:hcc": 0}), "thresholds between 0 and 1"),
        (lambda card: card["thresholds"].update({"tumor_type:hcc": float("nan")}), "thresholds between 0 and 1"),
        (lambda card: card["thresholds"].popitem(), "52 labels"),
        (lambda card: card["thresholds"].update({"tumor_type:more": 0.5}), "52 labels"),
        (lambda card: card["calibration"].update({"tumor_type:hcc": [float("nan"), 0]}), "finite numbers"),
        (lambda card: card["calibration"].update({"tumor_type:hcc": [1, float("inf")]}), "finite numbers"),
        (lambda card: card["opinion_weights"].update({"tumor_type": float("nan")}), "opinion weight"),
        (lambda card: card.update(max_length=8192), "max_length of at most"),
        (lambda card: card.update(max_length=10**30), "max_length"),
        (lambda card: card.update(scheme_version=99), "scheme version"),
        (lambda card: card.update({"x" * 5000: 1}), "Extra inputs"),
    ],
)
def test_cards_that_do_not_fit(folder, change, words):
    first = load_taxonomy().names[0]

    def renamed(card):  # whatever the scheme calls its first label
        change(card)
        for table in (card["thresholds"], card["calibration"]):
            if "tumor_type:hcc" in table and "tumor_type:hcc" not in load_taxonomy().names:
                table[first] = table.pop("tumor_type:hcc")
        axis = next(iter(load_taxonomy().columns))
        if "tumor_type" in card["opinion_weights"] and "tumor_type" not in load_taxonomy().columns:
            card["opinion_weights"][axis] = card["opinion_weights"].pop("tumor_type")

    edit(folder / "hepatag.json", renamed)
    refused(folder, words)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda data: data.update(num_labels=10**9), ""),
        (lambda data: data.update(num_labels=3), "52 labels"),
        (lambda data: data["id2label"].popitem(), ""),
        (lambda data: data.update(vocab_size=10**12), "vocab_size"),
        (lambda data: data.update(vocab_size=9_000_000), ""),
        (lambda data: data.update(num_hidden_layers=10**6), "layers"),
        (lambda data: data.update(hidden_size=-1), ""),
        (lambda data: data.update(hidden_size="x"), ""),
        (lambda data: data.update(model_type="no-such"), ""),
        (lambda data: data.update(model_type=["bert"]), ""),
        (lambda data: data.clear(), ""),
    ],
)
def test_settings_that_do_not_fit(folder, change, words):
    edit(folder / "config.json", change)
    refused(folder, str(folder), words)


@pytest.mark.parametrize("content", ["[]", "[" * 100_000, "9" * 5000, '"auto_map"', ""])
def test_settings_that_are_no_settings(folder, content):
    (folder / "config.json").write_text(content)
    refused(folder, "config.json")


def weights(folder, change):
    from safetensors.numpy import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers(folder, value):
    def poison(tensors):
        tensors["classifier.bias"][0] = value

    weights(folder, poison)
    refused(folder, "finite weights")


def test_weights_of_another_type(folder):
    weights(folder, lambda tensors: tensors.update({"classifier.bias": tensors["classifier.bias"].astype("int8")}))
    refused(folder, "floating-point", "I8", "classifier.bias")


def test_weights_of_another_shape(folder):
    weights(folder, lambda tensors: tensors.update({"classifier.bias": tensors["classifier.bias"][:3]}))
    refused(folder, str(folder))


@pytest.mark.parametrize(
    "head",
    [
        struct.pack("<Q", 2**62) + b"{}",
        struct.pack("<Q", 90_000_000) + b"{}",
        struct.pack("<Q", 80)
        + b'{"classifier.bias":{"dtype":"F32","shape":[4611686018427387904],"data_offsets":[0,4]}}',
        struct.pack("<Q", 200_000) + b"[" * 200_000,
        b"",
    ],
)
def test_headers_that_lie(folder, head):
    (folder / "model.safetensors").write_bytes(head)
    refused(folder, str(folder))


@pytest.mark.parametrize("kept", [4, 100, 5000, -1000])
def test_weights_that_were_cut(folder, kept):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    refused(folder, str(folder))


def test_the_tokenizer_of_another_model(folder):
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(ROOT / "data" / "models" / "tiny-base" / name, folder / name)
    refused(folder, "another model's")


def test_a_tokenizer_with_numbers_beyond_the_weights(folder):
    def far(data):
        token = next(iter(data["model"]["vocab"]))
        last = max(data["model"]["vocab"], key=data["model"]["vocab"].get)
        assert token != last
        data["model"]["vocab"][last] = 9_000_000

    edit(folder / "tokenizer.json", far)
    refused(folder, "another model's")


@pytest.mark.parametrize(
    "content", [b"{}", b"[" * 5000, b'{"version":"1.0","model":{"type":"BPE","vocab":{},"merges":[]}}']
)
def test_a_tokenizer_that_is_none(folder, content):
    (folder / "tokenizer.json").write_bytes(content)
    refused(folder, str(folder))


@pytest.mark.parametrize("value", [float("nan"), -1.0, 2.0])
def test_held_out_records_that_are_no_probabilities(folder, value):
    from safetensors.numpy import load_file, save_file

    held = load_file(folder / "held_out.safetensors")
    held["probabilities"][0, 0] = value
    save_file(held, folder / "held_out.safetensors")
    refused(folder, "held_out.safetensors")


@pytest.mark.parametrize("name", ["../x.json", "/etc/x.json", "a/b.json", "python_model.pkl", "x.py", ".json", "x.bin"])
def test_the_registry_copies_no_such_file(name):
    assert not is_model_file(name)


def test_a_pyfunc_of_somebody_else_is_never_loaded(folder, tmp_path, monkeypatch):
    """A registered model with a pickle and code beside a model folder: nothing of it runs, and it is refused."""
    mlflow = pytest.importorskip("mlflow")
    from pipeline.errors import HepatagError
    from pipeline.registry import fetch

    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("HEPATAG_CACHE", str(tmp_path / "cache"))
    artifact = tmp_path / "store" / "model"
    shutil.copytree(folder, artifact / "artifacts" / "model")
    (artifact / "python_model.pkl").write_bytes(b"cos\nsystem\n(S'touch ran'\ntR.")
    (artifact / "MLmodel").write_text("flavors:\n  python_function:\n    loader_module: evil\n    code: code\n")
    (artifact / "code").mkdir()
    (artifact / "code" / "evil.py").write_text(CANARY)
    client = mlflow.MlflowClient(tracking_uri=uri, registry_uri=uri)
    experiment = client.create_experiment("foreign", artifact_location=(tmp_path / "store").as_uri())
    run = client.create_run(experiment)
    client.create_registered_model("foreign")
    client.create_model_version("foreign", artifact.as_uri(), run_id=run.info.run_id)
    with pytest.raises(HepatagError, match="without digest"):
        fetch("models:/foreign/1", uri)
    assert not Path("ran").exists() and not (tmp_path / "cache").exists()
