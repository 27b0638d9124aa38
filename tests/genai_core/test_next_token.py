"""Pretraining on a text of any size: windows as long as it fills, and no more passes over it than the config allows."""

from contextlib import nullcontext

import pytest
import torch

from genai_core.config.training import LanguageModelConfig
from genai_core.data.tokens.token_files import read_tokens, write_tokens
from genai_core.data.tokens.tokenizer import save_tokenizer
from genai_core.errors import InputError
from genai_core.models.transformer import Transformer
from genai_core.training.objectives.next_token import NextToken
from tests.conftest import TINY

CPU = torch.device("cpu")


def config(**fields) -> LanguageModelConfig:
    return LanguageModelConfig(**{"context_length": 32, "batch_size": 4, "tokens": 32 * 4 * 12, "learning_rate": 3e-3,
                                  "validation_tokens": 1024} | fields)


def write(tokenizer, directory, train, prose):
    """Token files of these training documents, and some prose to validate on."""
    save_tokenizer(tokenizer, directory)
    held_out = [encoding.ids for encoding in tokenizer.encode_batch(prose[20:22])]
    write_tokens(directory, "train", train, 0, 700, 1)
    write_tokens(directory, "validation.prose", held_out, 0, 700, sum(len(text.encode()) for text in prose[20:22]))
    return directory


@pytest.fixture
def tokens(tokenizer, prose, tmp_path):
    return write(tokenizer, tmp_path, [encoding.ids for encoding in tokenizer.encode_batch(prose[:5])], prose)


@pytest.mark.parametrize(("count", "learned"), [(47, False), (48, True)])
def test_too_little_text_is_an_error_before_training(tokenizer, prose, tmp_path, count, learned):
    tokens = write(tokenizer, tmp_path, [tokenizer.encode(prose[0]).ids[:count - 1]], prose)      # and an end
    with nullcontext() if learned else pytest.raises(
            InputError, match=r"^47 training tokens are too few to learn from: it takes 48; add text$"):
        assert NextToken(Transformer(TINY), tokens, config(), CPU).length == 16


def test_a_text_that_fills_no_window_of_the_config_is_learned_in_shorter_ones(tokens, tmp_path, recorder, caplog):
    ids = len(read_tokens(tokens, "train").ids)
    objective = NextToken(Transformer(TINY), tokens, config(context_length=65536, tokens=65536 * 4), CPU)
    assert objective.length == ids // 3
    assert objective.batch(0)["ids"].shape[1] == ids // 3
    assert objective.steps * objective.config.batch_size * objective.length <= 65536 * 4
    assert f"{ids} training tokens are too few for windows of 65536: these have {ids // 3}" in caplog.text


def test_a_text_that_fills_windows_of_the_config_has_those(tokens, caplog):
    objective = NextToken(Transformer(TINY), tokens, config(), CPU)
    assert objective.length == objective.config.context_length and not caplog.text


@pytest.mark.parametrize(("max_epochs", "passes"), [(None, 8.0), (2.0, 2.0), (0.5, 0.5), (50.0, 8.0)])
def test_no_more_passes_are_made_over_a_small_text_than_the_config_allows(tokens, caplog, max_epochs, passes):
    ids = len(read_tokens(tokens, "train").ids)
    objective = NextToken(Transformer(TINY), tokens, config(tokens=8 * ids, max_epochs=max_epochs), CPU)
    a_step = objective.config.batch_size * objective.length
    assert objective.steps == int(passes * ids) // a_step
    assert ("passes over" in caplog.text) == (passes < 8)
