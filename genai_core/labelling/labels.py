"""A label: what a person said of two answers to a prompt, and the rows in which labels are kept.

A choice is a row of preferences as TRL and `collect` read them (prompt, chosen, rejected), with who, when, the two
models and their seeds beside it. Two answers of which none is better are no pair: they go to a file of their own.
"""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, get_args

from genai_core.data.chat import Chat
from genai_core.data.sources.shapes.rows import recognise
from genai_core.labelling.files import append_locked, locked, read_rows, remove_locked

Split = Literal["train", "validation", "test"]
Choice = Literal["first", "second", "tie", "both_bad"]
"""What a labeller chooses of two answers."""
PREFERENCES = "preferences.jsonl"
UNDECIDED = "undecided.jsonl"


@dataclass(frozen=True)
class Candidate:
    """One of the two answers to a prompt that are judged."""

    text: str
    model: str
    """Version that gave it, e.g. `genai-rlhf/3`, or the whole path of a directory."""
    seed: int | None = None
    """Seed that it was sampled with."""


@dataclass(frozen=True)
class Label:
    """A person's verdict on two answers, in the order in which they were shown."""

    prompt: Chat
    first: Candidate
    second: Candidate
    verdict: Choice
    labeller: str
    when: str
    """Time in UTC, ISO 8601."""
    split: Split | None = None
    """Split of the data that the prompt belongs to, into which `collect` puts the choice too; None lets `collect`
    decide."""

    @property
    def question(self) -> tuple[str, tuple[str, ...]]:
        """The prompt and the two models: what a labeller is asked once."""
        return prompt_key(self.prompt), tuple(sorted((self.first.model, self.second.model)))

    @property
    def chosen(self) -> Candidate | None:
        """The better answer; None for a tie and where both are bad."""
        return {"first": self.first, "second": self.second}.get(self.verdict)


def prompt_key(prompt: Chat) -> str:
    return json.dumps([[message["role"], message["content"]] for message in prompt], ensure_ascii=False)


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")


class LabelFiles:
    """The labels in a folder: choices in `preferences.jsonl`, ties and pairs of bad answers in `undecided.jsonl`."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.preferences = folder / PREFERENCES
        self.undecided = folder / UNDECIDED

    def add(self, label: Label) -> None:
        """Raises BadRow, and keeps nothing, where the prompt or an answer is none that `collect` could read: the next
        training would stop there. Raises OSError where the file cannot be written."""
        self._check(label)
        with locked(self.folder):
            self._append(label)

    def add_once(self, label: Label) -> bool:
        """Add a label unless the labeller has judged its question, in another session perhaps; whether it was added.
        Raises as `add` does."""
        self._check(label)
        with locked(self.folder):
            if label.question in {known.question for known in self.labels(label.labeller)}:
                return False
            self._append(label)
        return True

    def _check(self, label: Label) -> None:
        pair = {"prompt": label.prompt, "chosen": assistant_says(label.first.text),
                "rejected": assistant_says(label.second.text)}
        recognise(pair, "preferences").read(pair)

    def _append(self, label: Label) -> None:
        append_locked(self.preferences if label.chosen else self.undecided, [_row(label)])

    def labels(self, labeller: str = "") -> list[Label]:
        """The labels of one person, or of all, the oldest first. Rows of other origin are passed over."""
        found = [label for path in (self.preferences, self.undecided) for row in read_rows(path)
                 if (label := _label(row)) and labeller in ("", label.labeller)]
        return sorted(found, key=lambda label: label.when)

    def undo(self, labeller: str, models: tuple[str, ...] = ()) -> Label | None:
        """Take a person's newest label back, of all or of those on answers of two models, whose names are sorted; None
        where there is none. Two sessions at the same time take two labels back."""
        if not self.folder.is_dir():
            return None
        with locked(self.folder):
            mine = [label for label in self.labels(labeller) if models in ((), label.question[1])]
            if not mine:
                return None
            last = mine[-1]
            remove_locked(self.preferences if last.chosen else self.undecided, lambda row: _label(row) == last)
        return last


def _row(label: Label) -> dict[str, Any]:
    swapped = label.verdict == "second"
    answers = (label.second, label.first) if swapped else (label.first, label.second)
    names = ("chosen", "rejected") if label.chosen else ("first", "second")
    row: dict[str, Any] = {"prompt": label.prompt, "when": label.when, "labeller": label.labeller,
                           "verdict": label.verdict}
    if label.split:
        row["split"] = label.split
    for name, answer in zip(names, answers, strict=True):
        row[name] = assistant_says(answer.text)
        row[f"{name}_model"] = answer.model
        row[f"{name}_seed"] = answer.seed
    return row


def _label(row: dict[str, Any]) -> Label | None:
    """The label of a row; None for a row that no labeller made, such as a choice of the chat page."""
    verdict = row.get("verdict")
    if verdict not in ("first", "second", "tie", "both_bad") or not isinstance(row.get("labeller"), str):
        return None
    names = ("chosen", "rejected") if verdict in ("first", "second") else ("first", "second")
    try:
        answers = [Candidate("".join(message["content"] for message in row[name]), str(row[f"{name}_model"]),
                          row.get(f"{name}_seed")) for name in names]
        prompt = [{"role": message["role"], "content": message["content"]} for message in row["prompt"]]
    except (KeyError, TypeError):
        return None
    first, second = reversed(answers) if verdict == "second" else answers
    split = row.get("split")
    return Label(prompt, first, second, verdict, row["labeller"], str(row.get("when", "")),
                 split if split in get_args(Split) else None)


def assistant_says(text: str) -> Chat:
    """An answer as messages: a text that begins like a transcript would be read as one."""
    return [{"role": "assistant", "content": text}]
