"""How `genai serve` stands under load, and how fast it answers beside `generate` of `transformers`.

    python -m benchmarks.serve_speed                     eight minutes; into docs/benchmarks.md
    python -m benchmarks.serve_speed --sizes 2M --seconds 20

The load: 32 clients for two minutes, prompts of 4 to 96 tokens, answers of 1 to 96, half of them streamed, one in ten
given up in its middle. An error is any answer but 200 and any stream that does not end; memory is that of server and
engine, after a first quarter and at the end. The speeds: new tokens a second of 1, 16 and 32 clients at a time, 64
tokens each after prompts of 16 by greedy decoding, and of `generate` with as many rows; nothing ends an answer early.
"""

import argparse
import json
import os
import random
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from http.client import HTTPConnection
from pathlib import Path
from queue import Queue

import httpx
import psutil
import torch

from benchmarks.decode_speed import VOCABULARY, of_transformers, random_model
from benchmarks.tables import headline, keep_and_compare, put_between_marks
from benchmarks.train_speed import SIZES
from genai_core.data.tokens.tokenizer import save_tokenizer, train_tokenizer
from genai_core.export.gguf import write_gguf
from genai_core.export.model_directory import save_model
from genai_core.mapping import usable_cores
from genai_core.quantization.speed import best_rate

ROOT = Path(__file__).parents[1]
CLIENTS, ABORTED = 32, 0.1
LONGEST_PROMPT, LONGEST_ANSWER = 96, 96
PROMPT, NEW = 16, 64
FIRST_ID = 300
"""Ids below are special tokens and bytes."""


