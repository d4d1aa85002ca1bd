"""The command line: parses, calls one plain function, shows what came of it. Nothing else prints or exits.

Commands import what they need when they run, so that ``hepatag --help`` answers at once.
"""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from pipeline import (
    __version__,
    cli_curate,
    cli_explain,
    cli_fetch,
    cli_library,
    cli_map,
    cli_models,
    cli_read,
    cli_runs,
    cli_status,
)
from pipeline.errors import HepatagError
from pipeline.terminal import BAD_INPUT, INTERRUPTED, errors, escaped

app = typer.Typer(
    name="hepatag",
    help="Label PubMed abstracts on interventional oncology of the liver.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    add_completion=False,
)


def main() -> None:
    """Run the command line; bad input ends in one sentence and exit code 2."""
    # MLflow's and the tokenizers' habits that a command-line user does not expect; a user's own setting wins.
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        app()
    except HepatagError as error:
        from pipeline.errors import Interrupted

        errors().print(f"[bold]hepatag:[/] {escaped(str(error))}", highlight=False, soft_wrap=True)
        sys.exit(INTERRUPTED if isinstance(error, Interrupted) else BAD_INPUT)
    except KeyboardInterrupt:
        errors().print("[bold]hepatag:[/] stopped; the same command goes on from what is done.", highlight=False)
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        # The reader of our output (head, less) has enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except OSError as error:
        place = f" at {error.filename}" if error.filename else ""
        message = f"expected to read and write files{place}, found: {error.strerror or error}; free space or permit it."
        errors().print(f"[bold]hepatag:[/] {escaped(message)}", highlight=False, soft_wrap=True)
        sys.exit(BAD_INPUT)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"hepatag {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    """Label PubMed abstracts on interventional oncology of the liver."""


FETCH = (cli_fetch.mirror, cli_fetch.fetch)
LIBRARY = (cli_library.label, cli_library.show, cli_status.status, cli_status.verify, cli_status.labels)
READ = (cli_read.query, cli_read.export, cli_read.digest, cli_map.map, cli_explain.explain)
CURATE = (cli_curate.queue, cli_curate.adopt, cli_curate.agree, cli_curate.audit)
MODELS = (
    cli_models.train,
    cli_models.pretrain,
    cli_models.distill,
    cli_models.optimize,
    cli_models.evaluate,
    cli_models.ui,
)
RUNS = (
    cli_runs.sweep,
    cli_runs.runs,
    cli_runs.compare,
    cli_runs.reproduce,
    cli_runs.sync,
    cli_runs.register,
    cli_runs.promote,
)
PANELS = (
    ("Label and keep", LIBRARY),
    ("Read and search", READ),
    ("Curate", CURATE),
    ("Train and compare", (*MODELS, *RUNS)),
    ("Fetch from PubMed", FETCH),
)
for _panel, _commands in PANELS:
    for _command in _commands:
        app.command(rich_help_panel=_panel)(_command)
app.add_typer(cli_fetch.corpus, name="corpus", rich_help_panel="Fetch from PubMed")


if __name__ == "__main__":
    main()
