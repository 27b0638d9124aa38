"""What several ranks cost beside one process on the same cores: tokens a second, and bytes that a step moves.

    python -m benchmarks.ranks_speed                     five minutes; into docs/benchmarks.md

The model is that of the dial at depth 3, the tokens those of the last run of this workspace. One process has all cores,
ranks have one each. Bytes are those that the loopback device carried while steps ran.
"""

import argparse
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import psutil
import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing

from benchmarks.tables import headline, keep_and_compare, put_between_marks
from benchmarks.training import newest, pretrained, steady
from genai_core.config.dial import dial
from genai_core.config.training import PretrainConfig
from genai_core.mapping import usable_cores

ROOT = Path(__file__).parents[1]
EVERYTHING = 10**12
"""More parameters than any model here has: no rank has a part."""


def config(steps: int, optimizer: str) -> PretrainConfig:
    fields = {**dial(3)["pretrain"], "evaluations": 1, "validation_tokens": 1024, "optimizer": optimizer}
    return PretrainConfig(**{**fields, "tokens": steps * fields["batch_size"] * fields["context_length"]})


def run(rank: int, count: int, threads: int, folder: str, tokens: Path, steps: int, optimizer: str, shard_above: int
        ) -> None:
    """One rank's training; the first one writes how fast it was."""
    torch.set_num_threads(threads)
    if count > 1:
        dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=count)
    before = psutil.net_io_counters(pernic=True)["lo"].bytes_sent
    made = config(steps, optimizer)
    _, ends = pretrained(made, tokens, shard_above, Path(folder) / "checkpoints")
    moved = psutil.net_io_counters(pernic=True)["lo"].bytes_sent - before
    if rank == 0:
        (Path(folder) / "result.json").write_text(json.dumps({
            "tokens_per_second": steady(ends, made.batch_size * made.context_length), "bytes_a_step": moved / steps}))
    if count > 1:
        dist.destroy_process_group()


def measure(count: int, threads: int, tokens: Path, steps: int, optimizer: str, shard_above: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        multiprocessing.spawn(run, (count, threads, folder, tokens, steps, optimizer, shard_above), nprocs=count)
        return {"ranks": count, "threads": threads, "optimizer": optimizer, "kept": "in parts" if shard_above == 0 else
                "whole", **json.loads((Path(folder) / "result.json").read_text())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "benchmarks.md")
    options = parser.parse_args()
    tokens = newest(Path(os.environ.get("GENAI_HOME", ROOT)) / "data" / "tokenize", "genai run")
    above, cores = headline(), usable_cores()
    rows = [measure(count, threads, tokens, options.steps, optimizer, shard_above)
            for optimizer in ("adamw", "muon")
            for count, threads, shard_above in ((1, cores, EVERYTHING), (cores, 1, EVERYTHING), (cores, 1, 0))]
    lines = ["| optimizer | ranks | threads of each | model | tokens/s | of one process | moved a step |",
             "|---|---:|---:|---|---:|---:|---:|"]
    figures = {}
    for row in rows:
        alone = next(each for each in rows if each["optimizer"] == row["optimizer"] and each["ranks"] == 1)
        ratio = row["tokens_per_second"] / alone["tokens_per_second"]
        moved = f"{row['bytes_a_step'] / 1e6:,.1f} MB" if row["ranks"] > 1 else "–"
        lines.append(f"| {row['optimizer']} | {row['ranks']} | {row['threads']} | {row['kept']} | "
                     f"{row['tokens_per_second']:,.0f} | {ratio:.2f} | {moved} |")
        if row["ranks"] > 1:
            figures[f"{row['optimizer']}, {row['ranks']} ranks, {row['kept']}, of one process"] = ratio
    print("\n".join(lines))
    worse = keep_and_compare(options.output.with_suffix(".json"), "ranks", figures)
    put_between_marks(options.output, "ranks", "Ranks", "\n".join([f"{above}", "", *lines]) + "\n" + worse)


if __name__ == "__main__":
    main()
