"""`genai join`: this machine takes part in trainings that another one runs."""

from typing import Annotated

import typer

from flows.cli.commands.shared import console, opened_workspace


def join(address: Annotated[str, typer.Argument(metavar="HOST:PORT", help="`runtime.rendezvous` of the run.")],
         idle_minutes: Annotated[float, typer.Option(help="End when nobody has asked for so long; 0 for never.")] = 0.0
         ) -> None:
    """Lend this machine's processors or GPUs to trainings of a run on another machine, until it is interrupted.

    The run says `runtime.hosts`, `runtime.processes` and `runtime.rendezvous`. What a stage reads comes from this
    workspace (GENAI_HOME), or from the registry and the remote of the data.
    """
    workspace = opened_workspace()
    from tasks.placement.join import join as take_part

    console.print(f"waiting for a training at {address}", highlight=False)
    take_part(address, workspace, lambda text: console.print(text, highlight=False, markup=False, soft_wrap=True),
              60 * idle_minutes or float("inf"))
