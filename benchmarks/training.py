"""A training of the project's own, as the stage pretrain does it, for benchmarks to time."""

import json
import statistics
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from genai_core.config.training import PretrainConfig
from genai_core.context import Context
from genai_core.data.tokens.token_files import read_tokens, validation_names
from genai_core.data.tokens.tokenizer import load_tokenizer
from genai_core.evaluation.bits_per_byte import held_out_loss, token_byte_lengths
from genai_core.hardware import choose_precision
from genai_core.models.transformer import Transformer, transformer_config
from genai_core.stages import pretrain

CPU = torch.device("cpu")


class Clock:
    """A reporter that notes when each step was over."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def progress(self, *_: Any, **__: Any) -> None:
        self.ends.append(time.perf_counter())

    def metrics(self, *_: Any, **__: Any) -> None:
        pass

    def note(self, text: str) -> None:
        print(text, file=sys.stderr)


def pretrained(config: PretrainConfig, tokens: Path, shard_above: int = 10**9, checkpoints: Path | None = None
               ) -> tuple[Transformer, list[float]]:
    """A compiled training on a CPU: the model, and when each step was over. Ranks share the folder of checkpoints."""
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "model"
        out.mkdir()
        pretrain.run(config, tokens=tokens, out_dir=out,
                     context=Context(checkpoints or Path(folder) / "checkpoints", clock, device="cpu", compile="on",
                                     shard_above=shard_above, checkpoint_seconds=1e9))
        model = Transformer(transformer_config(config, load_tokenizer(tokens).get_vocab_size()))
        model.load_state_dict(load_file(out / "model.safetensors"), strict=False)
    return model.eval(), clock.ends


def steady(ends: list[float], tokens_of_a_step: int) -> float:
    """Tokens a second by the median step, without the first ten: compilation and caches are behind them."""
    return tokens_of_a_step / statistics.median(after - before for before, after in pairwise(ends[10:]))


def mean_bits_per_byte(model: Transformer, tokens: Path, length: int = 256) -> float:
    """Over the first 131,072 tokens of each validation file, in windows of `length` that start cold."""
    lengths = token_byte_lengths(load_tokenizer(tokens))
    figures = [held_out_loss(model, read_tokens(tokens, f"validation.{name}"), lengths, length, max_tokens=131_072,
                             device=CPU, precision=choose_precision(CPU)).bits_per_byte
               for name in validation_names(tokens)]
    return sum(figures) / len(figures)


def newest(folder: Path, command: str) -> Path:
    """The artifact in a folder that was made last; without any the process ends, and says which command makes one."""
    found = sorted(folder.glob("*"), key=lambda path: path.stat().st_mtime)
    if not found:
        sys.exit(f"nothing in {folder}: run `{command}` first")
    return found[-1]


def inputs_of(artifact: Path, home: Path) -> dict[str, Path]:
    """The artifacts of a workspace that one was made from, by their stages: those of the digests in its manifest. Where
    one is gone the process ends, and says which."""
    found = {}
    for stage, digest in json.loads((artifact / "manifest.json").read_text(encoding="utf-8"))["inputs"].items():
        manifests = home.glob(f"*/{stage}/*/manifest.json")
        same = [each.parent for each in manifests if json.loads(each.read_text(encoding="utf-8"))["digest"] == digest]
        if not same:
            sys.exit(f"{artifact} was made from a {stage} that is not in {home}: run `genai run` again")
        found[stage] = same[0]
    return found
