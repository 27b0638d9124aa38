"""Every figure has an interval, every answer is kept, and nothing depends on how many are asked at a time."""

import json
import tracemalloc
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from genai_core.config.release import EvaluateConfig
from genai_core.config.tasks import Task
from genai_core.data.instruction.examples import Example, user_asks
from genai_core.data.tokens.token_files import TokenFile
from genai_core.evaluation import intervals
from genai_core.evaluation import tasks as asking
from genai_core.evaluation.bits_per_byte import held_out_loss, token_byte_lengths
from genai_core.evaluation.intervals import (
    difference_interval,
    figure_interval,
    interval_of,
    mean_interval,
    ratio_interval,
)
from genai_core.evaluation.language_model import Evaluated, evaluate_language_model, write_table
from genai_core.evaluation.questions import HeldOutText
from genai_core.evaluation.tasks import AskedTask
from genai_core.export.model_directory import save_model
from genai_core.inference import likelihood

CPU = torch.device("cpu")
TEXTS = {f"{'so ' * (number % 5)}question {number}": f"answer {number % 3}" for number in range(12)}


def questions() -> list[AskedTask]:
    """A task of each kind that is judged: labels, choices, free answers, and the likelihood of people's answers."""
    plain = [Example(user_asks(text), answer, (answer,), text) for text, answer in TEXTS.items()]
    choices = [replace(example, choices=("answer 0", "answer 1", "answer 2 at last")) for example in plain]
    labels = ("answer 0", "answer 1", "answer 2")
    return [AskedTask("sentiment", Task(content="labelled"), plain, labels),
            AskedTask("choice", Task(content="problems"), choices),
            AskedTask("chat", Task(content="chats", answer_tokens=8), plain)]


@pytest.fixture
def text(tokenizer, prose) -> HeldOutText:
    ids = np.array(tokenizer.encode(prose[2][:6000]).ids, dtype="<u2")
    files = {name: TokenFile(ids[start:], np.zeros(1), 0, np.array([300]))
             for name, start in (("validation.a", 0), ("validation.b", 400), ("test.a", 200))}
    return HeldOutText(files, token_byte_lengths(tokenizer))


@pytest.fixture
def evaluated(tiny_model, tokenizer_dir, text, tmp_path, recorder):
    (tmp_path / "model").mkdir()
    save_model(tiny_model, tokenizer_dir, tmp_path / "model")

    def evaluate() -> Evaluated:
        return evaluate_language_model(EvaluateConfig(samples=2), "model", tmp_path / "model", text, questions(),
                                       chats=True, device=CPU, reporter=recorder)
    return evaluate


def test_every_figure_lies_in_its_interval(evaluated):
    found = evaluated()
    assert set(found.intervals) == set(found.figures) >= {"bits_per_byte", "word_perplexity/test.a", "chat_chrf"}
    for figure, value in found.figures.items():
        low, high = found.intervals[figure]
        assert low <= value <= high, figure
    assert found.intervals["bits_per_byte"][0] < found.intervals["bits_per_byte"][1]


def test_every_answer_is_kept_with_what_it_counts(evaluated, tmp_path):
    found = evaluated()
    write_table({"rlhf": found, "baseline": Evaluated({"bits_per_byte": 1.0})}, tmp_path)
    rows = pq.read_table(tmp_path / "answers.parquet").to_pylist()
    for figure in ("sentiment_accuracy", "choice_multiple_choice", "chat_chrf", "chat_bits_per_byte"):
        mine = [row for row in rows if row["figure"] == figure]
        assert [row["asked"] for row in mine] == list(TEXTS) and {row["model"] for row in mine} == {"rlhf"}
        values, weights = found.outcomes[figure]
        assert [row["value"] for row in mine] == pytest.approx([a / b for a, b in zip(values, weights, strict=True)])
    right = [row["answered"] == row["expected"] for row in rows if row["figure"] == "sentiment_accuracy"]
    assert sum(right) / len(right) == pytest.approx(found.figures["sentiment_accuracy"])
    printed = json.loads((tmp_path / "samples.json").read_text())["rlhf"]
    assert len(printed) == 6, "two of each task that a model says something in"
    assert json.loads((tmp_path / "intervals.json").read_text())["rlhf"]["bits_per_byte"]


