"""The command line: the verbs of the package, ``--json`` on each, one clear line for each error."""

from __future__ import annotations

import os
import sys

import typer

from netcut_fx import __version__
from netcut_fx.cli import costs, graphs, jobs

app = typer.Typer(
    name="netcut",
    help="Trim a pretrained network until it answers before a deadline, and compile it with TVM.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("run")(jobs.run)
app.command("report")(jobs.report)
app.command("frontiers")(graphs.frontiers)
app.command("cut")(graphs.cut)
app.command("opt")(graphs.opt_)
app.command("passes")(graphs.passes)
app.command("estimate")(costs.estimate)
app.command("compile")(costs.compile)
app.command("bench")(costs.bench)


@app.callback(invoke_without_command=True)
def _root(version: bool = typer.Option(False, "--version", help="print the version and stop")) -> None:
    if version:
        print(__version__)
        raise typer.Exit


def main() -> None:
    """Entry point of ``netcut``: exit status 2 and one line for whatever the user can mend."""
    from cost_models import CalibrationError
    from netcut_fx.errors import NetcutError

    try:
        app()
    except (NetcutError, CalibrationError) as error:
        _fail(str(error))
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except MemoryError:
        _fail("out of memory; use smaller images, fewer of them (?limit=N), or a smaller network")


def _fail(message: str) -> None:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(2)
