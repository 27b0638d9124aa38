"""Character-level Shakespeare in nanoGPT's shape for a CPU, beside a GPT-2 that is trained as nanoGPT trains it there.

    genai run --family recurrent --until characters      the text as characters
    python -m benchmarks.shakespeare                     seconds and validation loss of both, into docs/benchmarks.md

Four layers, four heads, width 128, windows of 64 characters, 12 a step, 2,000 steps, no dropout. The peer is the GPT-2
of `transformers` with AdamW at 1e-3, betas 0.9 and 0.99, weight decay 0.1, 100 steps of warmup and a cosine to a tenth;
ours is the project's transformer with about as many parameters, Muon and its schedule. Both are compiled, see the same
windows and are measured on the same held-out ones. What nanoGPT publishes is of another edition (tinyshakespeare).
"""

import argparse
import math
import os
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.tables import headline, keep_and_compare, put_between_marks
from benchmarks.training import newest, pretrained
from genai_core.config.training import PretrainConfig
from genai_core.data.tokens.batches import Windows
from genai_core.data.tokens.token_files import read_tokens, validation_names
from genai_core.data.tokens.tokenizer import load_tokenizer
from genai_core.hardware import autocast, choose_precision, prepare

ROOT = Path(__file__).parents[1]
CPU = torch.device("cpu")
LENGTH, BATCH, STEPS, HELD_OUT = 64, 12, 2000, 2000
SHAPE = {"layers": 4, "heads": 4, "key_value_heads": 4, "head_size": 32, "hidden_size": 128, "feed_forward_size": 352,
         "context_length": LENGTH, "batch_size": BATCH, "tokens": STEPS * BATCH * LENGTH}
RECIPE = {"optimizer": "muon", "learning_rate": 1e-2, "matrix_learning_rate": 0.02, "evaluations": 1,
          "validation_tokens": 1024}


def ours(tokens: Path) -> dict[str, float]:
    model, ends = pretrained(PretrainConfig(**SHAPE, **RECIPE), tokens)      # type: ignore[arg-type]
    return {"parameters": sum(each.numel() for each in model.parameters()), "loss": held_out(model, tokens),
            "seconds": ends[-1] - ends[0]}


def peer(tokens: Path) -> dict[str, float]:
    from transformers import GPT2Config, GPT2LMHeadModel

    prepare(CPU, "off")
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(
        vocab_size=load_tokenizer(tokens).get_vocab_size(), n_positions=LENGTH, n_embd=128, n_layer=4, n_head=4,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, use_cache=False))
    matrices = [each for each in model.parameters() if each.dim() > 1]
    others = [each for each in model.parameters() if each.dim() < 2]
    optimizer = torch.optim.AdamW([{"params": matrices, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}],
                                  lr=1e-3, betas=(0.9, 0.99), fused=True)
    windows = Windows(read_tokens(tokens, "train"), LENGTH, BATCH, 0, CPU)
    logits_of = torch.compile(lambda ids: model(ids).logits)
    ends = []
    for step in range(STEPS):
        share = (step + 1) / 100 if step < 100 else 0.1 + 0.45 * (1 + math.cos(math.pi * (step - 100) / (STEPS - 100)))
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * share
        batch = windows.batch(step)
        with autocast(CPU, choose_precision(CPU)):
            logits = logits_of(batch["ids"])
        F.cross_entropy(logits.float().flatten(0, 1), batch["targets"].flatten()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        ends.append(time.perf_counter())
    model.eval()
    return {"parameters": sum(each.numel() for each in model.parameters()), "loss": held_out(model, tokens),
            "seconds": ends[-1] - ends[0]}


@torch.no_grad()
def held_out(model: nn.Module, tokens: Path) -> float:
    """Nats a character over whole windows of the validation text, each of which starts cold."""
    file = read_tokens(tokens, f"validation.{validation_names(tokens)[0]}")
    count = min(HELD_OUT, (len(file.ids) - 1) // LENGTH)
    ids = torch.from_numpy(file.ids[:count * LENGTH + 1].astype("int64"))
    losses = []
    for rows, targets in zip(ids[:-1].view(count, LENGTH).split(100), ids[1:].view(count, LENGTH).split(100),
                             strict=True):
        logits = model(rows)
        logits = logits if isinstance(logits, Tensor) else logits.logits
        losses.append(F.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), reduction="sum"))
    return float(torch.stack(losses).sum()) / (count * LENGTH)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "benchmarks.md")
    options = parser.parse_args()
    home = Path(os.environ.get("GENAI_HOME", ROOT))
    tokens = newest(home / "data" / "characters", "genai run --family recurrent --until characters")
    above = headline()
    rows = {"GPT-2 as nanoGPT trains it": peer(tokens), "ours": ours(tokens)}
    lines = [above, "",
             "| 2,000 steps of 12 windows of 64 characters | parameters | nats a character | seconds |",
             "|---|---:|---:|---:|"]
    lines += [f"| {name} | {row['parameters']:,} | {row['loss']:.3f} | {row['seconds']:.0f} |"
              for name, row in rows.items()]
    print("\n".join(lines))
    figures = {f"{name}, steps/s": STEPS / row["seconds"] for name, row in rows.items()}
    worse = keep_and_compare(options.output.with_suffix(".json"), "shakespeare", figures)
    put_between_marks(options.output, "shakespeare", "Characters of Shakespeare", "\n".join(lines) + "\n" + worse)


if __name__ == "__main__":
    main()
