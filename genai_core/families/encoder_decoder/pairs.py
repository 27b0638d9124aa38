"""The stage pairs: source and target text of one or several tasks, with one vocabulary."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tokenizers import Tokenizer
from torch import Tensor

from genai_core.config.data import CleanConfig
from genai_core.context import Context, Result
from genai_core.data.chat import END_OF_TEXT, TURN_END, TURN_START, plain, token_id
from genai_core.data.clean.decontaminate import shares_runs
from genai_core.data.shards.tables import read_table
from genai_core.data.tokens.batches import epoch_order, pad
from genai_core.data.tokens.tokenizer import load_tokenizer, save_tokenizer, train_tokenizer
from genai_core.errors import InputError
from genai_core.families.encoder_decoder.config import PairsConfig, Task
from genai_core.families.images.digits import SPLITS

PREFIXES: dict[Task, str] = {"translate": "translate English to Spanish: ", "sentiment": "sentiment: ",
                             "title": "title: "}
SOURCES: dict[Task, str] = {"translate": "tatoeba", "title": "headings"}
"""Source of each task that is made of pairs."""
SORTED_BATCHES = 16
"""Pairs of this many batches are sorted by length together, so that little of a batch is padding."""


class Pair(NamedTuple):
    task: str
    source: str
    target: str


def run(config: PairsConfig, *, collected: Path, out_dir: Path, context: Context) -> Result:
    """Write the tokenizer and `SPLIT.parquet` with task, source and target.

    Training pairs whose source shares a long run of words with a held-out source of the task are left out and counted.
    Raises InputError when a task has no pair in a split.
    """
    reporter = context.reporter
    metrics: dict[str, float] = {}
    by_split: dict[str, list[Pair]] = {split: [] for split in SPLITS}
    for task in config.tasks:
        found = {split: _pairs(collected, task, split, config) for split in SPLITS}
        chosen = len(found["train"])
        found["train"] = _without_held_out(found)
        for split, pairs in found.items():
            if not pairs:
                raise InputError(f"no pair for the task {task} in the split {split}; add sources or raise "
                                 f"collect.{split}_fraction")
            metrics[f"{split}/{task}"] = len(pairs)
            by_split[split] += pairs
        metrics[f"train/{task}_shared_with_held_out"] = chosen - len(found["train"])
    for split, pairs in by_split.items():
        columns = {name: [getattr(pair, name) for pair in pairs] for name in Pair._fields}
        pq.write_table(pa.table(columns), out_dir / f"{split}.parquet", compression="zstd")
    texts = [text for pair in by_split["train"] for text in (pair.source, pair.target)]
    save_tokenizer(train_tokenizer(texts, config.vocab_size), out_dir)
    reporter.note(", ".join(f"{name} {count:,.0f}" for name, count in metrics.items()))
    return Result(metrics)


def _pairs(collected: Path, task: Task, split: str, config: PairsConfig) -> list[Pair]:
    prefix = PREFIXES[task] if len(config.tasks) > 1 else ""
    if task == "sentiment":
        rows = [row for row in read_table(collected, "documents", split=split) if row["label"] is not None]
        pairs = [Pair(task, prefix + plain(row["text"]), row["label"]) for row in rows]
    else:
        rows = read_table(collected, "pairs", split=split, source=SOURCES[task])
        pairs = [Pair(task, prefix + plain(row["source_text"]), plain(row["target_text"])) for row in rows]
    most = config.train_pairs if split == "train" else config.held_out_pairs
    return pairs if len(pairs) <= most else [pairs[number * len(pairs) // most] for number in range(most)]


def _without_held_out(found: dict[str, list[Pair]]) -> list[Pair]:
    """Training pairs of one task whose source shares no long run of words with a held-out one."""
    held_out = [_unprefixed(pair) for split in SPLITS if split != "train" for pair in found[split]]
    shared = shares_runs(list(map(_unprefixed, found["train"])), held_out, CleanConfig().decontamination_ngram)
    return [pair for pair, leaks in zip(found["train"], shared, strict=True) if not leaks]


def _unprefixed(pair: Pair) -> str:
    """The source without its task's name, which all pairs of the task share."""
    return pair.source.removeprefix(PREFIXES[pair.task])      # type: ignore[index]


