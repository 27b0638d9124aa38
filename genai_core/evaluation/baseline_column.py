"""The column of baselines: figures that any model must beat, from the same training and held-out text."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from genai_core.config.release import EvaluateConfig
from genai_core.config.training import InstructConfig
from genai_core.context import Reporter
from genai_core.data.instructions import LABELS, end_of_review, sentiment_examples
from genai_core.data.splits import fingerprint
from genai_core.data.tables import read_table
from genai_core.evaluation import baselines, tasks
from genai_core.evaluation.bits_per_byte import STRETCH
from genai_core.evaluation.language_model import Evaluated, mean_over_validation
from genai_core.evaluation.questions import Questions, held_out_text, texts_of

NGRAM_ORDER = 6
LEAD_WORDS = 3
SEPARATOR = b"\n\n"
"""Between two documents, in place of a model's end-of-text token."""


def evaluate_baselines(config: EvaluateConfig, cleaned: Path, tokens: Path, mixture: InstructConfig,
                       questions: Questions, opening_words: int, reporter: Reporter) -> Evaluated:
    """n-grams and xz on bits per byte, copying, first words, the most frequent answer, and TF-IDF on sentiment."""
    result = Evaluated()
    _add_bits_per_byte(result, config, cleaned, tokens, reporter)
    if questions.translations:
        result.figures["translation_chrf"] = tasks.chrf([row["source_text"] for row in questions.translations],
                                                        [questions.references[row["source_text"]]
                                                         for row in questions.translations])
    if questions.titles:      # the first words of a text are the best guess that needs no model
        result.figures["title_chrf"] = tasks.chrf([" ".join(row["text"].split()[:LEAD_WORDS])
                                                   for row in questions.titles],
                                                  [[row["title"]] for row in questions.titles])
    if questions.trivia:
        result.figures["trivia_exact_match"] = _most_frequent_answer(cleaned, questions.trivia)
    if questions.reviews:
        result.figures |= _sentiment_baselines(cleaned, mixture, questions, opening_words, reporter)
    return result


def _add_bits_per_byte(result: Evaluated, config: EvaluateConfig, cleaned: Path, tokens: Path, reporter: Reporter
                       ) -> None:
    """Of the same first bytes of each file as the models'. Like a model's end-of-text tokens, what stands between two
    documents is predicted and counts as no byte."""
    text = held_out_text(tokens)
    train = SEPARATOR.join(row["text"].encode() for row in read_table(cleaned, "documents", split="train"))
    reporter.note(f"baselines: xz and byte {NGRAM_ORDER}-grams over {len(train):,} bytes, TF-IDF, copying")
    held_out, counted = {}, {}
    for name, file in text.files.items():
        sizes = text.byte_lengths[file.ids[:config.bits_per_byte_tokens + 1].astype("int64")]
        held_out[name], counted[name] = _joined(texts_of(cleaned, name), int(sizes.sum()))
    for name, bits in baselines.ByteNgrams(NGRAM_ORDER).bits(train, held_out).items():
        number = (counted[name].cumsum() - counted[name]) // STRETCH
        by_stretch = [np.bincount(number, weights).round(3).tolist() for weights in (bits, counted[name])]
        result.outcomes[f"bits_per_byte/{name}"] = by_stretch
        result.figures[f"bits_per_byte/{name}"] = float(bits.sum() / counted[name].sum())
        result.figures[f"xz_bits_per_byte/{name}"] = baselines.xz_bits_per_byte(held_out[name])
    result.figures["bits_per_byte"] = mean_over_validation(result.figures)


def _joined(texts: Any, size: int) -> tuple[bytes, np.ndarray]:
    """The first `size` bytes of documents, with separators between, and which bytes are not the separators'."""
    pieces: list[bytes] = []
    for text in texts:
        piece = text.encode()[:size]
        size -= len(piece)
        pieces.append(piece)
        if not size:
            break
    marks = [np.concatenate([np.ones(len(piece)), np.zeros(len(SEPARATOR))]) for piece in pieces]
    return SEPARATOR.join(pieces), np.concatenate(marks)[:-len(SEPARATOR)].astype(int)


def _sentiment_baselines(cleaned: Path, mixture: InstructConfig, questions: Questions, opening_words: int,
                         reporter: Reporter) -> dict[str, float]:
    """Accuracy of the majority class and of TF-IDF with logistic regression, the latter twice.

    `sentiment_accuracy` learns from the reviews of the mixture that the chat model was fine-tuned on, and reads the
    same words of each; `tfidf_full_reviews_accuracy` learns from every labelled training review and reads all of it.
    """
    texts, labels = [row["text"] for row in questions.reviews], [row["label"] for row in questions.reviews]
    figures = {"majority_accuracy": baselines.majority_accuracy(labels)}
    examples = sentiment_examples(cleaned, mixture, opening_words)
    if len({label for _, label in examples}) == len(LABELS):
        figures["sentiment_accuracy"] = baselines.tfidf_sentiment_accuracy(
            [text for text, _ in examples], [label for _, label in examples],
            [end_of_review(text) for text in texts], labels)
    else:
        reporter.note("no baseline of sentiment like for like: the mixture has no reviews of both labels")
    known = [row for row in read_table(cleaned, "documents", split="train") if row["label"] is not None]
    figures["tfidf_full_reviews_accuracy"] = baselines.tfidf_sentiment_accuracy(
        [row["text"] for row in known], [row["label"] for row in known], texts, labels)
    return figures


def _most_frequent_answer(cleaned: Path, questions: list[dict[str, Any]]) -> float:
    """Exact match of always giving the answer that is accepted most often in training."""
    answers = Counter(fingerprint(row["messages"][1]["content"])
                      for row in read_table(cleaned, "chats", split="train") if row["accepted"])
    (best, _), = answers.most_common(1)
    return sum(best in {fingerprint(answer) for answer in row["accepted"]} for row in questions) / len(questions)
