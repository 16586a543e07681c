"""Options that several commands share, and how they are read."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from netcut_fx.errors import SpecError

Model = Annotated[
    str, typer.Argument(help="SPEC of the network: package.module:callable?key=value, file.py:callable, or demo")
]
Weights = Annotated[Path | None, typer.Option(help="checkpoint: safetensors, or torch (read with weights_only)")]
InputSize = Annotated[str | None, typer.Option("--input-size", help="height and width of the input: 96 or 96x128")]
Granularity = Annotated[str, typer.Option(help="where cuts are looked for: block, kernel or node")]
MaxWidth = Annotated[int, typer.Option(help="how many tensors may cross a cut")]
Target = Annotated[str, typer.Option(help="native, 'llvm -mcpu=NAME' or cuda")]
Threads = Annotated[int, typer.Option(help="threads that the artefact uses")]
Trials = Annotated[int, typer.Option(help="schedules tried per kernel; 0 takes the first that our rules propose")]
Database = Annotated[Path, typer.Option(help="folder of tuning records, shared by all networks")]
Classes = Annotated[int, typer.Option(help="classes of the new head")]
Head = Annotated[str, typer.Option(help="head to put on the cut: netcut or linear")]
Pool = Annotated[
    str, typer.Option(help="how the head pools features: auto (as the network suggests), mean or class-token")
]
IgnoreName = Annotated[
    list[str] | None, typer.Option("--ignore-name", metavar="NAME", help="no cut at this frontier or node; repeatable")
]
IgnoreModule = Annotated[
    list[str] | None,
    typer.Option("--ignore-module", metavar="PATTERN", help="no cut inside these modules, as in 'layer4*'; repeatable"),
]
IgnoreOp = Annotated[
    list[str] | None,
    typer.Option("--ignore-op", metavar="KIND", help="no cut behind these operations, as in add or ReLU; repeatable"),
]
LeafModule = Annotated[
    list[str] | None,
    typer.Option(
        "--leaf-module", metavar="PATH_OR_CLASS", help="modules that stay whole when MODEL is traced; repeatable"
    ),
]
Via = Annotated[str, typer.Option(help="how MODEL is traced: auto, fx or export")]
Input = Annotated[
    list[str] | None,
    typer.Option(
        "--input",
        metavar="[NAME=]SHAPE[:TYPE]",
        help="an input other than one image, as in 1x3x224x224 or ids=1x16:int64; repeatable, in order or all by name",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="print one JSON object on standard output")]

DEFAULT_DATABASE = Path("build/tuning")
#: Height and width of the images of a network, where nothing is said.
DEFAULT_SIZE = (224, 224)


def parse_size(text: str | None) -> tuple[int, int] | None:
    """``96`` or ``96x128`` (height x width).

    Raises
    ------
    SpecError
        If it is neither.
    """
    if text is None:
        return None
    found = re.fullmatch(r"(\d+)(?:x(\d+))?", text.strip())
    if found is None or int(found[1]) == 0 or int(found[2] or 1) == 0:
        raise SpecError(f"--input-size is 96 or 96x128 (height x width), got {text!r}")
    return int(found[1]), int(found[2] or found[1])


def print_json(value: Any) -> None:
    """One JSON object on standard output."""
    json.dump(value, sys.stdout, indent=1, allow_nan=False)
    sys.stdout.write("\n")
