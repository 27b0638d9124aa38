"""What baselines learn from is bounded and even, and what the evaluation lacks is told before anything is trained."""

import numpy as np
import pytest

from genai_core.config.data import CleanConfig
from genai_core.config.release import EvaluateConfig, Gold
from genai_core.config.tasks import Task
from genai_core.context import Context
from genai_core.data.instruction.examples import examples_of, questions_of
from genai_core.data.shards.tables import read_table
from genai_core.errors import InputError
from genai_core.evaluation.baselines.column import _multiple_choice_baselines
from genai_core.evaluation.baselines.simple import _counts
from genai_core.evaluation.baselines.training_data import even_sample, training_examples, training_text
from genai_core.evaluation.prerequisites import check_gold_share, check_good_label, gaps_of_tasks
from genai_core.evaluation.questions import choose_questions, known_labels, texts_of
from genai_core.evaluation.tasks import AskedTask
from genai_core.stages import clean
from tests.genai_core.tables import document, pair, problem, rating, write_tables

TEXTS = [f"This is text number {number} of them all, naïve." for number in range(400)]


@pytest.fixture
def documents(tmp_path):
    rows = [document(text, source=f"source{number % 2}/part") for number, text in enumerate(TEXTS)]
    return write_tables(tmp_path, documents=[*rows, document("held out", source="source0", split="test")])


def test_training_text_that_fits_is_taken_whole(documents):
    rows = read_table(documents, "documents", split="train")
    whole = b"\n\n".join(row["text"].encode() for row in rows)
    assert training_text(documents) == (whole, len(whole)) == training_text(documents, len(whole))


def test_of_more_training_text_an_even_sample_is_taken(documents):
    _, total = training_text(documents)
    sample, told = training_text(documents, total // 4)
    assert told == total and 0.8 * total / 4 < len(sample) <= total // 4
    numbers = [int(text.split()[4]) for text in sample.decode().split("\n\n") if len(text.split()) > 4]
    assert 0.3 < np.mean([number % 2 for number in numbers]) < 0.7, "both sources"
    assert sample == training_text(documents, total // 4)[0]


def test_a_sample_of_examples_is_even_ordered_and_told(tmp_path, recorder):
    assert even_sample(range(5), 5) == ([0, 1, 2, 3, 4], 5)
    drawn, count = even_sample(range(10_000), 1000)
    assert count == 10_000 and len(drawn) == 1000 and drawn == sorted(drawn)
    assert abs(np.mean(drawn) - 5000) < 300
    cleaned = write_tables(tmp_path, pairs=[pair(f"one {number}", "two") for number in range(20)])
    task = Task(content="pairs")
    assert training_examples("x", task, cleaned, recorder) == examples_of(task, cleaned, "train")
    assert not recorder.notes and len(training_examples("x", task, cleaned, recorder, most=5)) == 5
    assert recorder.notes == ["x: the baselines learn from 5 of 20 training records, an even choice"]


@pytest.mark.parametrize("count", [0, 1, 5000])
def test_ngrams_are_counted_as_numpy_counts_them(count):
    grams = np.random.default_rng(0).integers(0, 300, count).astype(np.uint64)
    expected = np.unique(grams, return_counts=True)
    found = _counts(grams)
    assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))


def test_held_out_texts_are_those_of_all_parts_of_a_source(tmp_path):
    cleaned = write_tables(tmp_path, documents=[
        document("a", source="x/one", split="test"), document("b", source="x/two", split="test"),
        document("c", source="xy", split="test"), document("d", source="x/one")])
    assert list(texts_of(cleaned, "test.x")) == ["a", "b"]


def test_labels_are_those_of_the_training_records_of_the_task(tmp_path):
    cleaned = write_tables(tmp_path, documents=[
        document("a", "good", "x/one"), document("b", "bad", "x/two"), document("c", "odd", "y"), document("d"),
        document("e", "new", "x/one", split="test")])
    assert known_labels(Task(content="labelled", sources=("x",)), cleaned) == ("bad", "good")


SUMS = [problem(f"{number} + 1", str(number + 1), choices=["none", str(number + 1), "many of them"])
        for number in range(6)]


def test_baselines_of_multiple_choice(tmp_path):
    """The right one always comes second in training, where it is found by place; chance is one in three."""
    cleaned = write_tables(tmp_path, problems=[*SUMS, problem("Why?", "because")])
    task = Task(content="problems")
    known = examples_of(task, cleaned, "train")
    figures = _multiple_choice_baselines(AskedTask("sums", task, known), known)
    assert figures == {"sums_multiple_choice": 1.0, "sums_chance_multiple_choice": pytest.approx(1 / 3)}
    without = [example for example in known if not example.choices]
    assert _multiple_choice_baselines(AskedTask("sums", task, without), known) == {}


