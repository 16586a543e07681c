"""The command line: the verbs of the package, ``--json`` on each, one clear line for each error."""

from __future__ import annotations

import os
import sys

try:
    import typer
except ImportError:
    sys.exit("error: the netcut command needs more than the runtime; install it with: pip install 'netcut-fx[build]'")

from netcut_fx import __version__
from netcut_fx.cli import artefacts, calibration, costs, gate, graphs, jobs, looking, tuning

# Wrong usage of any kind: typer bundles click and exports no name for it.
_USAGE_ERROR: type[Exception] = typer.BadParameter.__mro__[1]

app = typer.Typer(
    name="netcut",
    help="Trim a pretrained network until it answers before a deadline, and compile it with TVM.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("run")(jobs.run)
app.command("report")(jobs.report)
app.command("frontiers")(looking.frontiers)
app.command("cut")(graphs.cut)
app.command("opt")(graphs.opt_)
app.command("gate")(gate.gate)
app.command("passes")(graphs.passes)
app.command("estimate")(costs.estimate)
app.command("calibrate")(calibration.calibrate)
app.command("tune")(tuning.tune)
app.command("compile")(costs.compile)
app.command("bench", cls=artefacts.ListOptions)(artefacts.bench)
app.command("export")(artefacts.export)


@app.callback(invoke_without_command=True)
def _root(version: bool = typer.Option(False, "--version", help="print the version and stop")) -> None:
    if version:
        print(__version__)
        raise typer.Exit


def main() -> None:
    """Entry point of ``netcut``: exit status 2 and one line for whatever the user can mend."""
    from cost_models import CalibrationError
    from netcut_fx.errors import NetcutError

    status: object = 0
    try:
        status = app(standalone_mode=False)
    except typer.Abort:
        sys.exit(130)
    except _USAGE_ERROR as error:
        if len(sys.argv) == 1:  # without arguments the message is the help, printed already
            sys.exit(2)
        message = getattr(error, "format_message", error.__str__)()
        _fail(f"{message.rstrip('.')}; {' '.join(('netcut', *sys.argv[1:2]))} --help lists what there is")
    except (NetcutError, CalibrationError) as error:
        _fail(str(error))
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except OSError as error:
        where = f" {error.filename}" if error.filename else ""
        _fail(f"cannot read or write{where} ({error.strerror or error}); check path, permissions and free space")
    except MemoryError:
        _fail("out of memory; use smaller images, fewer of them (?limit=N), or a smaller network")
    if isinstance(status, int):
        sys.exit(status)


def _fail(message: str) -> None:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(2)
