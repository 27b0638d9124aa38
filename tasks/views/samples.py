"""What a model answered to every question of a task, and what each answer counted; two models side by side."""

import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq

from genai_core.errors import InputError
from tasks.views.comparison import evaluated_by

RIGHT = ("accuracy", "multiple_choice", "exact_match")
"""Endings of the figures by which an answer is right or wrong."""
HARNESS_RIGHT = re.compile(r"lm_eval/.+/(acc|acc_norm|acc_bytes|exact_match)(/[^/]+)?")
"""Such figures of lm-evaluation-harness, with the filter of the answers where there is one."""
Key = tuple[str, ...]


@dataclass
class Answered:
    """A question of a task, what a model answered, and by each figure what that counted."""

    task: str
    asked: str
    expected: str
    answered: str = ""
    values: dict[str, float] = field(default_factory=dict)
    other_answered: str = ""
    """Of the model beside it."""
    other_values: dict[str, float] = field(default_factory=dict)

    @property
    def right(self) -> bool | None:
        """None where the task has no right and wrong."""
        return _right(self.values)

    @property
    def other_right(self) -> bool | None:
        return _right(self.other_values)

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "right": self.right, "other_right": self.other_right}


def samples(uri: str, task: str, other: str = "", wrong: bool = False) -> list[Answered]:
    """The answers of a registered model to a task, those that are wrong alone where asked, beside those of another.

    Raises InputError for a model that no run evaluated, a task that its evaluation does not have, and where right and
    wrong are asked of a task that has neither.
    """
    asked = _rows(uri, task)
    asked_other = _rows(other, task) if other else []
    with_ids = all(row.get("question") for row in asked + asked_other)      # an older evaluation has none
    found, beside = (_by_question(rows, task, with_ids) for rows in (asked, asked_other))
    for key, row in found.items():
        if key in beside:
            row.other_answered, row.other_values = beside[key].answered, beside[key].values
    rows = [row for key, row in found.items() if not other or key in beside]
    if other and not rows:
        raise InputError(f"{uri} and {other} were asked no question of {task} in common")
    if wrong and all(row.right is None for row in rows):
        figures = ", ".join(dict.fromkeys(name for row in rows for name in row.values))
        raise InputError(f"--wrong: answers to {task} are judged by {figures}, by which none is right or wrong")
    return [row for row in rows if not wrong or row.right is False or row.other_right is False]


def _rows(uri: str, task: str) -> list[dict[str, Any]]:
    """The answers of a model to a task, once for each figure."""
    report, column = evaluated_by(uri)
    table = _table(uri, report).filter(pc.field("model") == column)
    names = list(dict.fromkeys(table["task"].to_pylist()))
    chosen = [name for name in names if name == task or name.startswith(f"{task}, ")]
    if not chosen:
        raise InputError(f"{task}: {uri} was not asked such a task; there are {', '.join(names) or 'none'}")
    rows: list[dict[str, Any]] = table.filter(pc.field("task").isin(chosen)).to_pylist()
    return rows


def _by_question(rows: list[dict[str, Any]], task: str, with_ids: bool) -> dict[Key, Answered]:
    """The answers by task and the question's id, without ids by what was asked and expected; of a task's figures the
    values of each answer together."""
    found: dict[Key, Answered] = {}
    for row in rows:
        key = (row["task"], row["question"]) if with_ids else (row["task"], row["asked"], row["expected"])
        answer = found.setdefault(key, Answered(row["task"], row["asked"], row["expected"]))
        answer.answered = answer.answered or row["answered"]
        answer.values[row["figure"].removeprefix(f"{task}_")] = row["value"]
    return found


def _table(uri: str, report: Path) -> Any:
    file = report / "answers.parquet"
    if not file.is_file():
        raise InputError(f"{uri}: its evaluation kept no answers, being from before they were kept; "
                         "`genai run --from evaluate` makes it again")
    return pq.read_table(file)


def _right(values: dict[str, float]) -> bool | None:
    judged = [value for name, value in values.items() if name.endswith(RIGHT) or HARNESS_RIGHT.fullmatch(name)]
    return all(value == 1.0 for value in judged) if judged else None
