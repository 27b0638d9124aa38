"""Fixtures: real English prose that every Python brings, a tokenizer trained on it, and a tiny model."""

import os
import shutil

# Two workers, their subprocesses and OpenMP's threads that spin while they wait make each other two to four times
# slower. One thread each, here and in what the tests start, so that digests are of one thread count too.
os.environ.setdefault("OMP_NUM_THREADS", "1")      # before PyTorch is imported
# hundreds of processes import this project, and each would compile it anew
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

from collections.abc import Iterator
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer

from genai_core.context import LogReporter
from genai_core.data.tokens.token_files import write_tokens
from genai_core.data.tokens.tokenizer import save_tokenizer, train_tokenizer
from genai_core.models.transformer import Transformer, TransformerConfig
from genai_core.training import saver as saver_module
from genai_core.training.loop import GOOD
from genai_core.training.saver import Saver


@pytest.fixture(autouse=True)
def own_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What a test writes may be read by what it calls; other files of this machine may not."""
    monkeypatch.setenv("GENAI_DATA_ROOTS", str(tmp_path))


@pytest.fixture(autouse=True)
def float32() -> Iterator[None]:
    """Equalities are of float32, also where the hardware multiplies bfloat16; tests of that precision ask for it."""
    with pytest.MonkeyPatch.context() as patch:      # one of its own: tests undo theirs
        for probe in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"):
            patch.setattr(torch.cpu, probe, lambda: False)
        yield


@pytest.fixture(scope="session")
def prose() -> list[str]:
    """Pages of Python's own documentation: real text that needs no download."""
    return [topics[name] for name in sorted(topics)]


@pytest.fixture(scope="session")
def tokenizer(prose: list[str]) -> Tokenizer:
    return train_tokenizer(prose, 700)


@pytest.fixture(scope="session")
def tokenizer_dir(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("tokenizer")
    save_tokenizer(tokenizer, directory)
    return directory


@pytest.fixture(scope="session")
def tokens(tokenizer: Tokenizer, prose: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Token files of some pages, as the stage tokenize writes them."""
    directory = tmp_path_factory.mktemp("tokens")
    save_tokenizer(tokenizer, directory)
    for name, texts in (("train", prose[:20]), ("validation.prose", prose[20:24])):
        ids = [encoding.ids for encoding in tokenizer.encode_batch(texts)]
        write_tokens(directory, name, ids, 0, 700, sum(len(text.encode()) for text in texts))
    return directory


TINY = TransformerConfig(vocab_size=700, hidden_size=64, num_hidden_layers=2, num_attention_heads=4,
                         num_key_value_heads=2, head_dim=16, intermediate_size=96, max_position_embeddings=128)


@pytest.fixture
def tiny_model() -> Transformer:
    return tiny()


def tiny() -> Transformer:
    """Random weights, output projections included, so that every path of the network shows in the logits."""
    torch.manual_seed(0)
    model = Transformer(TINY)
    for parameter in model.parameters():
        if parameter.dim() == 2:
            torch.nn.init.normal_(parameter, std=0.08)
        else:
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
    return model.eval()


class Recorder(LogReporter):
    """Keeps what a stage reports."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.points: list[tuple[int, dict[str, float]]] = []

    def metrics(self, step: int, **values: float) -> None:
        self.points.append((step, values))

    def note(self, text: str) -> None:
        self.notes.append(text)


class Interrupted(Exception):
    """A training died."""


def die_after(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Let trainings save after each step, however long it takes, and die once `step` is saved."""
    original = Saver.save

    def save_and_die(saver: Saver, number: int, *rest: Any) -> None:
        original(saver, number, *rest)
        if number == step and saver.directory.name != GOOD:
            raise Interrupted

    monkeypatch.setattr(Saver, "save", save_and_die)
    monkeypatch.setattr(saver_module, "LARGEST_SHARE", 1e9)


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A Chromium without a window."""
    playwright = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not chromium:
        pytest.skip("needs Chromium: make system-packages")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()