def read_pairs(directory: Path, split: str) -> list[Pair]:
    """The pairs of a split. Raises InputError, naming the file, when they cannot be read."""
    try:
        rows = pq.read_table(directory / f"{split}.parquet").to_pylist()
    except (OSError, pa.ArrowInvalid) as error:
        raise InputError(f"{directory / split}.parquet: not readable pairs ({error})") from None
    return [Pair(**row) for row in rows]


class PairCodec:
    """Text to token ids and back: sources end in the end token, targets begin with the start token and end in the end
    token."""

    def __init__(self, tokenizer: Tokenizer, source_tokens: int, target_tokens: int):
        self.tokenizer = tokenizer
        self.source_tokens = source_tokens
        self.target_tokens = target_tokens
        self.pad = token_id(tokenizer, END_OF_TEXT)
        self.start = token_id(tokenizer, TURN_START)
        self.end = token_id(tokenizer, TURN_END)

    @classmethod
    def load(cls, directory: Path, source_tokens: int, target_tokens: int) -> "PairCodec":
        return cls(load_tokenizer(directory), source_tokens, target_tokens)

    def sources(self, texts: list[str]) -> list[list[int]]:
        encoded = self.tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        return [[*encoding.ids[:self.source_tokens - 1], self.end] for encoding in encoded]

    def targets(self, texts: list[str]) -> list[list[int]]:
        encoded = self.tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        return [[self.start, *encoding.ids[:self.target_tokens - 1], self.end] for encoding in encoded]

    def text(self, ids: list[int]) -> str:
        """Text of the ids before the end token."""
        return self.tokenizer.decode(ids[:ids.index(self.end)] if self.end in ids else ids).strip()

    def padded(self, rows: list[list[int]]) -> Tensor:
        """Ids (B, T) int64, padded on the right to the longest."""
        return pad(rows, self.pad, "right")[0]


class PairBatches:
    """Batches of encoded pairs: each epoch in another order, pairs of similar length together."""

    def __init__(self, pairs: list[Pair], codec: PairCodec, batch_size: int, seed: int):
        self.codec = codec
        self.batch_size = batch_size
        self.seed = seed
        self.sources = codec.sources([pair.source for pair in pairs])
        self.targets = codec.targets([pair.target for pair in pairs])
        self.batches = len(pairs) // batch_size
        if not self.batches:
            raise InputError(f"{len(pairs)} training pairs do not fill a batch of {batch_size}")
        self._epoch = -1
        self._rows = np.empty((0, 0), np.int64)

    def batch(self, step: int) -> dict[str, Tensor]:
        """Token ids: `source` (B, S), and `inputs` and `targets`, both (B, T), the targets one token later."""
        epoch, number = divmod(step, self.batches)
        if epoch != self._epoch:
            self._epoch, self._rows = epoch, self._ordered(epoch)
        rows = self._rows[number].tolist()
        target = self.codec.padded([self.targets[row] for row in rows])
        return {"source": self.codec.padded([self.sources[row] for row in rows]),
                "inputs": target[:, :-1].contiguous(), "targets": target[:, 1:].contiguous()}

    def _ordered(self, epoch: int) -> np.ndarray:
        order = epoch_order(len(self.sources), epoch, self.seed)[:self.batches * self.batch_size]
        lengths = np.array([len(self.sources[row]) + len(self.targets[row]) for row in order])
        group = SORTED_BATCHES * self.batch_size
        by_length = [order[first:first + group][np.argsort(lengths[first:first + group], kind="stable")]
                     for first in range(0, len(order), group)]
        batches = np.concatenate(by_length).reshape(self.batches, self.batch_size)
        return batches[np.random.default_rng([self.seed, epoch, 1]).permutation(self.batches)]
