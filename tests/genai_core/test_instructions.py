"""The mixture of fine-tuning: as many chats of each task as asked for, and nothing that is held out."""

from collections import Counter
from pathlib import Path

import pytest

from genai_core.config.pipeline import load_pipeline
from genai_core.config.release import EvaluateConfig
from genai_core.context import Context
from genai_core.data.instructions import (
    LABELS,
    REVIEW_WORDS,
    TITLE_WORDS,
    build_mixture,
    sentiment_prompt,
    title_prompt,
)
from genai_core.data.tables import read_table
from genai_core.errors import InputError
from genai_core.evaluation import baseline_column
from genai_core.evaluation.questions import Questions, choose_questions
from genai_core.stages import clean, collect

STARTS = {"Translate to Spanish: ": "translation", "Is this review positive": "sentiment",
          "Continue this film review: ": "continuation", "Give this text a title:": "title"}


@pytest.fixture(scope="module")
def cleaned(tmp_path_factory):
    config = load_pipeline("smoke", {"collect.sources.chatterbot": None, "collect.sources.vader": None,
                                     "collect.sources.wikitext-2.limit": 200, "clean.near_duplicate_threshold": 1})
    collected, directory = tmp_path_factory.mktemp("collected"), tmp_path_factory.mktemp("cleaned")
    collect.run(config.collect, out_dir=collected, context=Context(Path(), root=collected))
    clean.run(config.clean, collected=collected, out_dir=directory, context=Context(Path()))
    return directory


def mixture(cleaned, **tasks):
    config = load_pipeline("smoke").instruct
    none = dict.fromkeys(("trivia", "dialogue", "sentiment", "translation", "continuation", "title"), 0)
    return build_mixture(cleaned, config.model_copy(update=none | tasks), opening_words=5)


def test_there_are_as_many_chats_of_each_task_as_asked_for_repeated_where_there_are_fewer(cleaned):
    titles = len(read_table(cleaned, "titles", split="train"))
    wanted = {"trivia": 50, "sentiment": 40, "translation": 30, "continuation": 20, "title": 2 * titles}
    chats = mixture(cleaned, **wanted)
    tasks = Counter(next((task for start, task in STARTS.items() if chat[0]["content"].startswith(start)), "trivia")
                    for chat in chats)
    assert tasks == wanted
    asked = Counter(chat[0]["content"] + chat[1]["content"] for chat in chats
                    if chat[0]["content"].startswith("Give this"))
    assert set(asked.values()) == {2}


def test_the_baseline_of_sentiment_learns_from_the_reviews_of_the_mixture_as_the_model_reads_them(
        cleaned, recorder, monkeypatch):
    """As many, the same ones, cut alike; from all whole reviews there is a figure of its own."""
    config = load_pipeline("smoke").instruct.model_copy(update={"sentiment": 60, "dialogue": 0})
    chats = [chat for chat in build_mixture(cleaned, config, opening_words=5)
             if chat[0]["content"].startswith("Is this review positive")]
    asked = choose_questions(EvaluateConfig(sentiment_reviews=20), cleaned, 5).reviews
    questions = Questions(reviews=asked, translations=[], references={}, titles=[], trivia=[], openings=[])
    learned = {}

    def remember(train_texts, train_labels, texts, labels):
        learned[len(learned)] = (train_texts, train_labels, texts)
        return float(len(learned))

    monkeypatch.setattr(baseline_column.baselines, "tfidf_sentiment_accuracy", remember)
    figures = baseline_column._sentiment_baselines(cleaned, config, questions, 5, recorder)
    assert (figures["sentiment_accuracy"], figures["tfidf_full_reviews_accuracy"]) == (1.0, 2.0)
    texts, labels, held_out_texts = learned[0]
    assert len(texts) == 60
    assert Counter(zip((sentiment_prompt(text) for text in texts), labels, strict=True)) == Counter(
        (chat[0]["content"], LABELS.index(chat[1]["content"])) for chat in chats)
    assert held_out_texts == [" ".join(row["text"].split()[-REVIEW_WORDS:]) for row in asked]
    whole, _, held_out_texts = learned[1]
    assert len(whole) == sum(row["label"] is not None for row in read_table(cleaned, "documents", split="train")) > 60
    assert held_out_texts == [row["text"] for row in asked]


def test_held_out_titles_are_of_articles_that_no_training_text_holds(cleaned):
    asked = choose_questions(EvaluateConfig(titles=1000), cleaned, 5).titles
    assert len(asked) >= 30
    train = {chat[0]["content"] for chat in mixture(cleaned, title=len(read_table(cleaned, "titles", split="train")))}
    assert not train & {title_prompt(row["text"]) for row in asked}
    documents = "\n".join(" ".join(row["text"].split()) for row in read_table(cleaned, "documents", split="train"))
    longer = [row for row in asked if len(row["text"].split()) >= TITLE_WORDS]
    assert longer and not any(" ".join(row["text"].split()[:TITLE_WORDS]) in documents for row in longer)


def test_a_task_without_data_is_named(cleaned):
    with pytest.raises(InputError, match=r"instruct.dialogue: asks for 10 chats, but the collected data has none"):
        mixture(cleaned, dialogue=10)
