"""The model as MLflow serves it: a table of titles and abstracts in, a table of labels and probabilities out.

`mlflow models serve` and `mlflow models predict` run this; hepatag's own commands read the model folder directly.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pandas as pd
from mlflow.pyfunc import PythonModel

from pipeline.shards import probability_column
from pipeline.tracking_model import FOLDER_KEY

if TYPE_CHECKING:
    from pipeline.api import Labeller


class HepatagModel(PythonModel):
    """Labels as `hepatag label` gives them: thresholds, calibration and the rules of the scheme applied."""

    labeller: Labeller | None = None

    def load_context(self, context: Any) -> None:
        """Load the model folder among the artifacts; ``HEPATAG_DEVICE`` chooses the device (auto by default)."""
        from pipeline.api import load

        self.labeller = load(context.artifacts[FOLDER_KEY], device=os.environ.get("HEPATAG_DEVICE", "auto"))

    def predict(  # type: ignore[override]  # MLflow looks which of its two signatures this one is
        self, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Label a table.

        Args:
            model_input: a row per text, columns ``title`` (may be missing) and ``abstract``.
            params: none are known.

        Returns:
            A row per text in the same order: ``in_scope``, one list of labels per axis, ``doubtful`` (axes with an
            undecided label) and ``p_…`` per label.

        Raises:
            MlflowException: a row has neither title nor abstract; the message says which.
        """
        from mlflow.exceptions import MlflowException

        from pipeline.errors import HepatagError

        assert self.labeller is not None, "MLflow calls load_context first"
        rows = [
            {column: value for column in ("title", "abstract") if isinstance(value := row.get(column), str)}
            for row in model_input.to_dict("records")
        ]
        try:
            results = self.labeller.label(rows)
        except HepatagError as error:
            raise MlflowException.invalid_parameter_value(str(error)) from None
        return pd.DataFrame(
            [
                {
                    "in_scope": result.in_scope,
                    **{axis: list(names) for axis, names in result.labels.items()},
                    "doubtful": list(result.doubtful),
                    **{probability_column(name): float(value) for name, value in result.probabilities.items()},
                }
                for result in results
            ]
        )
