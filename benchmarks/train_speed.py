"""How fast and how well a language model trains on this machine, beside the Trainer of `transformers` at its best.

    make bench-train              three sizes, about an hour; the table goes to docs/benchmarks.md
    python -m benchmarks.train_speed --sizes 2M --minutes 4

Both sides train the same Qwen3 parameters on the same token files (those of the last finished run of this workspace),
16 windows of 256 tokens a step, compiled, in bfloat16 where the hardware multiplies it, with the same settings of the
allocator, each in a process of its own, one after the other. The peer has fused AdamW, a warmup and a cosine, the
faster of the attentions `sdpa` and `eager`, and the best of four learning rates, tried on the validation text for a
quarter of the time; then it trains for the whole time. Ours trains with Muon at 0.015 and AdamW at 8e-3 for a width of
192, warmup, constant, decay, for several shares of that time. The time in which it reaches the peer's validation loss
is interpolated between these. Speeds are the better of two short runs a side, which take turns; compiled kernels are
cached by the first, and the seconds of a run are those from its first step to its last.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from benchmarks.tables import headline, keep_and_compare, put_between_marks
from benchmarks.training import mean_bits_per_byte, newest, pretrained, steady
from genai_core.config.training import PretrainConfig
from genai_core.data.tokens.batches import random_windows
from genai_core.data.tokens.token_files import read_tokens
from genai_core.data.tokens.tokenizer import load_tokenizer
from genai_core.hardware import choose_precision, matrix_flops_per_second, prepare
from genai_core.models.transformer import Transformer, transformer_config

ROOT = Path(__file__).parents[1]
CPU = torch.device("cpu")
BATCH, LENGTH = 16, 256
SIZES: dict[str, dict[str, int]] = {
    "2M": {"layers": 3, "hidden_size": 192, "heads": 3, "key_value_heads": 1, "feed_forward_size": 512},
    "6M": {"layers": 6, "hidden_size": 256, "heads": 4, "key_value_heads": 2, "feed_forward_size": 768},
    "14M": {"layers": 8, "hidden_size": 384, "heads": 6, "key_value_heads": 3, "feed_forward_size": 1024},
}
PEER_RATES = (5e-4, 1e-3, 2e-3, 4e-3)
SHARES = (0.25, 1 / 3, 0.5)
"""Of the peer's time, for which ours trains."""
PROBE_STEPS, PROBES = 60, 2
PEERS, OURS = ("sdpa", "eager"), ("adamw", "muon")


def config_of(size: str, tokens: int, **changes: Any) -> PretrainConfig:
    width = SIZES[size]["hidden_size"]
    return PretrainConfig(**{
        **SIZES[size], "context_length": LENGTH, "batch_size": BATCH, "tokens": tokens, "optimizer": "muon",
        "learning_rate": round(8e-3 * (192 / width) ** 0.5, 6), "matrix_learning_rate": 0.015, "evaluations": 1,
        "validation_tokens": 131_072, **changes})


