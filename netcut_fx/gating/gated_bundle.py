"""A bundle of a gated network: a library for the entry and for each path, and the program that chooses."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netcut_fx.bundle import RUNTIME_FILE, Bundle, checked_manifest, write_sealed
from netcut_fx.errors import BadBundle
from netcut_fx.gating.program import Program
from netcut_fx.manifest import MANIFEST_FILE, Manifest

if TYPE_CHECKING:
    from netcut_fx.gating.compiling import CompiledGated

#: What makes a bundle one of a gated network.
GATES_FILE = "gates.json"


@dataclass(frozen=True)
class GatedBundle(Bundle):
    """A bundle of a gated network whose files have been checked.

    Parameters
    ----------
    folder, manifest
        As of any bundle.
    program : Program
        Its paths and what each costs, dispatch included.
    budget_ms : float or None
        What no input may exceed.
    fill : bool
        Whether the budget is spent on what gates would leave out, too.
    """

    program: Program
    budget_ms: float | None = None
    fill: bool = False

    @property
    def count(self) -> int:
        """Number of pieces."""
        return _count(self.program)

    def piece(self, number: int) -> tuple[Path, Path]:
        """Library and weights of a piece."""
        library, params = _names(number)
        return self.folder / library, self.folder / params


def write_gated_bundle(
    folder: Path | str,
    compiled: CompiledGated,
    manifest: Manifest,
    *,
    budget_ms: float | None = None,
    fill: bool = False,
) -> Path:
    """Write a bundle of a compiled gated network, whole or not at all.

    Parameters
    ----------
    folder : path
        Where it goes; a bundle that is there is replaced.
    compiled : CompiledGated
        With a backend that makes libraries.
    manifest : Manifest
        Its `files` are replaced by what is written here.
    budget_ms : float, optional
        What no input may exceed.
    fill : bool
        Spend the budget on what gates would leave out, too.

    Returns
    -------
    Path
        `folder`, absolute.

    Raises
    ------
    BudgetError
        If the budget is below the cheapest path.
    NetcutError
        If the disk is full or `folder` holds something else.
    """
    folder = Path(folder).absolute()
    if budget_ms is not None:
        compiled.program.paths.budget(budget_ms)
    facts = {"program": compiled.program.to_json(), "budget_ms": budget_ms, "fill": fill}

    def save(partial: Path) -> None:
        for number, module in enumerate(compiled.modules):
            scratch = partial / "scratch"
            made = module.save(scratch)
            library, params = _names(number)
            made["library"].replace(partial / library)
            made["params"].replace(partial / params)
            if not number:
                shutil.copyfile(made["runtime_library"], partial / RUNTIME_FILE)
            shutil.rmtree(scratch)
        (partial / GATES_FILE).write_text(json.dumps(facts, indent=1) + "\n")

    return write_sealed(folder, manifest, save)


def is_gated(folder: Path | str) -> bool:
    """Whether a folder holds, or should hold, a bundle of a gated network."""
    try:
        listed = json.loads((Path(folder) / MANIFEST_FILE).read_bytes())["files"]
    except (OSError, ValueError, KeyError, TypeError):
        return False  # what is wrong with it is said by whoever reads it
    return GATES_FILE in listed


def read_gated_bundle(folder: Path | str) -> GatedBundle:
    """Read a bundle and compare every file with its hash.

    Raises
    ------
    BadBundle
        Naming the file that is missing, unreadable or changed.
    """
    folder = Path(folder).absolute()
    manifest = checked_manifest(folder, (RUNTIME_FILE, GATES_FILE))
    try:
        facts: dict[str, Any] = json.loads((folder / GATES_FILE).read_bytes())
        program, budget_ms, fill = Program.from_json(facts["program"]), facts["budget_ms"], facts["fill"]
    except (ValueError, KeyError, TypeError) as error:
        raise BadBundle(f"{GATES_FILE} in the bundle {folder} cannot be understood; write the bundle again") from error
    for number in range(_count(program)):
        for name in _names(number):
            if name not in manifest.files:
                raise BadBundle(
                    f"{folder / MANIFEST_FILE} lists no file '{name}', which its gates call; write the bundle again"
                )
    return GatedBundle(folder, manifest, program, budget_ms, fill)


def _names(number: int) -> tuple[str, str]:
    return f"piece-{number:03d}.so", f"piece-{number:03d}.safetensors"


def _count(program: Program) -> int:
    return 1 + len(program.paths.widths)
