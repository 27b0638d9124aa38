"""The column of baselines: figures that any model must beat, from the same training and held-out text."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from genai_core.config.release import EvaluateConfig
from genai_core.config.tasks import Mixture, Task
from genai_core.context import Reporter
from genai_core.data.instruction.examples import Example, iterate_examples
from genai_core.data.instruction.mixture import labelled_examples
from genai_core.data.shards.splits import fingerprint
from genai_core.evaluation.baselines.simple import ByteNgrams, majority_accuracy, tfidf_accuracy, xz_bits_per_byte
from genai_core.evaluation.baselines.training_data import MOST_BYTES, SEPARATOR, training_examples, training_text
from genai_core.evaluation.bits_per_byte import STRETCH
from genai_core.evaluation.intervals import figure_interval
from genai_core.evaluation.language_model import Evaluated, add_mean_bits_per_byte
from genai_core.evaluation.questions import held_out_text, texts_of
from genai_core.evaluation.tasks import JUDGES, AskedTask, chosen_among

NGRAM_ORDER = 6
LEAD_WORDS = 3


def evaluate_baselines(config: EvaluateConfig, cleaned: Path, tokens: Path, mixture: Mixture, seed: int,
                       questions: list[AskedTask], reporter: Reporter) -> Evaluated:
    """n-grams and xz on bits per byte, and for each metric of each task what needs no language model. `seed` is that of
    the mixture."""
    result = Evaluated()
    _add_bits_per_byte(result, config, cleaned, tokens, reporter)
    for asked in questions:
        learns = asked.task.judged_by != ("accuracy",)      # its baselines read what they learn from themselves
        known = training_examples(asked.name, asked.task, cleaned, reporter) if learns else []
        for metric in asked.task.judged_by:
            if metric == "accuracy":
                result.figures |= _accuracy_baselines(asked, cleaned, mixture, seed, reporter)
            elif metric == "multiple_choice":
                result.figures |= _multiple_choice_baselines(asked, known)
            elif metric == "bits_per_byte":
                result.figures[f"{asked.name}_bits_per_byte"] = _answer_bits_per_byte(asked, known)
            elif asked.freely_answered:
                figures = [JUDGES[metric](guesses, asked.freely_answered)[0] for guesses in _guesses(asked, known)]
                result.figures |= {f"{asked.name}_{metric}": max(figures)} if figures else {}
    return result


def _guesses(asked: AskedTask, known: list[Example]) -> Iterator[list[str]]:
    """Answers that need no model: for pairs the source and its first words, else the most frequent training answer."""
    examples = asked.freely_answered
    if asked.task.content == "pairs":
        yield [example.subject for example in examples]
        yield [" ".join(example.subject.split()[:LEAD_WORDS]) for example in examples]
    elif known := replace(asked, examples=known).freely_answered:
        counts = Counter(fingerprint(answer) for example in known for answer in example.answers)
        best = next(answer for example in known for answer in example.answers
                    if fingerprint(answer) == counts.most_common(1)[0][0])
        yield [best] * len(examples)


def _multiple_choice_baselines(asked: AskedTask, known: list[Example]) -> dict[str, float]:
    """The best of choosing the longest, the place where most right choices of the training problems stand, and the
    likeliest by its bytes under n-grams of those; and, as `TASK_chance_multiple_choice`, of choosing at random."""
    examples = asked.with_choices
    if not examples:
        return {}
    guesses = [[int(np.argmax([len(choice.encode()) for choice in example.choices])) for example in examples]]
    if known := replace(asked, examples=known).with_choices:
        place = Counter(example.choices.index(example.answer) for example in known).most_common(1)[0][0]
        guesses.append([min(place, len(example.choices) - 1) for example in examples])
        guesses.append(_likeliest_choices(examples, known))
    chance = [sum(choice in example.answers for choice in example.choices) / len(example.choices)
              for example in examples]
    return {f"{asked.name}_multiple_choice": max(chosen_among(asked.name, examples, each).figure for each in guesses),
            f"{asked.name}_chance_multiple_choice": sum(chance) / len(chance)}


def _likeliest_choices(examples: list[Example], known: list[Example]) -> list[int]:
    """Of each example the choice with the fewest bits per byte under n-grams of the training answers."""
    choices = {f"{number}/{place}": choice.encode() for number, example in enumerate(examples)
               for place, choice in enumerate(example.choices)}
    bits = ByteNgrams(NGRAM_ORDER).bits_per_byte(_answers(known), choices)
    return [int(np.argmin([bits[f"{number}/{place}"] for place in range(len(example.choices))]))
            for number, example in enumerate(examples)]


def _answers(known: list[Example]) -> bytes:
    """The training answers, joined; of more than n-grams take, every second one, or every third, and so on."""
    step = 1 + sum(len(example.answer.encode()) for example in known) // MOST_BYTES
    return SEPARATOR.join(example.answer.encode() for example in known[::step])


def _answer_bits_per_byte(asked: AskedTask, known: list[Example]) -> float:
    """Of the answers under byte n-grams of the training answers."""
    held_out = {str(number): example.answer.encode() for number, example in enumerate(asked.examples)}
    bits = ByteNgrams(NGRAM_ORDER).bits(_answers(known), held_out)
    return float(sum(each.sum() for each in bits.values()) / max(1, sum(map(len, bits.values()))))


def _add_bits_per_byte(result: Evaluated, config: EvaluateConfig, cleaned: Path, tokens: Path, reporter: Reporter
                       ) -> None:
    """Of the same first bytes of each file as the models'. Like a model's end-of-text tokens, what stands between two
    documents is predicted and counts as no byte."""
    text = held_out_text(tokens)
    train, size = training_text(cleaned)
    sample = f" of the {size:,} there are, an even sample" if len(train) < size else ""
    reporter.note(f"baselines: xz and byte {NGRAM_ORDER}-grams over {len(train):,} bytes{sample}, and what each task "
                  "has")
    held_out, counted = {}, {}
    for name, file in text.files.items():
        sizes = text.byte_lengths[file.ids[:config.bits_per_byte_tokens + 1].astype("int64")]
        held_out[name], counted[name] = _joined(texts_of(cleaned, name), int(sizes.sum()))
    for name, bits in ByteNgrams(NGRAM_ORDER).bits(train, held_out).items():
        number = (counted[name].cumsum() - counted[name]) // STRETCH
        by_stretch = [np.bincount(number, weights).round(3).tolist() for weights in (bits, counted[name])]
        result.outcomes[f"bits_per_byte/{name}"] = by_stretch
        value = result.figures[f"bits_per_byte/{name}"] = float(bits.sum() / counted[name].sum())
        if interval := figure_interval(by_stretch, value):
            result.intervals[f"bits_per_byte/{name}"] = interval
        result.figures[f"xz_bits_per_byte/{name}"] = xz_bits_per_byte(held_out[name])
    add_mean_bits_per_byte(result)


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


def _accuracy_baselines(asked: AskedTask, cleaned: Path, mixture: Mixture, seed: int, reporter: Reporter
                        ) -> dict[str, float]:
    """Accuracy of the most frequent label and of TF-IDF with logistic regression, the latter twice.

    `TASK_accuracy` learns from the records of the mixture that the chat model was fine-tuned on, and reads the same
    words of each; `TASK_tfidf_full_accuracy` learns from every labelled training record (an even
    choice where there are more than MOST_EXAMPLES) and reads all of it.
    """
    labels = [example.answer for example in asked.examples]
    figures = {f"{asked.name}_majority_accuracy": majority_accuracy(labels)}
    whole = asked.task.model_copy(update={"first_words": None, "last_words": None})
    every = training_examples(asked.name, whole, cleaned, reporter)
    for figure, known, of in (
            ("accuracy", labelled_examples(cleaned, mixture, asked.name, seed), asked.examples),
            ("tfidf_full_accuracy", every, _uncut(asked, whole, cleaned))):
        if len({example.answer for example in known}) < 2:
            reporter.note(f"{asked.name}: no baseline {figure}: fewer than two labels to learn from")
            continue
        figures[f"{asked.name}_{figure}"] = tfidf_accuracy(
            [example.subject for example in known], [example.answer for example in known],
            [example.subject for example in of], [example.answer for example in of])
    return figures


def _uncut(asked: AskedTask, whole: Task, cleaned: Path) -> list[Example]:
    """The questions asked, each with all of its text."""
    cut = {repr(example.asked) for example in asked.examples}
    both = zip(iterate_examples(asked.task, cleaned, "test"), iterate_examples(whole, cleaned, "test"), strict=True)
    return [full for part, full in both if repr(part.asked) in cut]
