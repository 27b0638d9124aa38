"""The stage evaluate: the same table of figures for every language model of a run, baselines beside it."""

import json
import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from genai_core.config.release import EvaluateConfig
from genai_core.config.training import InstructConfig
from genai_core.context import Context, Reporter, Result
from genai_core.data.instructions import LABELS, end_of_review, review_openings, sentiment_examples
from genai_core.data.splits import fingerprint
from genai_core.data.tables import read_table
from genai_core.data.token_files import TokenFile, read_tokens
from genai_core.data.tokenizer import load_tokenizer
from genai_core.evaluation import baselines, tasks
from genai_core.evaluation.bits_per_byte import held_out_loss, token_byte_lengths, word_perplexity
from genai_core.hardware import choose_device, choose_precision
from genai_core.inference.reward import OpenedRewardModel, open_reward_model
from genai_core.inference.text import open_text_model

NGRAM_ORDER = 6
LEAD_WORDS = 3
Figures = dict[str, float]
Outcomes = dict[str, list[list[float]]]
"""Figure to a pair of lists, values and weights: the figure is about the sum of the values over that of the weights."""


@dataclass(frozen=True)
class Questions:
    """The held-out text and the questions, the same for every model."""

    files: dict[str, TokenFile]
    byte_lengths: torch.Tensor
    reviews: list[dict[str, Any]]
    translations: list[dict[str, Any]]
    references: dict[str, list[str]]
    titles: list[dict[str, Any]]
    trivia: list[dict[str, Any]]
    openings: list[str]


def run(config: EvaluateConfig, *, base: Path, instruct: Path, rlhf: Path, quantized: Path, reward: Path, tokens: Path,
        cleaned: Path, mixture: InstructConfig, completion_tokens: int, opening_words: int, out_dir: Path,
        context: Context) -> Result:
    """Write `evaluation.json` (model to figure to value, and the baselines), `samples.json` and `outcomes.json`.

    The outcomes of single questions and windows of text tell how much of a difference between two models is noise.
    The base model is asked in plain text, all others in chats.
    """
    models = {"base": base, "instruct": instruct, "rlhf": rlhf, "int8": quantized / "int8", "int4": quantized / "int4"}
    reporter, device = context.reporter, choose_device(context.device)
    reward_model = open_reward_model(reward, device)
    questions = _choose(config, tokens, cleaned, opening_words)
    table: dict[str, Figures] = {}
    samples: dict[str, list[tasks.Sample]] = {}
    outcomes: dict[str, Outcomes] = {}
    for done, (name, directory) in enumerate(models.items()):
        reporter.progress(done, len(models) + 1, "models")
        table[name], samples[name], outcomes[name] = _evaluate(config, name, directory, questions, reward_model,
                                                               completion_tokens, device, reporter)
        reporter.note(f"{name}: " + ", ".join(f"{figure} {value:.4g}" for figure, value in table[name].items()))
    reporter.progress(len(models), len(models) + 1, "models")
    table["baseline"] = _baselines(cleaned, questions, reporter)
    if questions.reviews:
        table["baseline"] |= _sentiment_baselines(cleaned, mixture, questions, opening_words, reporter)
    reporter.progress(len(models) + 1, len(models) + 1, "models")
    _write(out_dir / "evaluation.json", table)
    _write(out_dir / "samples.json", samples)
    (out_dir / "outcomes.json").write_text(json.dumps(outcomes) + "\n", encoding="utf-8")
    return Result({f"{model}/{figure}": value for model, figures in table.items() for figure, value in figures.items()})


def _choose(config: EvaluateConfig, tokens: Path, cleaned: Path, opening_words: int) -> Questions:
    names = sorted(path.name.removesuffix(".bin") for path in [*tokens.glob("validation.*.bin"),
                                                                *tokens.glob("test.*.bin")])
    return Questions(
        files={name: read_tokens(tokens, name) for name in names},
        byte_lengths=token_byte_lengths(load_tokenizer(tokens)),
        reviews=tasks.held_out(cleaned, "sentiment", config.sentiment_reviews, config.seed),
        translations=tasks.held_out(cleaned, "translation", config.translations, config.seed),
        references=tasks.translation_references(cleaned),
        titles=tasks.held_out(cleaned, "title", config.titles, config.seed),
        trivia=tasks.held_out(cleaned, "trivia", config.trivia_questions, config.seed),
        openings=review_openings(cleaned, "test", opening_words, config.seed)[:config.reward_prompts])


