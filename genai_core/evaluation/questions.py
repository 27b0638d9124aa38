"""The held-out text and the questions of a run, the same for every model that is evaluated on them."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer

from genai_core.config.release import EvaluateConfig
from genai_core.config.tasks import Task
from genai_core.data.chat import END_OF_TEXT, plain, token_id
from genai_core.data.instruction.examples import questions_of
from genai_core.data.shards.tables import is_of, read_table
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
    rows = read_table(cleaned, "documents", split="train")
    return tuple(sorted({row["label"] for row in rows if row["label"] is not None and is_of(row, task.sources)}))


def held_out_text(tokens: Path) -> HeldOutText:
    """The held-out files of a run's token files."""
    names = sorted(path.name.removesuffix(".bin") for path in [*tokens.glob("validation.*.bin"),
                                                               *tokens.glob("test.*.bin")])
    return HeldOutText({name: read_tokens(tokens, name) for name in names}, token_byte_lengths(load_tokenizer(tokens)))


def encoded_again(tokens: Path, cleaned: Path, tokenizer: Tokenizer, max_tokens: int) -> HeldOutText:
    """The same text for a model with another tokenizer: the first `max_tokens` tokens and one more of each file."""
    end = token_id(tokenizer, END_OF_TEXT)
    files = {}
    for name in held_out_text(tokens).files:
        ids: list[int] = []
        starts = []
        for text in texts_of(cleaned, name):
            if len(ids) > max_tokens:
                break
            starts.append(len(ids))
            ids += [*tokenizer.encode(plain(text), add_special_tokens=False).ids, end]
        files[name] = TokenFile(np.array(ids[:max_tokens + 1]), np.array(starts), 0, np.zeros(len(starts), np.int64))
    return HeldOutText(files, token_byte_lengths(tokenizer))


def texts_of(cleaned: Path, name: str) -> Iterator[str]:
    """The documents of a held-out file, in its order."""
    split, _, source = name.partition(".")
    for row in read_table(cleaned, "documents", split=split):
        if row["source"].split("/")[0] == source:
            yield row["text"]
