"""llama.cpp's own server of one GGUF file, in a process of its own: `python -m genai_core.serving.engines.llama_cpp`.

How it is spoken to stands in `process.py`. It imports nothing but `xllamacpp`, so that a wheel with instructions that
this processor lacks ends this process alone.
"""

import json
import os
import sys
from typing import Any


def main() -> None:
    given: dict[str, Any] = json.loads(sys.stdin.readline())
    out = os.dup(1)
    os.dup2(2, 1)      # whatever else is printed goes to the log
    try:
        answer = {"address": _serve(given)}
    except ImportError as error:
        answer = {"missing": f"xllamacpp cannot be imported ({error})"}
    except RuntimeError as error:
        answer = {"error": str(error)}
    os.write(out, json.dumps(answer).encode() + b"\n")
    os.close(out)
    while "address" in answer and os.read(0, 4096):
        pass
    os._exit(0)      # what it was writing has no reader any more


def _serve(given: dict[str, Any]) -> str:
    import xllamacpp

    global _server
    settings = xllamacpp.CommonParams()
    settings.model.path, settings.model_alias = given["path"], {given["name"]}
    settings.api_keys = [given["key"]]
    settings.n_parallel, settings.n_ctx = given["slots"], given["context"] * given["slots"]
    settings.kv_unified = settings.ctx_shift = False      # a slot takes no room from another, and forgets nothing
    settings.fit_params = False
    settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = given["threads"]
    settings.cache_ram_mib = 0      # prompts that no slot holds any more: 8 GiB by default, which looks like a leak
    settings.ui = settings.endpoint_slots = settings.endpoint_props = False
    settings.verbosity = 1
    settings.port = 0
    _server = xllamacpp.Server(settings)
    return str(_server.listening_address)


_server: Any = None
"""Lives as long as the process."""

if __name__ == "__main__":
    main()
