"""The answers of an evaluation, question by question."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from genai_core.data.instruction.examples import Example
from genai_core.evaluation.language_model import Evaluated, write_table
from genai_core.evaluation.samples import samples_of
from genai_core.evaluation.tasks import alike
from tasks.views import samples as view

RIGHT = [1.0, 0.0, 1.0, 0.0]


def why(before: str, answer: str = "So.") -> Example:
    """A conversation whose last message says nothing of what went before."""
    asked = [{"role": "user", "content": before}, {"role": "assistant", "content": "Yes."},
             {"role": "user", "content": "Why?"}]
    return Example(asked, answer, (answer,), "Why?")


EXAMPLES = [why("Is it late?"), why("Is it early?"), why("Is it far?"), why("Is it far?")]


def report(folder: Path, model: str, examples: list[Example], answers: list[str], values: list[float],
           old: bool = False) -> None:
    """The answers of a model as evaluate keeps them; an old report has no ids of questions."""
    samples = samples_of(["dialogue"] * len(examples), examples, [""] * len(examples), answers)
    column = Evaluated()
    column.add_outcomes("dialogue_accuracy", sum(values) / len(values), alike(values), samples)
    folder.mkdir()
    write_table({model: column}, folder)
    if old:
        table = pq.read_table(folder / "answers.parquet")
        pq.write_table(table.drop_columns(["question"]), folder / "answers.parquet")


@pytest.fixture
def reports(tmp_path, monkeypatch):
    monkeypatch.setattr(view, "evaluated_by", lambda uri: (tmp_path / uri, "rlhf"))
    return tmp_path


def test_questions_that_end_alike_are_answered_each_for_itself(reports):
    report(reports / "one", "rlhf", EXAMPLES, ["yes", "no", "yes", "no"], RIGHT)
    rows = view.samples("one", "dialogue")
    assert [row.asked for row in rows] == ["Why?"] * 4
    assert [(row.answered, row.right) for row in rows] == [("yes", True), ("no", False)] * 2
    assert len(view.samples("one", "dialogue", wrong=True)) == 2


def test_two_models_are_side_by_side_question_by_question_though_the_evaluations_ask_in_another_order(reports):
    report(reports / "one", "rlhf", EXAMPLES, ["late", "early", "far", "far again"], RIGHT)
    report(reports / "other", "rlhf", [EXAMPLES[2], EXAMPLES[0], why("Is it new?")], ["far", "late", "new"], RIGHT[:3])
    beside = view.samples("one", "dialogue", "other")
    assert [(row.answered, row.other_answered) for row in beside] == [("late", "late"), ("far", "far")]


def test_answers_of_an_older_evaluation_can_still_be_looked_at(reports):
    examples = [Example([{"role": "user", "content": text}], "So.", ("So.",), text) for text in ("Why?", "How?")]
    report(reports / "old", "rlhf", examples, ["yes", "no"], RIGHT[:2], old=True)
    report(reports / "new", "rlhf", examples, ["no", "no"], RIGHT[:2])
    for first, second in (("old", "new"), ("new", "old")):
        rows = view.samples(first, "dialogue", second)
        assert [(row.asked, row.right) for row in rows] == [("Why?", True), ("How?", False)]
        assert all(row.other_answered for row in rows)
