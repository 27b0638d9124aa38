"""Every figure has an interval, every answer is kept, and nothing depends on how many are asked at a time."""

import json
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from genai_core.config.release import EvaluateConfig
from genai_core.config.tasks import Task
from genai_core.data.instruction.examples import Example, user_asks
from genai_core.data.tokens.token_files import TokenFile
from genai_core.evaluation import tasks as asking
from genai_core.evaluation.bits_per_byte import held_out_loss, token_byte_lengths
from genai_core.evaluation.intervals import figure_interval, mean_interval, ratio_interval
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
