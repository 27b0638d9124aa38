"""Declared tasks: templates name what a record has, and records of every kind become questions with their answers."""

import numpy as np
import pytest
from pydantic import ValidationError

from genai_core.config.pipeline import load_pipeline
from genai_core.config.tasks import TEMPLATE_FIELDS, Lesson, Task
from genai_core.data.instruction.examples import (
    examples_of,
    opening_and_continuation,
    plain_question,
    prompts_of,
    questions_of,
)
from genai_core.data.instruction.mixture import POWERS
from genai_core.data.instruction.packing import pack
from genai_core.data.tokens.batches import IGNORED
from genai_core.errors import InputError
from tests.genai_core.tables import chat, document, pair, preference, problem, rating, turns, write_tables


@pytest.fixture
def cleaned(tmp_path):
    def make(**tables):
        return write_tables(tmp_path, **tables)

    return make


@pytest.mark.parametrize(("fields", "message"), [
    ({"content": "labelled", "prompt": "Is {txt} good?"}, "prompt: {txt} is not known of labelled; there is {text}"),
    ({"content": "labelled", "prompt": "{label}: {text}"}, "prompt: {label} is not known of labelled"),
    ({"content": "labelled", "answer": "{text}"}, "answer: {text} is not known of labelled; there is {label}"),
    ({"content": "pairs", "plain_prompt": "{text}:"}, "plain_prompt: {text} is not known of pairs; there is {source}"),
    ({"content": "pairs", "prompt": "Translate:"}, "prompt: 'Translate:' does not say {source}, so every record"),
    ({"content": "problems", "prompt": "Solve { {prompt}"}, "prompt: 'Solve { {prompt}' is no template"),
    ({"content": "problems", "prompt": "{}"}, "prompt: {} is not known of problems"),
    ({"content": "problems", "prompt": "{prompt.__class__}"}, "{prompt.__class__} is not known of problems"),
    ({"content": "chats", "prompt": "{text}"}, "prompt: chats are taken as they stand, so there is nothing to word"),
    ({"content": "preferences", "answer": "x"}, "answer: preferences are taken as they stand"),
    ({"content": "pairs", "metrics": ["accuracy"]}, "metrics: accuracy is of labelled records, these are pairs"),
])
def test_a_template_that_names_what_a_record_does_not_have_is_refused_in_one_clear_line(fields, message):
    with pytest.raises(ValidationError) as caught:
        Task(**fields)
    assert message in str(caught.value)
    with pytest.raises(InputError) as told:
        load_pipeline("smoke", {"tasks.mine": fields})
    assert f"tasks.mine: {message}" in str(told.value) or message in str(told.value)
    assert "\n" not in str(told.value)


def test_braces_of_the_text_itself_are_written_twice_and_those_of_a_record_are_left_alone(cleaned):
    task = Task(content="problems", prompt="Give {{json}} for {prompt}", answer="-> {answer}")
    (example,) = examples_of(task, cleaned(problems=[problem("{x} {0}", "{1}")]), "train")
    assert example.asked == turns("Give {json} for {x} {0}") and example.answer == "-> {1}"


@pytest.mark.parametrize("content", TEMPLATE_FIELDS)
def test_every_kind_of_content_has_its_questions_and_answers(cleaned, content):
    directory = cleaned(
        documents=[document("one two three four five six seven eight nine ten. eleven"),
                   document("a film", label="good")],
        pairs=[pair("Go.", "Ve.")], problems=[problem("1 + 1", "2", "two")],
        chats=[chat("Hi", "Hello", "How?", "Well")], preferences=[preference("Why?", "Because.", "No.")],
        ratings=[rating(turns("Good?", "Yes"), 5.0), rating(turns("Bad?", "No"), 1.0),
                 rating("a text", 9.0, source="texts")])
    found = examples_of(Task(content=content), directory, "train")
    expected = {
        "documents": [(turns("one two three four five"), ("six seven eight nine ten.",))],
        "labelled": [(turns("a film"), ("good",))], "pairs": [(turns("Go."), ("Ve.",))],
        "problems": [(turns("1 + 1"), ("2", "two"))], "chats": [(turns("Hi", "Hello", "How?"), ("Well",))],
        "preferences": [(turns("Why?"), ("Because.",))], "ratings": [(turns("Good?"), ("Yes",))]}
    assert [(example.asked, example.answers) for example in found] == expected[content]
    assert all(example.chat == [*example.asked, {"role": "assistant", "content": example.answers[0]}]
               for example in found)
    assert all(example.continues == (content == "documents") for example in found)


def test_rated_conversations_teach_where_they_are_above_the_mean_of_their_own_source(cleaned):
    """Five stars of one source and a thumb of another do not share a scale; what has the mean itself teaches not."""
    directory = cleaned(ratings=[
        *(rating(turns(f"stars {value}?", "x"), value, source="stars") for value in (1.0, 3.0, 5.0)),
        *(rating(turns(f"thumb {value}?", "x"), value, source="thumbs") for value in (0.0, 1.0)),
        rating(turns("alone?", "x"), 2.0, source="flat")])
    found = examples_of(Task(content="ratings"), directory, "train")
    assert [example.asked[0]["content"] for example in found] == ["stars 5.0?", "thumb 1.0?"]


def test_a_task_takes_the_records_of_its_sources_and_of_parts_of_one(cleaned):
    directory = cleaned(pairs=[pair(name, "x", source=name) for name in ("a", "a/b", "ab", "c/a")])
    for sources, taken in (((), ["a", "a/b", "ab", "c/a"]), (("a",), ["a", "a/b"]), (("a/b", "c"), ["a/b", "c/a"])):
        found = examples_of(Task(content="pairs", sources=sources), directory, "train")
        assert [example.subject for example in found] == taken