def test_one_question_with_other_choices_is_another_problem(tmp_path):
    cleaned = write_tables(tmp_path, problems=[
        problem("Which is true?", "a", choices=["a", "b"]), problem("Which is true?", "d", choices=["c", "d"]),
        problem("Which is true?", "b", choices=["a", "b"])])
    found = questions_of(Task(content="problems"), cleaned, "train")
    assert [(each.choices, each.answers) for each in found] == [(("a", "b"), ("a", "b")), (("c", "d"), ("d",))]


def test_choices_are_cleaned_like_the_answer_that_is_one_of_them(tmp_path):
    """Two that cleaning makes equal are no choice any more."""
    collected, cleaned = tmp_path / "collected", tmp_path / "cleaned"
    write_tables(collected, problems=[
        problem("Which one is it?", "schÃ¶n  and good", choices=["bad", "schÃ¶n  and good"]),
        problem("Whose address is it?", "a@example.org", choices=["a@example.org", "b@example.org"])],
        documents=[document("This is a film that I would watch again, and the cast of it is a joy to see here.")])
    cleaned.mkdir()
    clean.run(CleanConfig(), collected=collected, out_dir=cleaned, context=Context(tmp_path))
    first = next(row for row in read_table(cleaned, "problems") if row["prompt"].startswith("Which"))
    assert first["choices"] == ["bad", "schön and good"] and first["answers"] == ["schön and good"]
    examples = examples_of(Task(content="problems"), cleaned, "train")
    assert sorted(len(example.choices) for example in examples) == [0, 2]


def test_gaps_of_tasks_are_told(tmp_path):
    cleaned = write_tables(
        tmp_path, pairs=[pair("one", "two")], problems=[problem("1 + 1", "2", split="test")],
        documents=[document("a", "good"), document("b", "good"), document("c", "bad"),
                   document("d", "awful", split="test"), document("e", "good", split="test")])
    tasks = {"translation": Task(content="pairs"), "exam": Task(content="problems", metrics=("multiple_choice",)),
             "sentiment": Task(content="labelled"), "sums": Task(content="problems"),
             "opening": Task(content="documents")}
    assert gaps_of_tasks(tasks, cleaned) == [
        "tasks.translation: no record of it is in the test split, so it has no figure; bring more, or raise "
        "collect.test_fraction",
        "tasks.exam: metrics asks for multiple_choice, and no record of the test split has choices",
        "tasks.sentiment: the label 'awful' in the test split alone, so those 1 questions cannot be answered right; "
        "bring training records of it, or leave it out",
        "tasks.sentiment: the label 'bad' on one training record alone, too few to learn from; bring more"]
    assert [asked.name for asked in choose_questions_of(tasks, cleaned)] == ["exam", "sentiment", "sums"]


def choose_questions_of(tasks, cleaned):
    return choose_questions(EvaluateConfig(), tasks, cleaned)


def test_a_gold_share_that_leaves_one_side_nothing_is_refused(tmp_path):
    cleaned = write_tables(tmp_path, ratings=[rating(f"text {number}", 1.0) for number in range(6)])
    check_gold_share(cleaned, Gold(fraction=0.5), ())
    with pytest.raises(InputError, match=r"evaluate\.gold\.fraction: of 6 training judgements 0 are .* or raise it"):
        check_gold_share(cleaned, Gold(fraction=1e-9), ())
    with pytest.raises(InputError, match=r"6 are for the gold reward and 0 for the reward model, .* or lower it"):
        check_gold_share(cleaned, Gold(fraction=1 - 1e-9), ())


def test_a_good_label_that_tells_nothing_apart_is_refused(tmp_path):
    cleaned = write_tables(tmp_path, documents=[
        document("a", "positive", "films"), document("b", "negative", "films"), document("c", "positive", "books"),
        document("d", "Positive", "books", split="test"), document("e", None, "books")])
    check_good_label(cleaned, Gold(task="x", label="positive"), ("films",), "the records")
    with pytest.raises(InputError, match=r"^evaluate\.gold\.label: 'Positive' is none of the labels of the records, "
                                         "which have the labels 'negative', 'positive'$"):
        check_good_label(cleaned, Gold(task="x", label="Positive"), (), "the records")
    with pytest.raises(InputError, match="the records have no label but 'positive'"):
        check_good_label(cleaned, Gold(task="x", label="positive"), ("books",), "the records")
