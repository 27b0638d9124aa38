"""`genai serve`: answers over HTTP, in the form of OpenAI's API, with a page to chat and to compare."""

import logging
import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.commands.shared import console, opened_registry
from flows.services.environment import running_services
from flows.services.health import wait_for
from genai_core.errors import InputError
from genai_core.serving.limits import Limits
from tasks.store.workspace import Workspace

if TYPE_CHECKING:
    from genai_core.serving.pool import ServedModels
    from genai_core.serving.run import Look

LIMITS = "Limits"
START_SECONDS = 90.0


class Engine(StrEnum):
    AUTO = "auto"
    LLAMA_CPP = "llama.cpp"
    VLLM = "vllm"
    OWN = "own"


def serve(model: Annotated[str, typer.Argument(help="models:/NAME@ALIAS, models:/NAME/VERSION, a model directory, or a "
                                                    "GGUF file.")] = "models:/genai-quantize@champion",
          host: Annotated[str, typer.Option(help="Address to listen on. Any but loopback needs a key.")] = "127.0.0.1",
          port: Annotated[int, typer.Option(min=1, max=65535)] = 8000,
          api_key: Annotated[str, typer.Option(envvar="GENAI_API_KEY", show_default=False, show_envvar=True,
                                               help="Clients must send it. Better in the variable: other users of the "
                                                    "machine can read a command.")] = "",
          engine: Annotated[Engine, typer.Option(help="auto: vLLM where there are a GPU, its command and a model it "
                                                      "reads, else llama.cpp, else our own.")] = Engine.AUTO,
          slots: Annotated[int, typer.Option(min=1, max=256, rich_help_panel=LIMITS,
                                             help="Requests that are answered at a time; the rest waits.")
                           ] = Limits.slots,
          queue: Annotated[int, typer.Option(min=0, rich_help_panel=LIMITS,
                                             help="Requests that may wait; more are refused with 429.")] = Limits.queue,
          threads: Annotated[int | None, typer.Option(min=1, rich_help_panel=LIMITS, show_default="all cores but one",
                                                      help="Threads that an engine computes with.")] = Limits.threads,
          context: Annotated[int | None, typer.Option(min=16, rich_help_panel=LIMITS, show_default="the model's own",
                                                      help="Longest conversation in tokens.")] = Limits.context,
          max_tokens: Annotated[int | None, typer.Option(min=1, rich_help_panel=LIMITS, show_default="the context",
                                                         help="Longest answer in tokens.")] = Limits.tokens,
          timeout: Annotated[float, typer.Option(min=1, rich_help_panel=LIMITS,
                                                 help="Seconds for an answer, the wait included.")] = Limits.seconds,
          grace: Annotated[int, typer.Option(min=0, rich_help_panel=LIMITS,
                                             help="Seconds that requests under way have at the end.")
                           ] = Limits.grace_seconds) -> None:
    """Serve a model: OpenAI's API under /v1, and at / a page to chat, to compare and to choose the better answer.

    llama.cpp's server answers, on a GPU vLLM where it is installed (GENAI_VLLM names its command); our own engine does,
    slower, for what neither reads. An alias is followed: when
    another release comes into service, its model takes over without a request being lost. The models that it was made
    from may be asked for as `base`, `instruct` and `rlhf`; each starts when it is first asked.

        curl http://127.0.0.1:8000/v1/chat/completions -d '{"messages": [{"role": "user", "content": "Hello"}]}'

    Ctrl-C stops it, once the requests under way have their answers.
    """
    from genai_core.serving.pool import EnginePool
    from genai_core.serving.run import serve as run
    from genai_core.serving.server import LOOPBACK, bound_socket

    if host not in LOOPBACK and not api_key:
        raise InputError(f"--host {host}: others could ask this server, so it needs a key: set GENAI_API_KEY, or give "
                         "--api-key")
    os.environ.pop("GENAI_API_KEY", None)      # no child inherits it
    listener = bound_socket(host, port)
    console.print(f"opening {model} …", highlight=False, markup=False, soft_wrap=True)
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(message)s")
    served_models, look = _served_models(model)
    workspace = Workspace.current()

    def ready(pool: EnginePool) -> None:
        from genai_core.serving.engines.process import NAMES

        engine = pool.engines[pool.main.key]
        address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        others = ", ".join(model.aliases[0] for model in pool.models[1:])
        console.print(f"{pool.main.key} on {NAMES[engine.module]}, {engine.slots} at a time, "
                      f"{engine.context:,} tokens of context" + (f"; also {others}" if others else ""),
                      f"page {address}/, API {address}/v1{', with the key' if api_key else ''}; Ctrl-C stops it",
                      sep="\n", highlight=False, markup=False, soft_wrap=True)

    limits = Limits(slots=slots, queue=queue, threads=threads, context=context, tokens=max_tokens, seconds=timeout,
                    grace_seconds=grace)
    run(listener, served_models, limits=limits, key=api_key, host=host, folder=workspace.hidden / "serving",
        feedback=workspace.root / "feedback", look=look, ready=ready, engine=engine.value)
    console.print("stopped")


def _served_models(model: str) -> "tuple[ServedModels, Look | None]":
    """What to serve, and what to ask whether it has moved: nothing for what cannot move."""
    if not model.startswith("models:/"):
        from tasks.views.serving import served_model_of_path

        return [served_model_of_path(Path(model).expanduser())], None
    services = running_services(Workspace.current())
    if services and "MLflow" in services.get("own", ()):
        wait_for(f"{services['mlflow']}/health", START_SECONDS)      # `genai up` starts both in the same moment
    opened_registry()
    from tasks.views.serving import Watched

    watched = Watched(model)
    return watched.served_models(), watched.look if "@" in model else None
