"""Evaluation: windows count every byte once, the n-gram model is the textbook's, cut prompts are told."""

import math
from collections import Counter

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from genai_core.config.release import EvaluateConfig
from genai_core.data.tokens.token_files import TokenFile
from genai_core.evaluation.baselines.simple import ByteNgrams
from genai_core.evaluation.bits_per_byte import STRETCH, held_out_loss, token_byte_lengths, word_perplexity
from genai_core.evaluation.language_model import evaluate_language_model
from genai_core.evaluation.questions import HeldOutText
from genai_core.export.model_directory import save_model
from tests.genai_core.test_task_figures import LONG, SHORT, asked

CPU = torch.device("cpu")


@pytest.fixture
def file(tokenizer, prose):
    ids = np.array(tokenizer.encode(prose[2][:2000]).ids, dtype="<u2")
    return TokenFile(ids, np.zeros(1), len(prose[2][:2000].encode()), np.zeros(1))


def test_byte_lengths_add_up_to_the_text(tokenizer, prose):
    text = prose[2] + "naïve 漢字 🙂"
    lengths = token_byte_lengths(tokenizer)
    assert int(lengths[tokenizer.encode(text).ids].sum()) == len(text.encode())
    assert lengths[tokenizer.token_to_id("<|im_end|>")] == 0


@pytest.mark.parametrize("overlap", [False, True])
@pytest.mark.parametrize("length", [16, 64])
def test_each_token_but_the_first_counts_once(tiny_model, tokenizer, file, overlap, length):
    lengths = token_byte_lengths(tokenizer)
    loss = held_out_loss(tiny_model, file, lengths, length, max_tokens=10_000, device=CPU, precision=torch.float32,
                         overlap=overlap)
    assert loss.tokens == len(file.ids) - 1
    assert loss.utf8_bytes == int(lengths[torch.from_numpy(file.ids[1:].astype(int))].sum())


def test_stretches_are_those_of_the_text_whatever_the_tokenizer(tiny_model, tokenizer, prose):
    """Words against single bytes: the same bytes lie in the same stretches, but for a token across a border."""
    text = prose[2][:3000]
    by_word = np.array(tokenizer.encode(text).ids)
    by_byte = np.array([tokenizer.encode(character).ids[0] for character in text])
    sizes = []
    for ids in (by_word, by_byte):
        file = TokenFile(ids, np.zeros(1), 0, np.zeros(1))
        loss = held_out_loss(tiny_model, file, token_byte_lengths(tokenizer), 64, max_tokens=10_000, device=CPU,
                             precision=torch.float32)
        assert sum(nats for nats, _ in loss.stretches) == pytest.approx(loss.nats)
        assert sum(size for _, size in loss.stretches) == loss.utf8_bytes
        sizes.append([size for _, size in loss.stretches])
    longest = int(token_byte_lengths(tokenizer).max())
    assert len(sizes[0]) == len(sizes[1]) == -(-len(text.encode()) // STRETCH)
    assert all(abs(a - b) <= longest for a, b in zip(*sizes, strict=True))


def test_one_window_equals_the_plain_loss(tiny_model, tokenizer, file):
    ids = torch.from_numpy(file.ids[:101].astype("int64"))[None]
    plain = F.cross_entropy(tiny_model(ids[:, :-1])[0], ids[0, 1:], reduction="sum").item()
    loss = held_out_loss(tiny_model, file, token_byte_lengths(tokenizer), 128, max_tokens=100, device=CPU,
                         precision=torch.float32)
    assert loss.nats == pytest.approx(plain, rel=1e-5)


def naive_witten_bell(train: bytes, text: bytes, order: int) -> float:
    counts = [Counter(train[i:i + n] for i in range(len(train) - n + 1)) for n in range(order + 1)]

    def probability(history: bytes, byte: int) -> float:
        lower = 1 / 256 if not history else probability(history[1:], byte)
        if not history and order == 0:
            return lower
        following = [gram for gram in counts[len(history) + 1] if gram[:-1] == history]
        total = sum(counts[len(history) + 1][gram] for gram in following)
        if not total:
            return lower
        return (counts[len(history) + 1][history + bytes([byte])] + len(following) * lower) / (total + len(following))

    bits = [-math.log2(probability(text[max(0, i - order + 1):i], text[i])) for i in range(len(text))]
    return sum(bits) / len(bits)


@pytest.mark.parametrize("order", [1, 2, 4])
def test_the_ngram_model_is_the_textbooks(prose, order):
    train, text = prose[1][:600].encode(), prose[1][300:400].encode() + b"\x00zq"
    got = ByteNgrams(order).bits_per_byte(train, {"text": text})["text"]
    assert got == pytest.approx(naive_witten_bell(train, text, order), rel=1e-9)


@pytest.mark.parametrize(("scored", "words"), [(60, 20), (80, 30), (100, 40)])
def test_word_perplexity_is_of_the_words_that_were_scored(tiny_model, tokenizer, file, scored, words):
    """Three documents of 20, 20 and 5,000 words, of which the last is never read."""
    file = TokenFile(file.ids, np.array([0, 60, 100]), file.utf8_bytes, np.array([20, 20, 5000]))
    loss = held_out_loss(tiny_model, file, token_byte_lengths(tokenizer), 64, max_tokens=scored - 1, device=CPU,
                         precision=torch.float32)
    assert word_perplexity(loss, file) == pytest.approx(math.exp(loss.nats / words))


def test_the_stage_tells_how_many_prompts_of_a_task_were_cut(tiny_model, tokenizer, tokenizer_dir, file, tmp_path,
                                                             recorder):
    save_model(tiny_model, tokenizer_dir, tmp_path)
    text = HeldOutText({"validation.prose": file}, token_byte_lengths(tokenizer))
    questions = [asked("sentiment", {SHORT: "good", LONG: "bad"}, content="labelled", labels=("good", "bad")),
                 asked("title", {SHORT: "x"}, content="pairs")]
    evaluate_language_model(EvaluateConfig(), "instruct", tmp_path, text, questions, True, CPU, recorder)
    assert recorder.notes == [
        "instruct: of 2 prompts of sentiment 1 lost their beginning to fit the context of 128 tokens"]
