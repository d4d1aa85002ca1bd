"""Write docs/cli.md and docs/config.md from the code: ``python docs/generate.py [FOLDER]``."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from pipeline.cli import PANELS, app
from pipeline.config import DistillConfig, PretrainConfig, TrainConfig

MADE = "<!-- Made by docs/generate.py from the code; do not edit. -->"
TYPES = {str: "text", Path: "path", int: "whole number", float: "number", bool: "true or false"}
VALUES = {
    "str": "TEXT",
    "list[Path]": "PATH",
    "list[str]": "TEXT",
    "int": "NUMBER",
    "int range": "NUMBER",
    "float": "NUMBER",
    "float range": "NUMBER",
}
CONFIGS = (
    (TrainConfig, "hepatag train", "configs/demo.yaml"),
    (DistillConfig, "hepatag distill", "configs/small.yaml"),
    (PretrainConfig, "hepatag pretrain", "configs/pretrain.yaml"),
)


def cli_page() -> str:
    """All commands with their arguments and options, in the order of ``hepatag --help``."""
    group: Any = typer.main.get_command(app)
    order = [function.__name__.replace("_", "-") for _, commands in PANELS for function in commands]
    names = [*(name for name in order if name in group.commands), *(one for one in group.commands if one not in order)]
    context = group.make_context("hepatag", [], resilient_parsing=True)
    lines = ["# The command line", "", MADE, "", "`hepatag COMMAND --help` prints the same.", ""]
    panel = ""
    for name in names:
        command = group.commands[name]
        found = str(getattr(command, "rich_help_panel", "") or "Other")
        if found != panel:
            panel = found
            lines += [f"## {panel}", ""]
        lines += _command(command, context, name)
    return "\n".join(lines).rstrip() + "\n"


def _command(command: Any, parent: Any, name: str) -> Iterator[str]:
    """One command; a group gives those below it."""
    context = type(parent)(command, info_name=name, parent=parent)
    if hasattr(command, "commands"):
        for below, one in command.commands.items():
            yield from _command(one, context, below)
        return
    yield f"### {context.command_path}"
    yield ""
    arguments = [_argument(one) for one in command.params if one.param_type_name == "argument"]
    yield f"`{' '.join([context.command_path, *arguments, '[OPTIONS]'])}`"
    yield ""
    yield inspect.cleandoc(command.help or "")
    yield ""
    rows = [row for one in command.params if (row := _row(one, context))]
    if rows:
        yield "| argument or option | meaning |"
        yield "|---|---|"
        yield from rows
        yield ""


def _argument(one: Any) -> str:
    name = one.metavar or one.name.upper() + ("…" if one.nargs == -1 else "")
    return name if one.required else f"[{name}]"


def _row(one: Any, context: Any) -> str:
    """A line of the table; nothing for what the help hides."""
    record = one.get_help_record(context)
    if record is None:
        return ""
    if one.param_type_name == "argument":
        name = _argument(one)
    else:
        name = re.sub(r"<(.*)>", lambda kind: VALUES.get(kind[1], kind[1].upper()), record[0])
    return f"| `{_cell(name)}` | {_cell(record[1])} |"


def config_page() -> str:
    """All keys of the config files."""
    lines = ["# Config files", "", MADE, ""]
    lines += ["A file holds what differs from the defaults; `key=value` on the command line wins.", ""]
    for kind, command, example in CONFIGS:
        lines += [f"## {command}", "", inspect.cleandoc(kind.__doc__ or ""), ""]
        if (Path(__file__).parents[1] / example).is_file():
            lines += [f"An example: `{example}`.", ""]
        known = {
            key for other, _, _ in CONFIGS if issubclass(kind, other) and kind is not other for key in _keys(other, "")
        }
        if known:
            lines += ["All keys of `hepatag train`, and these:", ""]
        lines += ["| key | values | default | meaning |", "|---|---|---|---|"]
        lines += [*(key for key in _keys(kind, "") if key not in known), ""]
    return "\n".join(lines).rstrip() + "\n"


def _keys(kind: type[BaseModel], prefix: str) -> Iterator[str]:
    for name, field in kind.model_fields.items():
        annotation = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            yield from _keys(annotation, f"{prefix}{name}.")
            continue
        default = "required" if field.is_required() else f"`{_value(field.default)}`"
        if field.default_factory:  # it depends on the machine; the meaning says how
            default = "see there"
        meaning = _cell(field.description or "")
        yield f"| `{prefix}{name}` | {_cell(_values(annotation) + _range(field))} | {default} | {meaning} |"


def _values(annotation: Any) -> str:
    """A type in words."""
    origin, inside = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return " or ".join(f"`{one}`" for one in inside)
    if origin in (UnionType, Union):
        return " or ".join("null" if one is NoneType else _values(one) for one in inside)
    if origin is tuple:
        return f"list of {_values(inside[0])}s"
    return TYPES[annotation]


def _range(field: FieldInfo) -> str:
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
    bounds = [
        f"{sign} {getattr(one, name):g}"
        for one in field.metadata
        for name, sign in signs.items()
        if getattr(one, name, None) is not None
    ]
    return f", {' and '.join(bounds)}" if bounds else ""


def _value(default: Any) -> str:
    if default is None:
        return "null"
    if default == ():
        return "[]"
    return (
        f"{default:g}" if isinstance(default, float) else str(default).lower() if default in (True, False) else default
    )


def _cell(text: str) -> str:
    """Text that stays in one cell of a table."""
    return re.sub(r"(?<!\\)\|", r"\\|", " ".join(text.split()))


def main() -> None:
    """Write both pages into the folder named, or beside this script."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
    for name, text in (("cli.md", cli_page()), ("config.md", config_page())):
        (folder / name).write_text(text, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
