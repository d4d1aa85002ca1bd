"""What a run of training or labelling can be told, whether it is recorded or not.

`pipeline.tracking` opens runs; whoever writes to one needs only this.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Run(Protocol):
    """One run of the store, open for writing. No method raises for what goes wrong in the store."""

    @property
    def id(self) -> str | None:
        """MLflow's run id; None when tracking is off."""

    @property
    def failures(self) -> int:
        """How many calls could not be recorded so far."""

    def log_params(self, params: Mapping[str, object]) -> None:
        """Record flat parameters. Values over MLflow's limit are shortened and passwords in URIs are masked."""

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        """Record numbers at a step. NaN and infinite values are left out: not every store can hold them."""

    def log_figure(self, figure: Figure, name: str) -> None:
        """Record a figure as ``NAME.png``.

        Without a folder in its name, since MLflow's page that compares runs shows only what lies in no folder.
        """

    def log_table(self, rows: list[dict[str, Any]], name: str) -> None:
        """Record a table as ``tables/NAME.json``, which MLflow can put side by side across runs."""

    def log_file(self, path: Path, folder: str | None = None) -> None:
        """Copy a file into the run's artifacts, passwords in the URIs of a config file masked."""

    def log_folder(self, path: Path, folder: str) -> None:
        """Copy a folder with all it holds into ``folder`` of the run's artifacts."""

    def log_model(self, folder: Path) -> None:
        """Keep a model folder with the run, in the form that MLflow registers and serves.

        Metrics that are recorded after it are also the model's.
        """

    def log_dataset(
        self, name: str, path: Path, digest: str, context: str, records: int, counts: Mapping[str, int] | None = None
    ) -> None:
        """Record which data the run used, without its content.

        ``context`` says what for (``training``, ``validation``). ``records`` and ``counts`` (records per label) stand
        in MLflow's profile of the data set, with the digest in full; the run table shows its first 8 characters.
        """

    def set_tag(self, name: str, value: str) -> None:
        """Set a tag; one that exists is replaced."""

    def set_description(self, text: str) -> None:
        """Set the description (Markdown) on top of the run's page."""


class NullRun:
    """A run that records nothing: tracking is off."""

    id: str | None = None
    failures: int = 0

    def _nothing(self, *args: Any, **kwargs: Any) -> None:
        pass

    log_params = log_metrics = log_figure = log_table = _nothing
    log_file = log_folder = log_model = log_dataset = set_tag = set_description = _nothing