def peer(size: str, tokens: Path, steps: int, rate: float, attention: str) -> dict[str, float]:
    """Train with the Trainer of transformers; steady tokens a second, seconds, and the validation loss."""
    from transformers import Qwen3Config, Qwen3ForCausalLM, Trainer, TrainerCallback, TrainingArguments

    prepare(CPU, "off")
    shape = transformer_config(config_of(size, 4096), load_tokenizer(tokens).get_vocab_size())
    torch.manual_seed(0)
    model = Qwen3ForCausalLM(Qwen3Config(**shape.to_dict(), tie_word_embeddings=True, attn_implementation=attention))
    rows = random_windows(read_tokens(tokens, "train"), steps * BATCH, LENGTH, seed=0)
    rows = [torch.from_numpy(row[:-1].astype("int64")) for row in rows]
    ends: list[float] = []

    class Clock(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            ends.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            model=model, callbacks=[Clock()],
            train_dataset=[{"input_ids": rows[number % len(rows)], "labels": rows[number % len(rows)]}
                           for number in range(steps * BATCH)],
            args=TrainingArguments(
                folder, max_steps=steps, per_device_train_batch_size=BATCH, learning_rate=rate, use_cpu=True,
                bf16=choose_precision(CPU) is torch.bfloat16, torch_compile=True, optim="adamw_torch_fused",
                lr_scheduler_type="cosine", warmup_steps=max(1, steps // 30), adam_beta2=0.95, weight_decay=0.1,
                save_strategy="no", report_to=[], logging_strategy="no", disable_tqdm=True, seed=0))
        trainer.train()
    ours = Transformer(shape)
    ours.load_state_dict({name: value for name, value in model.state_dict().items() if name != "lm_head.weight"})
    return figures(ours.eval(), ends, tokens)


def ours(size: str, tokens: Path, steps: int, rate: float, optimizer: str) -> dict[str, float]:
    """Train by the stage itself; steady tokens a second, seconds, and the validation loss."""
    changes = {"optimizer": optimizer} | ({"learning_rate": rate} if rate else {})
    model, ends = pretrained(config_of(size, steps * BATCH * LENGTH, **changes), tokens)
    return figures(model, ends, tokens)


def figures(model: Transformer, ends: list[float], tokens: Path) -> dict[str, float]:
    speed = {"tokens_per_second": steady(ends, BATCH * LENGTH), "seconds": ends[-1] - ends[0]}
    return speed if len(ends) == PROBE_STEPS else speed | {"bits_per_byte": mean_bits_per_byte(model, tokens)}


def apart(*arguments: Any) -> dict[str, float]:
    """One side in a process of its own; what it printed last."""
    answer = subprocess.run([sys.executable, "-m", "benchmarks.train_speed", "--one", *map(str, arguments)], cwd=ROOT,
                            capture_output=True, text=True, check=False)
    if answer.returncode:
        sys.exit(answer.stderr[-3000:])
    found: dict[str, float] = json.loads(answer.stdout.splitlines()[-1])
    print(*arguments, found, flush=True)
    return found


def measure(size: str, tokens: Path, seconds: float) -> dict[str, Any]:
    probes = [{side: apart(side, size, tokens, PROBE_STEPS, 1e-3 if side in PEERS else 0)["tokens_per_second"]
               for side in (*PEERS, *OURS)} for _ in range(PROBES)]
    speeds = {side: max(probe[side] for probe in probes) for side in probes[0]}
    best = max(PEERS, key=lambda side: speeds[side])

    def steps(side: str, share: float) -> int:
        return max(PROBE_STEPS + 1, int(seconds * share * speeds[side] / (BATCH * LENGTH)))

    tried = {rate: apart(best, size, tokens, steps(best, 0.25), rate)["bits_per_byte"] for rate in PEER_RATES}
    rate = min(tried, key=lambda each: tried[each])
    theirs = apart(best, size, tokens, steps(best, 1.0), rate)
    reached = [apart("muon", size, tokens, steps("muon", share), 0) for share in SHARES]
    shape = transformer_config(config_of(size, 4096), load_tokenizer(tokens).get_vocab_size())
    flops = Transformer(shape).training_flops_per_token(LENGTH)
    return {"size": size, "peer": theirs, "peer_rate": rate, "peer_attention": best, "tried": tried, "ours": reached,
            "speeds": speeds, "ratio": speeds["adamw"] / speeds[best],
            "needed": needed(theirs["bits_per_byte"], reached), "share_of_roof": speeds["adamw"] * flops / roof()}


def needed(wanted: float, reached: list[dict[str, float]]) -> float | None:
    """Seconds in which ours comes to `wanted`, between its runs by the logarithm of the time; None when it does not."""
    if reached[0]["bits_per_byte"] <= wanted:
        return reached[0]["seconds"]
    for before, after in pairwise(reached):
        if after["bits_per_byte"] <= wanted:
            share = (before["bits_per_byte"] - wanted) / (before["bits_per_byte"] - after["bits_per_byte"])
            return before["seconds"] * (after["seconds"] / before["seconds"]) ** share
    return None


def roof() -> float:
    """The machine's fastest matrix products in the precision of training, in floating-point operations a second."""
    return max(matrix_flops_per_second(CPU, size, 1.0) for size in (512, 1024, 2048))


def table(rows: list[dict[str, Any]], above: str) -> str:
    lines = [f"{above}, {torch.get_num_threads()} threads, {str(choose_precision(CPU))[6:]}", "",
             "| parameters | tokens/s, Trainer | ours, AdamW | ratio | ours, Muon | of the roof | Trainer's bits per "
             "byte | in | ours needs | share |", "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|"]
    for row in rows:
        speeds, needed, best = row["speeds"], row["needed"], row["peer_attention"]
        took = f"{needed:.0f} s | {needed / row['peer']['seconds']:.2f}" if needed else "more | –"
        lines.append(
            f"| {row['size']} | {speeds[best]:,.0f} ({best}) | {speeds['adamw']:,.0f} | {row['ratio']:.2f} "
            f"| {speeds['muon']:,.0f} | {row['share_of_roof']:.0%} | {row['peer']['bits_per_byte']:.3f} (rate "
            f"{row['peer_rate']:g}) | {row['peer']['seconds']:.0f} s | {took} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--minutes", type=float, default=4.0, help="for which the peer trains")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "benchmarks.md")
    parser.add_argument("--one", nargs=5, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        side, size, tokens, steps, rate = options.one
        one = peer if side in PEERS else ours
        print(json.dumps(one(size, Path(tokens), int(steps), float(rate), side)))
        return
    home = Path(os.environ.get("GENAI_HOME", ROOT))
    tokens = newest(home / "data" / "tokenize", "genai run")
    above = headline()
    rows = [measure(size, tokens, 60 * options.minutes) for size in options.sizes]
    print(json.dumps(rows, indent=1))
    kept = {f"{row['size']}, {name}": value for row in rows for name, value in
               {"AdamW, ratio to the Trainer": row["ratio"], "Muon, tokens/s": row["speeds"]["muon"],
                "Trainer's time over ours": row["peer"]["seconds"] / row["needed"] if row["needed"] else 0.0}.items()}
    worse = keep_and_compare(options.output.with_suffix(".json"), "training speed", kept)
    put_between_marks(options.output, "training speed", "Training", table(rows, above) + worse)


if __name__ == "__main__":
    main()
