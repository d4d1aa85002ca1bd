"""What the commands share: where messages go, options that several take, progress bars."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

BAD_INPUT = 2
SOME_FAILED = 1
INTERRUPTED = 130

Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]
Model = Annotated[str, typer.Option("--model", "-m", help="A folder, a model in the box, or models:/hepatag@champion.")]
Recall = Annotated[float, typer.Option(help="Recall that labels given or in doubt shall reach.")]
Precision = Annotated[float, typer.Option(help="Precision that labels beyond doubt shall reach.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of tables.")]


def errors() -> Console:
    """The console of messages: stderr, so that stdout holds results only."""
    from rich.console import Console

    return Console(stderr=True)


def escaped(text: str) -> str:
    """``text`` without the power to style or to steer: brackets of a file name are no markup, nor is an escape code."""
    from rich.markup import escape

    return escape(inert(text))


def inert(text: str) -> str:
    """Lines of text that cannot steer a terminal."""
    from pipeline.citation import printable

    return "\n".join(map(printable, text.split("\n")))


def duration(seconds: float) -> str:
    """``75.2`` → ``1 min 15 s``."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


class LabelProgress:
    """A bar for labelling: records, rate, time left; silent where stderr is no terminal."""

    def __init__(self, console: Console) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self.bar = Progress(
            TextColumn("{task.fields[what]}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(), console=console, disable=not console.is_terminal, transient=True,
        )  # fmt: skip
        self.task = self.bar.add_task("", total=None, what="", rate="")

    def __enter__(self) -> Callable[[Any], None]:
        self.bar.start()

        def report(moment: Any) -> None:
            speed = self.bar.tasks[0].speed
            self.bar.update(
                self.task, completed=moment.done, total=moment.total, what=f"{moment.source} {moment.stage}",
                rate=f"{speed:.0f}/s" if speed else "",
            )  # fmt: skip

        return report

    def __exit__(self, *rest: object) -> None:
        self.bar.stop()


class TrainProgress:
    """A bar for training: loss and rate; without a terminal one line per evaluation."""

    def __init__(self, console: Console) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self.console = console
        self.bar = Progress(
            TextColumn("step"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[state]}"),
            TimeRemainingColumn(), console=console, disable=not console.is_terminal, transient=True,
        )  # fmt: skip
        self.task = self.bar.add_task("", total=None, state="")

    def __enter__(self) -> Callable[[Any], None]:
        self.bar.start()

        def report(progress: Any) -> None:
            state = f"epoch {progress.epoch:.1f} · loss {progress.loss:.3f} · {progress.rate:.1f} texts/s"
            self.bar.update(self.task, completed=progress.step, total=progress.steps, state=state)
            if progress.scores:
                found = ", ".join(f"{name} {value:.3f}" for name, value in progress.scores.items())
                self.console.print(f"{state} · dev {found}", highlight=False)

        return report

    def __exit__(self, *rest: object) -> None:
        self.bar.stop()
