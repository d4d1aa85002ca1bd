"""A model folder as MLflow serves it: the folder, a signature, an example, pinned packages and the code that runs it.

MLflow's `python_function` flavour, in the form “models from code”: nothing is pickled. What MLflow executes is three
lines that import `pipeline.served`; the package goes into the artifact, so that a server elsewhere needs no hepatag.
hepatag itself reads only the model folder inside (`pipeline.registry`) and never runs that code.
"""

from __future__ import annotations

import logging
import tempfile
import warnings
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from pipeline.shards import probability_column
from pipeline.taxonomy import load_taxonomy

MODEL_NAME = "model"
"""Name of the model within its run: ``runs:/RUN/model``."""
FOLDER_KEY = "model"
"""Key of the model folder among the artifacts of the pyfunc."""
REQUIREMENTS = (
    "duckdb", "filelock", "isal", "lxml", "mlflow", "numpy", "pandas", "pyarrow", "pydantic", "pyyaml", "safetensors",
    "scikit-learn", "scipy", "tokenizers", "torch", "transformers",
)  # fmt: skip
"""What the served model imports; pinned to the versions that are installed when the run is recorded."""
EXAMPLE = (
    {
        "title": "Chemoembolization with sorafenib for hepatocellular carcinoma: a randomized trial",
        "abstract": "We assigned 120 patients with unresectable hepatocellular carcinoma to chemoembolization with or "
        "without sorafenib. Progression came later with both.",
    },
    {
        "title": "Microwave ablation of liver metastases from colorectal cancer",
        "abstract": "Sixty patients had microwave ablation. Local recurrence was rare after two years.",
    },
)
"""Sentences of our own that show what goes in."""
_LOADER = """from mlflow.models import set_model
from pipeline.served import HepatagModel

set_model(HepatagModel())
"""


def requirements() -> list[str]:
    """The installed packages of `REQUIREMENTS`, pinned (``torch==2.13.0``)."""
    pinned = []
    for name in REQUIREMENTS:
        try:
            pinned.append(f"{name}=={version(name).split('+', 1)[0]}")  # a local build (+cpu) is in no index
        except PackageNotFoundError:  # isal, where no wheel exists
            continue
    return pinned


def write_pyfunc(folder: Path, target: Path, *, run_id: str | None = None, model_id: str | None = None) -> None:
    """Write a model folder as an MLflow model.

    Args:
        folder: the model folder.
        target: where to write; must not exist or be empty.
        run_id: the run that made the model.
        model_id: MLflow's identifier of the model.
    """
    package = Path(__file__).parent
    quiet = logging.getLogger("mlflow")
    level = quiet.level
    with tempfile.TemporaryDirectory() as scratch, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow's import warns of its own type hints
        import mlflow.pyfunc
        from mlflow.models import Model

        loader = Path(scratch) / "loader.py"
        loader.write_text(_LOADER, encoding="utf-8")
        quiet.setLevel(logging.ERROR)
        try:
            mlflow.pyfunc.save_model(
                path=str(target),
                python_model=str(loader),
                artifacts={FOLDER_KEY: str(folder.absolute())},
                code_paths=[str(package)],
                signature=_signature(),
                input_example=_example(),
                pip_requirements=requirements(),
                mlflow_model=Model(run_id=run_id, model_id=model_id),
                metadata={"scheme_version": load_taxonomy().version},
            )
        finally:
            quiet.setLevel(level)


def _example() -> Any:
    import pandas as pd

    return pd.DataFrame(list(EXAMPLE))


def _signature() -> Any:
    """Title and abstract in (a title may be missing), one row of labels and probabilities out."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema
    from mlflow.types.schema import Array

    taxonomy = load_taxonomy()
    inputs = Schema(
        [ColSpec(DataType.string, "title", required=False), ColSpec(DataType.string, "abstract", required=True)]
    )
    outputs = Schema(
        [
            ColSpec(DataType.boolean, "in_scope"),
            *(ColSpec(Array(DataType.string), axis.name) for axis in taxonomy.axes),
            ColSpec(Array(DataType.string), "doubtful"),
            *(ColSpec(DataType.double, probability_column(name)) for name in taxonomy.names),
        ]
    )
    return ModelSignature(inputs=inputs, outputs=outputs)
