"""Commands on recorded runs: sweep, runs, compare, reproduce, sync; and on registered models: register, promote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from pipeline.terminal import SOME_FAILED, AsJson, Device, TrainProgress, errors, escaped

Uri = Annotated[
    str | None,
    typer.Option(help="The MLflow store; by default that of MLFLOW_TRACKING_URI, else the one in this folder."),
]
Which = Annotated[str, typer.Argument(metavar="RUN", help="A run: its identifier, its name, or the start of one.")]
Name = Annotated[str, typer.Option(help="Name of the registered model.")]


def sweep(
    config: Annotated[Path, typer.Argument(help="A sweep's config such as configs/sweep.yaml.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="Overrides of the sweep or of its training config.", metavar="[KEY=VALUE]..."),
    ] = None,
    trials: Annotated[int | None, typer.Option(min=1, help="Trials in all.", show_default="the config's")] = None,
    device: Device = "auto",
) -> None:
    """Search for the best settings of a training config, each trial a run below one parent in MLflow.

    Writes the best settings as a config for `hepatag train`. Killed or stopped, the same command goes on; with more
    `--trials` a finished sweep goes on too. Needs the extra hepatag[sweep].

    Example: `hepatag sweep configs/sweep.yaml --trials 12 training.epochs=2`
    """
    from pipeline.sweep import sweep as search

    console = errors()
    with TrainProgress(console) as report:
        done = search(
            config,
            overrides or (),
            trials=trials,
            device=device,
            report=report,
            say=lambda line: console.print(escaped(line), highlight=False, soft_wrap=True),
        )
    given_up = sum(one.pruned for one in done.trials)
    console.print(
        f"{len(done.trials)} trials, {given_up} given up; the best is trial {done.best.number} with "
        f"{done.best.score:.3f} on dev. {done.config}: hepatag train takes it.",
        highlight=False,
        soft_wrap=True,
    )


def runs(
    experiment: Annotated[str | None, typer.Option(help="Only runs of this experiment.")] = None,
    sort: Annotated[
        str, typer.Option(help="A metric, parameter, started, minutes, name or status; -KEY turns the order.")
    ] = "started",
    where: Annotated[
        str, typer.Option("--filter", help='A part of the name, or MLflow\'s filter: metrics."dev/f1_micro" > 0.8.')
    ] = "",
    limit: Annotated[int, typer.Option(min=1, help="Rows at most.")] = 50,
    uri: Uri = None,
    as_json: AsJson = False,
) -> None:
    """List the runs of training with their scores on dev.

    Example: `hepatag runs --sort dev/f1_micro`
    """
    from rich.console import Console

    from pipeline import show_runs
    from pipeline.tracking_client import connect
    from pipeline.tracking_read import list_runs

    all_runs = list_runs(connect(uri), experiment, where)
    # Runs of labelling have none of the columns; they are shown where their experiment is asked for.
    found = show_runs.sort_runs([one for one in all_runs if experiment or not one.is_labelling], sort)
    if as_json:
        typer.echo(json.dumps([show_runs.run_row(run) for run in found[:limit]]))
        return
    if not found:
        errors().print("No run fits; hepatag train records one.", highlight=False)
        return
    console = Console()
    if not console.is_terminal:
        console = Console(width=240)  # a pipe has no edge to wrap at
    show_runs.render_runs(found[:limit], console, sort)
    if len(found) > limit:
        errors().print(f"{len(found) - limit} more; --limit shows them.", highlight=False)


def compare(
    which: Annotated[list[str], typer.Argument(metavar="RUN RUN...", help="Runs; the first is what others meet.")],
    uri: Uri = None,
    as_json: AsJson = False,
) -> None:
    """Test whether runs differ on the same dev set, and show what differs in config, data and code.

    Example: `hepatag compare 3f2a 9c41`
    """
    from rich.console import Console

    from pipeline import show_runs
    from pipeline.comparing import compare as compare_runs
    from pipeline.tracking_client import connect
    from pipeline.tracking_read import find_run

    store = connect(uri)
    found = compare_runs(store, [find_run(store, one) for one in which])
    if as_json:
        typer.echo(json.dumps([one.to_dict() for one in found]))
        return
    for one in found:
        show_runs.render_comparison(one, Console())


def reproduce(
    which: Which,
    out: Annotated[Path | None, typer.Option(help="Write the run's config here.")] = None,
    uri: Uri = None,
    as_json: AsJson = False,
) -> None:
    """Rebuild a run's config and check whether data, code and packages are still those that made it.

    Ends with code 1 where something differs.

    Example: `hepatag reproduce 3f2a --out again.yaml`
    """
    from rich.console import Console

    from pipeline import show_runs
    from pipeline.files import replacing
    from pipeline.reproduction import reproduce as rebuild
    from pipeline.tracking_client import connect
    from pipeline.tracking_read import find_run

    store = connect(uri)
    found = rebuild(store, find_run(store, which))
    if out is not None:
        with replacing(out) as partial:
            partial.write_text(found.config, encoding="utf-8")
    if as_json:
        typer.echo(json.dumps(found.to_dict()))
    else:
        show_runs.render_recipe(found, Console())
        if out is None:
            typer.echo(f"\n{found.config}", nl=False)
        else:
            errors().print(f"{escaped(str(out))}: hepatag train takes it; mind its output folder.", highlight=False)
    if not found.same:
        raise typer.Exit(SOME_FAILED)


def register(which: Which, name: Name = "hepatag", uri: Uri = None) -> None:
    """Put a run's model into MLflow's registry, as the candidate.

    Example: `hepatag register 3f2a`
    """
    from pipeline import registry
    from pipeline.tracking_client import connect
    from pipeline.tracking_read import find_run

    store = connect(uri)
    run = find_run(store, which)
    made = registry.register(store, run.id, name)
    errors().print(
        f"{escaped(str(run))} is {made}, the candidate: --model models:/{name}@{registry.CANDIDATE}.", highlight=False
    )


def promote(
    data: Annotated[
        Path | None, typer.Option("--data", "-d", help="A labelled file; by default the dev set of both runs.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Promote a candidate that is worse, too.")] = False,
    reason: Annotated[str, typer.Option(help="Why; goes with --force and is kept.")] = "",
    name: Name = "hepatag",
    uri: Uri = None,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Make the candidate the champion, unless it is worse on the same labelled records.

    Ends with code 1 where it is worse.

    Example: `hepatag promote --data test.jsonl`
    """
    from pipeline.errors import InputError
    from pipeline.promotion import promote as promote_candidate
    from pipeline.tracking_client import connect

    if force != bool(reason.strip()):
        raise InputError("Expected --force together with --reason WHY, found one of them; the registry keeps the why.")
    found = promote_candidate(connect(uri), name=name, data=data, reason=reason.strip(), device=device)
    typer.echo(json.dumps(found.to_dict()) if as_json else found.sentence)
    if not found.promoted and found.test is not None:
        raise typer.Exit(SOME_FAILED)


def sync(
    which: Annotated[str | None, typer.Argument(metavar="[RUN]", help="A run; by default all that wait.")] = None,
    uri: Uri = None,
) -> None:
    """Send what MLflow could not record while its server was away.

    Example: `hepatag sync`
    """
    from pipeline.tracking import sync as send_waiting

    console, left = errors(), 0
    done = send_waiting(uri, which)
    for one in done:
        left += one.left
        more = f", {one.left} still wait ({one.reason})" if one.left else ""
        console.print(escaped(f"{one.run_name} ({one.run_id[:8]}): {one.sent} entries sent{more}."), highlight=False)
    if not done:
        console.print("Nothing waits to be sent.", highlight=False)
    if left:
        raise typer.Exit(SOME_FAILED)
