"""What the dial comes to: models of several depths, each trained for the same time, and what a larger batch saves.

    python -m benchmarks.depths                          half an hour; into docs/benchmarks.md
    python -m benchmarks.depths --depths 2 4 --seconds 600 --batches

Each takes its shape and rates from the dial and the token files of the last run of this workspace. Predicted are the
floating-point operations that a run's cost and `genai plan` are made of, measured are those that PyTorch counts.
"""

import argparse
import json
import os
from pathlib import Path
from typing import Any

import torch

from benchmarks.tables import headline, keep_and_compare, put_between_marks
from benchmarks.training import mean_bits_per_byte, newest, pretrained, steady
from genai_core.config.dial import dial
from genai_core.config.training import PretrainConfig
from genai_core.data.tokens.tokenizer import load_tokenizer
from genai_core.models.flops import counted_flops

ROOT = Path(__file__).parents[1]
PROBE_STEPS = 30


def config_of(depth: int, steps: int, **changes: Any) -> PretrainConfig:
    fields = {**dial(depth)["pretrain"], "evaluations": 1, "validation_tokens": 1024, **changes}
    return PretrainConfig(**{**fields, "tokens": steps * fields["batch_size"] * fields["context_length"]})


def speed(depth: int, tokens: Path, **changes: Any) -> float:
    """Steady tokens a second."""
    config = config_of(depth, PROBE_STEPS, **changes)
    return steady(pretrained(config, tokens)[1], config.batch_size * config.context_length)


def measure(depth: int, tokens: Path, seconds: float) -> dict[str, Any]:
    per_second, step = speed(depth, tokens), config_of(depth, 1)
    steps = max(PROBE_STEPS, int(seconds * per_second / step.tokens))
    model, ends = pretrained(config_of(depth, steps), tokens)
    length = step.context_length
    counted = counted_flops(model, torch.zeros(1, length, dtype=torch.long)) / length
    return {"depth": depth, "parameters": sum(each.numel() for each in model.parameters()),
            "tokens": steps * step.tokens, "tokens_per_second": per_second, "seconds": ends[-1] - ends[0],
            "predicted_flops": model.training_flops_per_token(length), "measured_flops": counted,
            "bits_per_byte": mean_bits_per_byte(model, tokens)}


def table(rows: list[dict[str, Any]], seconds: float) -> list[str]:
    lines = [f"| depth | parameters | tokens/s | tokens | in, of {seconds:.0f} s | bits per byte | FLOPs a token, "
             "predicted | measured |", "|---:|---:|---:|---:|---:|---:|---:|---:|"]
    return lines + [f"| {row['depth']} | {row['parameters']:,} | {row['tokens_per_second']:,.0f} | {row['tokens']:,} | "
                    f"{row['seconds']:.0f} s | {row['bits_per_byte']:.3f} | {row['predicted_flops']:.3g} | "
                    f"{row['measured_flops']:.3g} |" for row in rows]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--depths", type=int, nargs="*", default=[1, 2, 3, 4, 6, 8])
    parser.add_argument("--seconds", type=float, default=120.0, help="for which each trains")
    parser.add_argument("--batches", type=int, nargs="*", default=[4, 8, 16, 32], help="sizes to time at depth 3")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "benchmarks.md")
    options = parser.parse_args()
    tokens = newest(Path(os.environ.get("GENAI_HOME", ROOT)) / "data" / "tokenize", "genai run")
    above = headline()
    rows = [measure(depth, tokens, options.seconds) for depth in options.depths]
    print(json.dumps(rows, indent=1))
    batches = {batch: speed(3, tokens, batch_size=batch) for batch in options.batches}
    lines = [f"{above}; tokens of a vocabulary of {load_tokenizer(tokens).get_vocab_size():,}", "",
             *table(rows, options.seconds)]
    if batches:
        lines += ["", "Windows of 256 tokens a step at depth 3: " + ", ".join(
            f"{batch}: {per_second:,.0f} tokens/s" for batch, per_second in batches.items())]
    figures = {f"depth {row['depth']}, tokens/s": row["tokens_per_second"] for row in rows}
    figures |= {f"depth 3, {batch} windows, tokens/s": per_second for batch, per_second in batches.items()}
    worse = keep_and_compare(options.output.with_suffix(".json"), "depths", figures)
    put_between_marks(options.output, "depths", "What the dial comes to", "\n".join(lines) + "\n" + worse)


if __name__ == "__main__":
    main()
