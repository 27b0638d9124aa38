"""How fast llama.cpp answers with a GGUF file on this machine, and how much memory that takes.

    python -m genai_core.quantization.speed model.gguf --tokens 128 --threads 2

It runs in a process of its own: its memory is that of this file alone, and a library that does not know this processor
ends that process, not a stage.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from genai_core.errors import InputError

BATCHES = (1, 32)
"""Sequences that are decoded at once."""
RUNS = 3
PROMPT_TOKENS = 16
SECONDS = 600.0
LEAST_RUN_SECONDS = 0.2


def measure_speed(path: Path, tokens: int, threads: int) -> dict[str, float]:
    """`tokens_per_second` of one sequence, `tokens_per_second_32` of 32 at once, and the `peak_bytes` of memory that
    the model and its caches take. Raises InputError, with the reason, where llama.cpp cannot run here."""
    command = [sys.executable, "-m", "genai_core.quantization.speed", str(path), "--tokens", str(tokens), "--threads",
               str(threads)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False,
                              cwd=Path(__file__).parents[2])
    except subprocess.TimeoutExpired:
        raise InputError(f"llama.cpp did not answer within {SECONDS:.0f} s") from None
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or [f"exit status {done.returncode}"]
        raise InputError(f"llama.cpp does not run here ({last[0]})")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def best_rate(call: Callable[[], Any], tokens: int) -> float:
    """Tokens per second of the best of three calls after one that is not counted; short calls are repeated within."""
    call()
    best = float("inf")
    for _ in range(RUNS):
        began, calls = time.perf_counter(), 0
        while not calls or time.perf_counter() - began < LEAST_RUN_SECONDS:
            call()
            calls += 1
        best = min(best, (time.perf_counter() - began) / calls)
    return tokens / best


def _measure(path: str, tokens: int, threads: int) -> dict[str, float]:
    import xllamacpp

    found, before = {}, _peak_bytes()
    for batch in BATCHES:
        settings = xllamacpp.CommonParams()
        settings.model.path, settings.n_parallel, settings.port = path, batch, 0
        settings.n_ctx, settings.verbosity = (PROMPT_TOKENS + tokens) * batch, -1
        settings.cache_ram_mib = 0      # of prompts that no slot holds any more
        settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = threads
        server = xllamacpp.Server(settings)

        def ask(number: int, server: Any = server) -> Any:
            prompt = [(7 * number + 3 * place) % 256 for place in range(PROMPT_TOKENS)]
            return server.handle_completions({"prompt": prompt, "n_predict": tokens, "temperature": 0,
                                              "ignore_eos": True, "cache_prompt": False})

        with ThreadPoolExecutor(batch) as pool:
            rate = best_rate(partial(_all, pool, ask, batch), batch * tokens)
        found["tokens_per_second" if batch == 1 else f"tokens_per_second_{batch}"] = rate
    return found | {"peak_bytes": _peak_bytes() - before}


def _all(pool: ThreadPoolExecutor, ask: Callable[[int], Any], count: int) -> None:
    list(pool.map(ask, range(count)))


def _peak_bytes() -> int:
    """Most memory that this process has had so far."""
    status = Path("/proc/self/status")
    if status.exists():      # what getrusage says counts the process that started this one
        return int(status.read_text().split("VmHWM:")[1].split()[0]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    print(json.dumps(_measure(options.model, options.tokens, options.threads)))


if __name__ == "__main__":
    main()
