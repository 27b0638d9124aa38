"""What the evaluation needs of the cleaned data, told before anything is trained. Only the columns needed are read."""

from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq

from genai_core.config.release import Gold
from genai_core.config.tasks import Task
from genai_core.data.instruction.examples import TABLES
from genai_core.data.instruction.judgements import position
from genai_core.data.shards.files import shards_of
from genai_core.data.shards.tables import is_of, iterate_table, subject_of
from genai_core.errors import InputError

_SHOWN = 3


def gaps_of_tasks(tasks: dict[str, Task], cleaned: Path) -> list[str]:
    """A line for each task that has no held-out question, whose labels cannot be learned, or that is to be judged by
    choices and has none."""
    found = []
    for name, task in tasks.items():
        if not task.judged_by:
            continue
        train, test = (_values(task, cleaned, split) for split in ("train", "test"))
        if not test:
            found.append(f"tasks.{name}: no record of it is in the test split, so it has no figure; bring more, or "
                         "raise collect.test_fraction")
        elif "multiple_choice" in task.metrics and not test["choices"]:
            found.append(f"tasks.{name}: metrics asks for multiple_choice, and no record of the test split has choices")
        elif "accuracy" in task.judged_by:
            found += _gaps_of_labels(name, task, train, test)
    return found


def _gaps_of_labels(name: str, task: Task, train: Counter[str], test: Counter[str]) -> list[str]:
    found = []
    known = set(task.labels) or set(train)
    if len(known) < 2:
        found.append(f"tasks.{name}: {_named(known) or 'no label'} is all that the training records have, so there is "
                     "nothing to choose between")
    if unknown := set(test) - known:
        found.append(f"tasks.{name}: {_named(unknown)} in the test split alone, so those {_sum(test, unknown):,} "
                     "questions cannot be answered right; bring training records of it, or leave it out")
    if once := {label for label in known if train[label] == 1}:
        found.append(f"tasks.{name}: {_named(once)} on one training record alone, too few to learn from; bring more")
    return found


def check_good_label(cleaned: Path, gold: Gold, sources: tuple[str, ...], whose: str) -> None:
    """Raises InputError where the labelled training records of some sources, which `whose` names, do not have both
    `gold.label` and another label: all of them would count as equally good."""
    labels = set(_values(Task(content="labelled", sources=sources), cleaned, "train"))
    if gold.label not in labels:
        raise InputError(f"evaluate.gold.label: {gold.label!r} is none of the labels of {whose}, which have "
                         f"{_named(labels) or 'none'}")
    if len(labels) < 2:
        raise InputError(f"evaluate.gold.label: {whose} have no label but {gold.label!r}, so nothing tells what is "
                         "good; bring records with another one")


def check_gold_share(cleaned: Path, gold: Gold, reward_sources: tuple[str, ...]) -> None:
    """Raises InputError where `gold.fraction`, no task being named, leaves no training judgement for the gold reward,
    or fewer than two for the reward model."""
    kept = left = 0
    for table in ("ratings", "preferences"):
        for row in iterate_table(cleaned, table, split="train"):
            if is_of(row, reward_sources):
                is_gold = position(subject_of(row)) < gold.fraction
                kept, left = kept + is_gold, left + (not is_gold)
            if kept and left >= 2:
                return
    if not kept or left < 2:
        raise InputError(f"evaluate.gold.fraction: of {kept + left:,} training judgements {kept:,} are for the gold "
                         f"reward and {left:,} for the reward model, which need one and two; bring more, "
                         f"or {'lower' if kept else 'raise'} it")


def _values(task: Task, cleaned: Path, split: str) -> Counter[str]:
    """How many records a task has in a split: by label, or by whether they have choices, or all alike."""
    column = {"labelled": "label", "problems": "choices"}.get(task.content)
    found: Counter[str] = Counter()
    for path in shards_of(cleaned, TABLES[task.content]):
        for row in pq.read_table(path, columns=["split", "source", *([column] if column else [])]).to_pylist():
            if row["split"] != split or not is_of(row, task.sources):
                continue
            if task.content == "labelled":
                found.update([] if row["label"] is None else [row["label"]])
            else:
                found["choices" if column and row["choices"] else "others"] += 1
    return found


def _named(labels: set[str]) -> str:
    shown = ", ".join(map(repr, sorted(labels)[:_SHOWN]))
    more = f" and {len(labels) - _SHOWN:,} more" if len(labels) > _SHOWN else ""
    return f"{'the label' if len(labels) == 1 else 'the labels'} {shown}{more}" if labels else ""


def _sum(counts: Counter[str], labels: set[str]) -> int:
    return sum(counts[label] for label in labels)
