"""Commands that say why: explain."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated

import typer

from pipeline.terminal import AsJson, Device, Model, errors


def explain(
    source: Annotated[Path, typer.Argument(help="A library folder, or a file of any format that hepatag reads.")],
    pmids: Annotated[
        list[str] | None, typer.Argument(help="Records to explain; without any, all of a file.", metavar="PMID…")
    ] = None,
    model: Model = "hepatag-mini",
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Show why records have their labels: the sentence without which each label is least likely.

    Each sentence is taken away in turn and the rest labelled anew, which costs about a second per record.

    Example: `hepatag explain labels 99002201`
    """
    from pipeline import answer, api

    wanted = [re.sub(r"^PMID:?\s*(?=\d)", "", word, flags=re.IGNORECASE) for word in pmids or ()]
    # First, so that a slip in a path or a PMID shows before the model loads.
    records = answer.read_records(source, wanted) if source.is_dir() else answer.read_file(source, wanted)
    labeller = api.load(model, device=device)
    results = labeller.label(records, reasons=True)
    if as_json:
        typer.echo(json.dumps(answer.to_document(results, labeller), ensure_ascii=False))
        return
    from rich.console import Console

    errors().print(f"Model {labeller.name} ({labeller.fingerprint})", highlight=False)
    answer.render_explanations(results, Console(highlight=False))