def test_figures_do_not_depend_on_the_size_of_batches(evaluated, monkeypatch):
    """Of prompts and windows of different lengths, one at a time, a few, and all at once."""
    usual = evaluated()
    original = held_out_loss
    for size in (1, 5, 64):
        monkeypatch.setattr(asking, "SLOTS", size)
        monkeypatch.setattr(likelihood, "BATCH", size)
        monkeypatch.setattr("genai_core.evaluation.language_model.held_out_loss",
                            lambda *args, size=size, **named: original(*args, batch_size=size, **named))
        other = evaluated()
        assert [row["answered"] for row in other.answers] == [row["answered"] for row in usual.answers]
        assert other.figures == pytest.approx(usual.figures, rel=1e-5)


def blocks(values: np.ndarray) -> list[list[float]]:
    return [values.tolist(), [512.0] * len(values)]


def test_the_interval_of_a_mean_over_files_is_narrower_than_that_of_one():
    generator = np.random.default_rng(0)
    files = [blocks(1000 + 100 * generator.normal(size=200)) for _ in range(4)]
    low, high = mean_interval(files, 2.0)
    alone = figure_interval(files[0], 2.0)
    assert high - low == pytest.approx((alone[1] - alone[0]) / 2, rel=0.15), "the noise of four files, by their root"


def test_the_interval_of_a_ratio_is_paired():
    """Blocks differ much, what rounding costs differs little: only pairing sees it."""
    generator = np.random.default_rng(1)
    full = 1000 + 300 * generator.normal(size=100)
    low, high = ratio_interval([blocks(full)], [blocks(full * 1.01 + generator.normal(size=100))], 1.01)
    assert 1.009 < low < 1.01 < high < 1.011


def share(right: int, wrong: int) -> list[list[float]]:
    return [[1.0] * right + [0.0] * wrong, [1.0] * (right + wrong)]


def test_a_share_is_never_beyond_0_and_1_nor_certain():
    assert interval_of("a_accuracy", share(3, 0), 1.0) == (pytest.approx(3 / (3 + 1.96**2), abs=1e-4), 1.0)
    assert interval_of("a_accuracy", share(0, 3), 0.0) == (0.0, pytest.approx(1.96**2 / (3 + 1.96**2), abs=1e-4))
    for right in range(1, 10):
        low, high = interval_of("a_accuracy", share(right, 10 - right), right / 10)
        assert 0 <= low < right / 10 < high <= 1
    ties = [[0.5] * 10, [1.0] * 10]
    assert interval_of("win_rate", ties, 0.5) == pytest.approx((0.2366, 0.7634), abs=1e-4)


def test_equal_outcomes_of_what_is_no_share_have_no_interval():
    assert interval_of("chat_chrf", share(0, 10), 0.0) is None
    assert interval_of("gold_reward", [[-0.7] * 5, [1.0] * 5], -0.7) is None
    assert figure_interval([[1234.5], [512]], 1234.5 / 512) is None


@pytest.mark.parametrize("at_once", [1, 1000, 2**30])
def test_intervals_do_not_depend_on_how_many_resamples_are_drawn_at_a_time(monkeypatch, at_once):
    first, second = share(70, 130), share(80, 120)
    usual = [figure_interval(first, 0.35), difference_interval(first, second, paired=True, centre=0.05),
             difference_interval(first, second, paired=False, centre=0.05), ratio_interval([first], [second], 1.1)]
    monkeypatch.setattr(intervals, "PICKS_AT_ONCE", at_once)
    assert usual == [figure_interval(first, 0.35), difference_interval(first, second, paired=True, centre=0.05),
                     difference_interval(first, second, paired=False, centre=0.05),
                     ratio_interval([first], [second], 1.1)]
    assert usual[0] == pytest.approx((0.285, 0.41), abs=0.006)


def test_the_interval_of_many_questions_takes_little_memory():
    tracemalloc.start()
    interval_of("a_accuracy", share(12_000, 8_000), 0.6)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50e6, "all resamples of 20,000 questions at once are 1.2 GB"
