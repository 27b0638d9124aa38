"""The command `genai`: every subcommand, and how errors are told."""

import os
import sys

import typer

from flows.cli.commands.data import data
from flows.cli.commands.families import families, generate
from flows.cli.commands.garbage import gc
from flows.cli.commands.join import join
from flows.cli.commands.label import label
from flows.cli.commands.models import chat, compare, export, lineage, models
from flows.cli.commands.notify import notify
from flows.cli.commands.publish import publish
from flows.cli.commands.release import promote, releases, reproduce, rollback
from flows.cli.commands.run import plan, run
from flows.cli.commands.samples import samples
from flows.cli.commands.serve import serve
from flows.cli.commands.services import down, status, up
from flows.cli.commands.sweep import sweep
from genai_core.errors import BudgetSpent, GateFailed, InputError, TrainingDiverged

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode="markdown",
                  pretty_exceptions_enable=False,
                  help="Train your own language model, from raw text to a quantized, registered chat model.\n\n"
                       "GENAI_HOME names the workspace for data, models, MLflow and Prefect (default: the repository).")

for panel, commands in {"Run": (run, plan, data, sweep, join),
                        "Models": (chat, label, generate, families, models, lineage, compare, samples, export,
                                   reproduce),
                        "Release": (releases, promote, rollback),
                        "Services": (serve, up, down, status, notify, publish, gc)}.items():
    for command in commands:
        app.command(rich_help_panel=panel)(command)


def main() -> None:
    """Errors that speak of the input are one line; anything else keeps its traceback."""
    try:
        app()
    except (InputError, TrainingDiverged, GateFailed, BudgetSpent) as error:
        _fail(str(error))
    except KeyboardInterrupt:
        _fail("interrupted; the same command continues from the last checkpoint", code=130)
    except BaseException as error:
        if type(error).__name__ == "TerminationSignal":      # Prefect's, for SIGTERM
            _fail("terminated; the same command continues from the last checkpoint", code=143)
        raise


def _fail(message: str, code: int = 1) -> None:
    sys.stderr.write(f"genai: {message}\n")
    sys.stderr.flush()
    os._exit(code) if code > 128 else sys.exit(code)


if __name__ == "__main__":
    main()
