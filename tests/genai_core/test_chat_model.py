"""Chat in a small context: whole turns go, the oldest first, and whoever talks is told."""

import pytest
import torch

from genai_core.data.chat import render_prompt
from genai_core.inference import chat
from genai_core.inference.chat import open_quantized
from genai_core.quantization.directory import quantize_to_directory

SYSTEM = {"role": "system", "content": "Be brief."}


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


@pytest.fixture
def model(tiny_model, tokenizer_dir, tmp_path):
    """A model with a context of 128 tokens."""
    quantize_to_directory(tiny_model, "Q8_0", tokenizer_dir, tmp_path)
    return open_quantized(tmp_path, torch.device("cpu"))


@pytest.fixture
def read(model, monkeypatch):
    """Answers a conversation; what the model was given to read, and for how many new tokens."""
    def answer(messages, tokens=40):
        given = []

        def no_tokens(_, prompt, new_tokens, *rest):
            given.append((model.tokenizer.decode(prompt, skip_special_tokens=False), new_tokens, len(prompt)))
            return iter(())

        monkeypatch.setattr(chat, "stream", no_tokens)
        assert not list(model.chat(messages, tokens))
        return given[0]
    return answer


def test_a_conversation_that_fits_is_read_whole(read, caplog):
    messages = [SYSTEM, user("Why?"), assistant("So."), user("And how?")]
    assert read(messages)[0] == render_prompt(messages)
    assert not caplog.records


def test_the_oldest_turns_are_dropped_whole_and_the_system_message_stays(read, caplog):
    messages = [SYSTEM, user("one " * 20), assistant("two " * 20), user("three " * 5), assistant("four"), user("five")]
    text, _, length = read(messages)
    assert text == render_prompt([SYSTEM, *messages[3:]]), "an answer is not kept without its question"
    assert length <= 88
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert record.getMessage() == ("the conversation does not fit into the model's context of 128 tokens: its oldest "
                                   "turns are left out")


def test_it_is_told_once(read, caplog):
    for _ in range(3):
        read([user("one " * 50), assistant("two " * 50), user("three")])
    assert len(caplog.records) == 1


def test_only_a_single_message_that_is_too_long_is_cut_and_its_turn_stays_whole(read, caplog):
    text, _, length = read([SYSTEM, user("old"), assistant("older"), user("one two three " * 60 + "the end")])
    start, end = render_prompt([SYSTEM, user("X")]).split("X")
    assert text.startswith(start) and text.endswith("the end" + end)
    assert length == 88
    assert [record.getMessage() for record in caplog.records] == [
        "the last message does not fit into the model's context of 128 tokens: its beginning is left out"]


def test_a_system_message_that_leaves_no_room_is_dropped(read):
    assert read([{"role": "system", "content": "no " * 200}, user("Hi")])[0] == render_prompt([user("Hi")])


def test_a_long_answer_takes_at_most_half_of_the_context_from_the_conversation(read):
    messages = [user("one " * 15)]
    text, tokens, length = read(messages, tokens=500)
    assert text == render_prompt(messages) and length + tokens == 128
