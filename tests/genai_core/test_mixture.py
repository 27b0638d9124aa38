"""The mixture of fine-tuning on the real data: as many chats of each task as it says, and nothing that is held out."""

from collections import Counter
from pathlib import Path

import pytest

from genai_core.config.pipeline import load_pipeline
from genai_core.config.release import EvaluateConfig
from genai_core.config.tasks import Lesson, Mixture
from genai_core.context import Context
from genai_core.data.instruction.examples import examples_of
from genai_core.data.instruction.mixture import build_mixture
from genai_core.data.shards.tables import read_table
from genai_core.errors import InputError
from genai_core.evaluation.baselines import column as baseline_column
from genai_core.evaluation.questions import choose_questions
from genai_core.stages import clean, collect
from tests.genai_core.tables import chat, write_tables

STARTS = {"Translate to Spanish: ": "translation", "Is this review positive": "sentiment",
          "Continue this film review: ": "continuation", "Give this text a title:": "title"}
OFF = {"collect.sources.chatterbot.enabled": False, "collect.sources.vader.enabled": False}
TASKS = load_pipeline("smoke").tasks


@pytest.fixture(scope="module")
def cleaned(tmp_path_factory):
    config = load_pipeline("smoke", OFF | {"collect.sources.wikitext-2.limit": 200,
                                           "clean.near_duplicate_threshold": 1})
    collected, directory = tmp_path_factory.mktemp("collected"), tmp_path_factory.mktemp("cleaned")
    collect.run(config.collect, out_dir=collected, context=Context(Path(), root=collected))
    clean.run(config.clean, collected=collected, out_dir=directory, context=Context(Path()))
    return directory


def mixture(**examples: int | None) -> Mixture:
    """The shipped tasks, as many examples of each as said, and no other task."""
    return Mixture(lessons={name: TASKS[name].lesson.model_copy(update={"examples": count})
                            for name, count in examples.items()})


def task_of(messages) -> str:
    return next((task for start, task in STARTS.items() if messages[0]["content"].startswith(start)), "trivia")


def test_there_are_as_many_chats_of_each_task_as_asked_for_repeated_where_there_are_fewer(cleaned):
    titles = len(examples_of(TASKS["title"], cleaned, "train"))
    wanted = {"trivia": 50, "sentiment": 40, "translation": 30, "continuation": 20, "title": 2 * titles}
    chats = [each.messages for each in build_mixture(cleaned, mixture(**wanted), seed=0)]
    assert Counter(map(task_of, chats)) == wanted
    asked = Counter(messages[0]["content"] + messages[1]["content"] for messages in chats
                    if task_of(messages) == "title")
    assert set(asked.values()) == {2}
    translated = [repr(messages) for messages in chats if task_of(messages) == "translation"]
    assert len(set(translated)) == 30, "nothing is repeated before everything was taken"


def test_without_a_number_every_example_is_taken_once_and_with_0_none(cleaned):
    chats = [each.messages for each in build_mixture(cleaned, mixture(title=None, trivia=0), seed=0)]
    every = [example.chat for example in examples_of(TASKS["title"], cleaned, "train")]
    assert Counter(map(repr, chats)) == Counter(map(repr, every)) and [repr(each) for each in chats] != list(
        map(repr, every)), "in random order"


def test_the_draw_of_a_lesson_hangs_on_the_seed_and_not_on_how_its_answers_weigh(cleaned):
    one = build_mixture(cleaned, mixture(sentiment=40), seed=0)
    lesson = mixture(sentiment=40).lessons["sentiment"].model_copy(update={"loss": "token"})
    other = build_mixture(cleaned, Mixture(lessons={"sentiment": lesson}), seed=0)
    assert [each.messages for each in one] == [each.messages for each in other]
    assert {each.power for each in one} == {0.5} and {each.power for each in other} == {1.0}
    assert one != build_mixture(cleaned, mixture(sentiment=40), seed=1)


def test_the_baseline_of_a_labelled_task_learns_from_the_records_of_the_mixture_as_the_model_reads_them(
        cleaned, recorder, monkeypatch):
    """As many, the same ones, cut alike; from all whole records there is a figure of its own."""
    mixed = mixture(trivia=50, sentiment=60, translation=30)
    chats = [each.messages for each in build_mixture(cleaned, mixed, seed=0)
             if task_of(each.messages) == "sentiment"]
    task = TASKS["sentiment"].model_copy(update={"questions": 20})
    (asked,) = choose_questions(EvaluateConfig(), {"sentiment": task}, cleaned)
    learned = []

    def remember(train_texts, train_labels, texts, labels):
        learned.append((train_texts, train_labels, texts))
        return float(len(learned))

    monkeypatch.setattr(baseline_column, "tfidf_accuracy", remember)
    figures = baseline_column._accuracy_baselines(asked, cleaned, mixed, 0, recorder)
    assert (figures["sentiment_accuracy"], figures["sentiment_tfidf_full_accuracy"]) == (1.0, 2.0)
    texts, labels, held_out_texts = learned[0]
    assert len(texts) == 60
    assert Counter((task.prompt.format(text=text), label) for text, label in zip(texts, labels, strict=True)) == \
        Counter((messages[0]["content"], messages[1]["content"]) for messages in chats)
    assert held_out_texts == [example.subject for example in asked.examples]
    assert max(len(text.split()) for text in held_out_texts) == task.last_words
    whole, _, held_out_texts = learned[1]
    reviews = [row["text"] for row in read_table(cleaned, "documents", split="train")
               if row["label"] is not None and len(row["text"].split()) >= task.min_words]
    assert whole == reviews and len(whole) > 60
    assert sorted(" ".join(text.split()[-task.last_words:]) for text in held_out_texts) == sorted(
        " ".join(example.subject.split()) for example in asked.examples)
    assert max(len(text.split()) for text in held_out_texts) > task.last_words


def test_held_out_titles_are_of_articles_that_no_training_text_holds(cleaned):
    (asked,) = choose_questions(EvaluateConfig(), {"title": TASKS["title"].model_copy(update={"questions": 1000})},
                                cleaned)
    assert len(asked.examples) >= 30
    train = {repr(example.asked) for example in examples_of(TASKS["title"], cleaned, "train")}
    assert not train & {repr(example.asked) for example in asked.examples}
    documents = "\n".join(" ".join(row["text"].split()) for row in read_table(cleaned, "documents", split="train"))
    longest = [example.subject for example in asked.examples
               if len(example.subject.split()) == TASKS["title"].first_words]
    assert longest and not any(subject in documents for subject in longest)


def test_a_lesson_without_training_records_is_named_and_one_without_validation_records_is_left_out(tmp_path):
    write_tables(tmp_path, chats=[chat("Hi", "Hello")])
    absent = Lesson(content="chats", sources=("chatterbot",), examples=10)
    with pytest.raises(InputError, match=r"tasks\.dialogue: there is no training record of chats from chatterbot"):
        build_mixture(tmp_path, Mixture(lessons={"dialogue": absent}), seed=0)
    there = Mixture(lessons={"dialogue": Lesson(content="chats", examples=10)})
    assert len(build_mixture(tmp_path, there, seed=0)) == 10
    assert build_mixture(tmp_path, there, seed=0, split="validation") == []
