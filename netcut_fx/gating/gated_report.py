"""The report of a gated network: its paths, which class uses what, and images that take the cheap and the dear path."""

from __future__ import annotations

import base64
import io
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image

from netcut_fx.atomic_files import atomic_write
from netcut_fx.data import Dataset
from netcut_fx.gating.gated_job import GatedResult
from netcut_fx.gating.pieces import cells_of
from netcut_fx.pictures.heat_map import heat_map
from netcut_fx.pictures.svg import inline

_STYLES = ("colours.css", "pictures.css", "page.css")
#: Images of a gallery; more would not be looked at.
_SHOWN = 24


def write_gated_report(result: GatedResult, dataset: Dataset, path: Path) -> Path:
    """Write one HTML file that needs nothing but a browser.

    Parameters
    ----------
    result : GatedResult
        Its images are the first ones of the test split.
    dataset : Dataset
        That they are of.
    path : Path
        The file.
    """
    environment = Environment(
        loader=PackageLoader("netcut_fx", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    text = environment.get_template("gated.html.j2").render(_context(result, dataset))
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, text.encode())
    return path


def class_widths(result: GatedResult, dataset: Dataset) -> tuple[list[str], NDArray[np.float64]]:
    """The classes that occur, and the mean width of each cell for each, as a share of its full width."""
    rows = dataset.splits["test"][: len(result.served.paths)]
    labels, full = dataset.labels[rows], np.array([s.widths[-1] for s in result.paths.slots])
    shares = np.array(result.paths.widths)[result.served.paths] / full
    present = np.unique(labels)
    return [dataset.classes[c] for c in present], np.array([shares[labels == c].mean(0) for c in present])


def _context(result: GatedResult, dataset: Dataset) -> dict[str, Any]:
    found = result.to_json()
    cells = [cell.cell.name for cell in cells_of(result.traced)]
    classes, shares = class_widths(result, dataset)
    used = np.flatnonzero(np.bincount(result.served.paths, minlength=len(result.paths.widths)))
    galleries = [
        (f"Images on the cheapest path that is taken (path {used[0]})", _images(result, dataset, int(used[0]))),
        (f"Images on the dearest path that is taken (path {used[-1]})", _images(result, dataset, int(used[-1]))),
    ]
    worst = f"median {found['p50_ms']:.4f}, worst {found['worst_ms']:.4f}"
    flops = 100 * found["mean_flops"] / found["static_flops"]
    folder = resources.files("netcut_fx") / "templates"
    style = "".join((folder / name).read_text(encoding="utf-8") for name in _STYLES)
    return {
        "style": Markup(style),
        "name": result.traced.name,
        "tiles": [
            ("mean", f"{found['mean_ms']:.4f} ms", worst),
            ("without gates", f"{found['static_ms']:.4f} ms", "compiled and served alike, in turn"),
            ("accuracy", f"{100 * found['accuracy']:.1f} %", f"of {found['images']} test images"),
            ("FLOPs", f"{flops:.1f} %", "of the network without gates"),
        ],
        "cells": cells,
        "paths": found["paths"],
        # Safe: every name went through the XML serialiser, which escapes it.
        "heat_map": Markup(inline(heat_map(classes, cells, shares.tolist(), "mean width of each cell by class"))),
        "galleries": galleries,
    }


def _images(result: GatedResult, dataset: Dataset, path: int) -> list[dict[str, str]]:
    rows = dataset.splits["test"][np.flatnonzero(result.served.paths == path)[:_SHOWN]]
    found: list[dict[str, str]] = []
    for row in rows:
        held = io.BytesIO()
        Image.fromarray(dataset.images[row]).save(held, "PNG")
        source = f"data:image/png;base64,{base64.b64encode(held.getvalue()).decode()}"
        found.append({"source": source, "label": dataset.classes[dataset.labels[row]]})
    return found