@pytest.mark.parametrize(("fields", "subject"), [
    ({}, "one  two three\nfour"), ({"first_words": 2}, "one two"), ({"last_words": 3}, "two three four"),
    ({"first_words": 3, "last_words": 2}, "two three"), ({"first_words": 9}, "one two three four"),
    ({"min_words": 4}, "one  two three\nfour"), ({"min_words": 5}, None)])
def test_first_and_last_words_are_those_of_the_record_and_short_records_are_left_out(cleaned, fields, subject):
    directory = cleaned(documents=[document("one  two three\nfour", label="x")])
    found = examples_of(Task(content="labelled", prompt="What? {text}", **fields), directory, "train")
    assert [example.subject for example in found] == ([subject] if subject else [])
    assert [example.asked for example in found] == ([turns(f"What? {subject}")] if subject else [])


def test_a_question_that_several_records_answer_is_asked_once_with_every_answer(cleaned):
    directory = cleaned(pairs=[pair("Go.", "Ve."), pair("Stop.", "Alto."), pair("Go.", "Vaya."), pair("Go.", "Ve.")])
    task = Task(content="pairs")
    assert [(example.subject, example.answers) for example in questions_of(task, directory, "train")] == [
        ("Go.", ("Ve.", "Vaya.")), ("Stop.", ("Alto.",))]
    assert len(examples_of(task, directory, "train")) == 4, "fine-tuning learns each record"


def test_prompts_of_several_tasks_are_shuffled_together_and_keep_their_tasks(cleaned):
    directory = cleaned(pairs=[pair(f"p{number}", "x") for number in range(20)],
                        problems=[problem(f"q{number}", "x") for number in range(20)])
    tasks = {"pairs": Task(content="pairs"), "problems": Task(content="problems"), "other": Task(content="chats")}
    found = prompts_of(tasks, ("pairs", "problems"), directory, "train", 0)
    names = [name for name, _ in found]
    assert names.count("pairs") == names.count("problems") == 20 and len(set(names[:20])) == 2
    assert all(example.subject[0] == {"pairs": "p", "problems": "q"}[name] for name, example in found)
    assert found == prompts_of(tasks, ("pairs", "problems"), directory, "train", 0)
    assert found != prompts_of(tasks, ("pairs", "problems"), directory, "train", 1)


@pytest.mark.parametrize(("task", "question"), [
    (Task(content="labelled", plain_prompt="Review: {text}\nIt is"), "Review: a film\nIt is"),
    (Task(content="labelled", prompt="Good? {text}"), "a film\nLabel:"), (Task(content="pairs"), "Go.\nAnswer:"),
    (Task(content="problems"), "Question: 1 + 1\nAnswer:"), (Task(content="documents", opening_words=2), "one two"),
    (Task(content="chats"), "User: Hi\nAssistant: Hello\nUser: How?\nAssistant:"),
    (Task(content="preferences"), "User: Why?\nAssistant:")])
def test_a_base_model_is_asked_in_plain_text(cleaned, task, question):
    directory = cleaned(documents=[document("a film", label="good"), document("one two three four five six seven.")],
                        pairs=[pair("Go.", "Ve.")], problems=[problem("1 + 1", "2")],
                        chats=[chat("Hi", "Hello", "How?", "Well")], preferences=[preference("Why?", "So.", "No.")])
    assert plain_question(task, examples_of(task, directory, "train")[0]) == question


def test_a_continuation_ends_with_a_sentence_and_is_no_shorter_than_five_words():
    text = "a b c d e f g. h i j! k l"
    assert opening_and_continuation(text, 2, 36) == ("a b", "c d e f g. h i j!")
    assert opening_and_continuation(text, 2, 6) == ("a b", "c d e f g.")
    assert opening_and_continuation(text, 3, 5) is None      # four words up to the end of the sentence
    assert opening_and_continuation("a b c d e f g h", 2, 36) is None


@pytest.mark.parametrize("loss", POWERS)
def test_an_answer_of_n_tokens_weighs_n_its_root_or_one(loss):
    """Each of its tokens the n-th part of it."""
    lengths = (1, 4, 9, 25)
    chats = [([number] * (length + 1), [False] + [True] * length) for number, length in enumerate(lengths, start=1)]
    rows = pack(chats, 40, pad_id=0, powers=[POWERS[loss]] * len(chats))
    for number, length in enumerate(lengths, start=1):
        weights = rows.weights[rows.targets == number]
        assert len(weights) == length and np.ptp(weights) == 0
        assert weights.sum() == pytest.approx({"token": length, "root": length ** 0.5, "example": 1}[loss])
    assert rows.weights[rows.targets == IGNORED].sum() == 0


def test_lessons_that_weigh_differently_do_so_in_one_row():
    chats = [([number] * 5, [False] + [True] * 4) for number in (1, 2, 3)]
    rows = pack(chats, 40, pad_id=0, powers=[1.0, 0.5, 0.0])
    assert len(rows.ids) == 1
    assert [rows.weights[rows.targets == number].sum() for number in (1, 2, 3)] == pytest.approx([4, 2, 1])


def test_the_lesson_of_a_task_is_what_fine_tuning_depends_on_and_no_more():
    task = Task(content="pairs", prompt="Say {source}", examples=5, questions=7, metrics=("chrf",), plain_prompt="")
    assert task.lesson == Lesson(content="pairs", prompt="Say {source}", examples=5)
    assert not {"questions", "metrics", "plain_prompt", "labels", "answer_tokens"} & set(Lesson.model_fields)