@contextmanager
def server(model: Path, slots: int, threads: int) -> Iterator[tuple[str, psutil.Process]]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen([sys.executable, "-m", "flows.cli.command", "serve", str(model), "--port", str(port),
                                "--slots", str(slots), "--threads", str(threads)], cwd=ROOT, stdout=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            with suppress(httpx.HTTPError):
                if httpx.get(f"{address}/health").is_success:
                    break
            time.sleep(0.1)
        yield address, psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(60)


def memory(process: psutil.Process) -> float:
    """Mebibytes of a process and its children."""
    return sum(each.memory_info().rss for each in (process, *process.children(recursive=True))) / 2**20


class Load:
    """Clients that ask until they are told to stop."""

    def __init__(self, address: str):
        self.address = address
        self.outcomes: Counter[str] = Counter()
        self.tokens = 0
        self.stop = threading.Event()
        self._lock = threading.Lock()

    def ask_on(self, number: int) -> None:
        chance = random.Random(number)
        with httpx.Client(base_url=self.address, timeout=120) as client:
            while not self.stop.is_set():
                outcome, tokens = self._ask(client, chance)
                with self._lock:
                    self.outcomes[outcome] += 1
                    self.tokens += tokens

    def _ask(self, client: httpx.Client, chance: random.Random) -> tuple[str, int]:
        prompt = [chance.randrange(FIRST_ID, VOCABULARY) for _ in range(chance.randint(4, LONGEST_PROMPT))]
        asked = {"prompt": prompt, "max_tokens": chance.randint(1, LONGEST_ANSWER), "stream": chance.random() < 0.5}
        gives_up = chance.random() < ABORTED
        try:
            if not asked["stream"] and not gives_up:
                answer = client.post("/v1/completions", json=asked)
                return (f"status {answer.status_code}", answer.json()["usage"]["completion_tokens"]) \
                    if answer.is_success else (f"status {answer.status_code}", 0)
            with client.stream("POST", "/v1/completions", json={**asked, "stream": True}) as answer:
                if gives_up:
                    next(answer.iter_raw())
                    return "given up", 0
                text = "".join(answer.iter_text())
            counted = re.findall(r'"predicted_n":(\d+)', text)
            if answer.is_success and text.rstrip().endswith("[DONE]") and counted and '"error"' not in text:
                return "status 200", int(counted[-1])
            return "stream broke off", 0
        except httpx.HTTPError as error:
            return type(error).__name__, 0


def endure(address: str, process: psutil.Process, seconds: float) -> dict[str, float]:
    load = Load(address)
    with ThreadPoolExecutor(CLIENTS) as threads:
        for number in range(CLIENTS):
            threads.submit(load.ask_on, number)
        time.sleep(seconds / 4)
        early = memory(process)
        time.sleep(seconds * 3 / 4)
        late = memory(process)
        load.stop.set()
    outcomes = dict(load.outcomes)
    print(json.dumps(outcomes), flush=True)
    errors = sum(count for name, count in outcomes.items() if name not in ("status 200", "given up"))
    return {"answered": outcomes.get("status 200", 0), "given up": outcomes.get("given up", 0), "errors": errors,
            "tokens/s": load.tokens / seconds, "early MiB": early, "late MiB": late}


def prompts_of(clients: int) -> list[list[int]]:
    return torch.randint(FIRST_ID, VOCABULARY, (clients, PROMPT), generator=torch.Generator().manual_seed(0)).tolist()


def served_speed(address: str, clients: int) -> float:
    """Tokens a second of so many clients at a time, each with a connection of its own. By `http.client`: clients are on
    other machines as a rule, and httpx would take as long as the server here."""
    connections: Queue[HTTPConnection] = Queue()
    for _ in range(clients):
        connections.put(HTTPConnection(address.removeprefix("http://"), timeout=120))

    def ask(prompt: list[int]) -> None:
        connection = connections.get()
        body = {"prompt": prompt, "max_tokens": NEW, "temperature": 0, "logit_bias": {"0": -100, "2": -100}}
        connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
        answer = json.loads(connection.getresponse().read())
        assert answer["usage"]["completion_tokens"] == NEW
        connections.put(connection)

    with ThreadPoolExecutor(clients) as threads:
        return best_rate(lambda: list(threads.map(ask, prompts_of(clients))), clients * NEW)


def written(folder: Path, size: str) -> dict[str, Path]:
    """A model of random weights in each format: how it stands under load does not depend on what it learned."""
    directory, tokenizer, quantized = folder / size, folder / f"{size}-tokenizer", folder / f"{size}-Q8_0.gguf"
    directory.mkdir()
    tokenizer.mkdir()
    model = random_model(size)
    save_tokenizer(train_tokenizer((chr(number) * 3 for number in range(200)), VOCABULARY), tokenizer)
    save_model(model, tokenizer, directory)
    write_gguf(model, directory, quantized, "Q8_0", size)
    return {"float32": directory, "Q8_0": quantized}


def speeds_of(size: str, folder: Path, clients: list[int]) -> tuple[list[str], dict[str, float]]:
    """Rows of the table, and figures to compare with those of another day."""
    rows, figures = [], {}
    models, cores = written(folder, size), usable_cores()
    peers = {count: of_transformers(models["float32"], prompts_of(count), NEW) for count in clients}
    for name, model in models.items():
        found: dict[int, dict[int, float]] = {}
        for threads in (max(1, cores - 1), cores):
            with server(model, CLIENTS, threads) as (address, _):
                found[threads] = {count: served_speed(address, count) for count in clients}
        for count, peer in peers.items():
            served = " | ".join(f"{speeds[count]:,.0f} ({speeds[count] / peer:.2f})" for speeds in found.values())
            rows.append(f"| {size} {name} | {count} | {peer:,.0f} | {served} |")
            figures[f"{size} {name}, {count} clients, {cores} threads, to transformers"] = found[cores][count] / peer
    return rows, figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 16, 32])
    parser.add_argument("--sizes", nargs="+", choices=list(SIZES), default=["2M", "14M"])
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "benchmarks.md")
    options = parser.parse_args()
    above, cores = headline(), usable_cores()
    default = max(1, cores - 1)
    lines = [f"| parameters, weights | clients at a time | `transformers`, float32, {cores} threads | `genai serve`, "
             f"{default} (the default) | `--threads {cores}` |", "|---|---:|---:|---:|---:|"]
    figures = {}
    with tempfile.TemporaryDirectory() as folder:
        os.environ["GENAI_HOME"] = folder
        for size in options.sizes:
            rows, of_size = speeds_of(size, Path(folder), options.clients)
            print("\n".join(rows), flush=True)
            lines += rows
            figures |= of_size
        with server(Path(folder) / options.sizes[0], CLIENTS, default) as (address, process):
            found = endure(address, process, options.seconds)
    lines += ["", f"Under load for {options.seconds:.0f} s, {CLIENTS} clients, {options.sizes[0]} in float32: "
                  f"{found['answered']:,} requests answered, {found['given up']:,} given up by their clients, "
                  f"{found['errors']} errors; {found['tokens/s']:,.0f} tokens/s; {found['early MiB']:,.0f} MiB after a "
                  f"quarter of the time and {found['late MiB']:,.0f} MiB at the end.", ""]
    worse = keep_and_compare(options.output.with_suffix(".json"), "serving", figures)
    put_between_marks(options.output, "serving", "Serving",
                      "\n".join([f"{above}; tokens/s, in brackets times those of `transformers`", "", *lines]) + worse)


if __name__ == "__main__":
    main()
