"""Models and servers that all tests of serving share."""

from pathlib import Path

import pytest

from tests.genai_core.serving.servers import model_directory, running, served_model


@pytest.fixture(scope="package")
def model(tokenizer, tokenizer_dir, tmp_path_factory) -> Path:
    return model_directory(tokenizer, tokenizer_dir, tmp_path_factory.mktemp("models") / "tiny", 0)


@pytest.fixture(scope="package")
def other(tokenizer, tokenizer_dir, tmp_path_factory) -> Path:
    return model_directory(tokenizer, tokenizer_dir, tmp_path_factory.mktemp("models") / "other", 1)


@pytest.fixture(scope="package")
def server(model, tmp_path_factory):
    with running(tmp_path_factory.mktemp("serving"), served_model(model, aliases=("quantized",)),
                 served_model(model, "tiny-base", aliases=("base",), chats=False), slots=4) as server:
        yield server


@pytest.fixture(scope="package")
def own(model, tmp_path_factory):
    with running(tmp_path_factory.mktemp("own"), served_model(model), engine="own") as server:
        yield server