def _evaluate(config: EvaluateConfig, name: str, directory: Path, questions: Questions,
              reward_model: OpenedRewardModel, completion_tokens: int, device: torch.device,
              reporter: Reporter) -> tuple[Figures, list[tasks.Sample], Outcomes]:
    opened = open_text_model(directory, device)
    model, device = opened.model, opened.device
    precision = choose_precision(device)
    subject = tasks.Subject(model, opened.tokenizer, chats=name != "base")
    figures: Figures = {}
    outcomes: Outcomes = {}
    for file_name, file in questions.files.items():
        loss = held_out_loss(model, file, questions.byte_lengths, model.context_length, overlap=True,
                             max_tokens=config.bits_per_byte_tokens, device=device, precision=precision)
        figures[f"bits_per_byte/{file_name}"] = loss.bits_per_byte
        outcomes[f"bits_per_byte/{file_name}"] = [[round(nats / math.log(2), 3) for nats, _ in loss.windows],
                                                  [size for _, size in loss.windows]]
        if file.raw_words.any() and file_name.startswith("test."):
            figures[f"word_perplexity/{file_name}"] = word_perplexity(loss, file)
    held_out = [value for figure, value in figures.items() if figure.startswith("bits_per_byte/validation.")]
    figures["bits_per_byte"] = sum(held_out) / len(held_out)
    samples = []
    by_figure: dict[str, Any] = {
        "sentiment_accuracy": (questions.reviews, lambda: tasks.sentiment(subject, questions.reviews)),
        "translation_chrf": (questions.translations, lambda: tasks.translation(subject, questions.translations,
                                                                               questions.references)),
        "title_chrf": (questions.titles, lambda: tasks.titles(subject, questions.titles)),
        "trivia_exact_match": (questions.trivia, lambda: tasks.trivia(subject, questions.trivia)),
        "mean_reward": (questions.openings, lambda: tasks.reward(subject, reward_model, questions.openings,
                                                                 completion_tokens, config.seed)),
    }
    for figure, (questions_of_task, ask) in by_figure.items():
        if questions_of_task:
            result = ask()
            figures[figure] = result.figure
            if result.cut_prompts:
                reporter.note(f"{name}: of {len(questions_of_task):,} prompts for {figure} {result.cut_prompts:,} "
                              f"lost their beginning to fit the context of {model.context_length:,} tokens")
            samples += result.samples[:config.samples]
            outcomes[figure] = [[round(outcome, 4) for outcome in result.outcomes], [1.0] * len(result.outcomes)]
    return figures, samples, outcomes


def _baselines(cleaned: Path, questions: Questions, reporter: Reporter) -> Figures:
    """Figures that any model must beat, from the same training and held-out text."""
    documents = read_table(cleaned, "documents")
    train = "\n\n".join(row["text"] for row in documents if row["split"] == "train").encode()
    texts = {name: "\n\n".join(row["text"] for row in documents
                               if f"{row['split']}.{row['source'].split('/')[0]}" == name).encode()
             for name in questions.files}
    reporter.note(f"baselines: xz and byte {NGRAM_ORDER}-grams over {len(train):,} bytes, TF-IDF, copying")
    ngrams = baselines.ByteNgrams(NGRAM_ORDER).bits_per_byte(train, texts)
    figures = {f"bits_per_byte/{name}": value for name, value in ngrams.items()}
    figures |= {f"xz_bits_per_byte/{name}": baselines.xz_bits_per_byte(text) for name, text in texts.items()}
    validation = [value for name, value in ngrams.items() if name.startswith("validation.")]
    figures["bits_per_byte"] = sum(validation) / len(validation)
    if questions.translations:
        figures["translation_chrf"] = tasks.chrf([row["source_text"] for row in questions.translations],
                                                 [questions.references[row["source_text"]]
                                                  for row in questions.translations])
    if questions.titles:      # the first words of a text are the best guess that needs no model
        figures["title_chrf"] = tasks.chrf([" ".join(row["text"].split()[:LEAD_WORDS]) for row in questions.titles],
                                           [[row["title"]] for row in questions.titles])
    if questions.trivia:
        figures["trivia_exact_match"] = _most_frequent_answer(cleaned, questions.trivia)
    return figures


def _sentiment_baselines(cleaned: Path, mixture: InstructConfig, questions: Questions, opening_words: int,
                         reporter: Reporter) -> Figures:
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


def _write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
