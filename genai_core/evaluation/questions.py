"""The held-out text and the questions of a run, the same for every model that is evaluated on them."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import torch
from tokenizers import Tokenizer

from genai_core.config.release import EvaluateConfig
from genai_core.config.tasks import Task
from genai_core.data.chat import END_OF_TEXT, document_start, token_id, without_specials
from genai_core.data.instruction.examples import questions_of
from genai_core.data.shards.files import iterate_batches, shards_of
from genai_core.data.shards.tables import SCHEMAS, is_of
from genai_core.data.tokens.token_files import TokenFile, read_tokens
from genai_core.data.tokens.tokenizer import load_tokenizer
from genai_core.evaluation.bits_per_byte import token_byte_lengths
from genai_core.evaluation.tasks import AskedTask


@dataclass(frozen=True)
class HeldOutText:
    """Held-out text as the tokens of one tokenizer."""

    files: dict[str, TokenFile]
    """Split and source, e.g. `test.reviews`, to its tokens."""
    byte_lengths: torch.Tensor


def choose_questions(config: EvaluateConfig, tasks: dict[str, Task], cleaned: Path) -> list[AskedTask]:
    """A fixed random choice of the test split, for every task that is judged and has questions there."""
    chosen = []
    for name, task in tasks.items():
        examples = questions_of(task, cleaned, "test") if task.judged_by else []
        if len(examples) > task.questions:
            examples = random.Random(config.seed).sample(examples, task.questions)
        labels = task.labels or known_labels(task, cleaned) if "accuracy" in task.judged_by else ()
        if examples:
            chosen.append(AskedTask(name, task, examples, labels))
    return chosen


def known_labels(task: Task, cleaned: Path) -> tuple[str, ...]:
    """The labels that the training records of a task have, sorted."""
    found: set[tuple[str, str]] = set()      # of source and label
    for batch in iterate_batches(shards_of(cleaned, "documents"), SCHEMAS["documents"]):
        rows = batch.filter(pc.and_(pc.equal(batch["split"], "train"), pc.is_valid(batch["label"])))
        found |= set(zip(rows["source"].to_pylist(), rows["label"].to_pylist(), strict=True))
    return tuple(sorted({label for source, label in found if is_of({"source": source}, task.sources)}))


def held_out_text(tokens: Path) -> HeldOutText:
    """The held-out files of a run's token files."""
    names = sorted(path.name.removesuffix(".bin") for path in [*tokens.glob("validation.*.bin"),
                                                               *tokens.glob("test.*.bin")])
    return HeldOutText({name: read_tokens(tokens, name) for name in names}, token_byte_lengths(load_tokenizer(tokens)))


def encoded_again(tokens: Path, cleaned: Path, tokenizer: Tokenizer, max_tokens: int) -> HeldOutText:
    """The same text for a model with another tokenizer: the first `max_tokens` tokens and one more of each file."""
    start, end = document_start(tokenizer), token_id(tokenizer, END_OF_TEXT)
    files = {}
    for name in held_out_text(tokens).files:
        ids: list[int] = []
        starts = []
        for text in texts_of(cleaned, name):
            if len(ids) > max_tokens:
                break
            starts.append(len(ids))
            written = without_specials(tokenizer, text)
            ids += [*start, *tokenizer.encode(written, add_special_tokens=False).ids, end]
        files[name] = TokenFile(np.array(ids[:max_tokens + 1]), np.array(starts), 0, np.zeros(len(starts), np.int64))
    return HeldOutText(files, token_byte_lengths(tokenizer))


def texts_of(cleaned: Path, name: str) -> Iterator[str]:
    """The documents of a held-out file, in its order."""
    split, _, source = name.partition(".")
    for batch in iterate_batches(shards_of(cleaned, "documents", source), SCHEMAS["documents"]):
        yield from batch.filter(pc.equal(batch["split"], split))["text"].to_pylist()
