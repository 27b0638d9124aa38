"""Token files: fast encoding gives the same ids, they come back as they were, and a damaged file says which it is."""

import json
import sys
from itertools import pairwise

import numpy as np
import pytest

from genai_core.data.batches import random_windows
from genai_core.data.token_files import read_tokens, write_tokens
from genai_core.data.tokenizer import encode_batches
from genai_core.errors import InputError

END = 3


@pytest.mark.parametrize(("vocab_size", "width"), [(259, 2), (65_536, 2), (65_537, 4), (2**20, 4)])
def test_ids_come_back_from_as_few_bytes_as_hold_them(tmp_path, vocab_size, width):
    documents = [[5, vocab_size - 1, 7], [], [9] * 40]
    written = write_tokens(tmp_path, "train", iter(documents), END, vocab_size, 99, [3, 0, 40])
    file = read_tokens(tmp_path, "train")
    assert written == len(file.ids) == 46 and file.utf8_bytes == 99
    assert (tmp_path / "train.bin").stat().st_size == width * 46
    starts = [*file.starts, len(file.ids)]
    assert starts[:3] == [0, 4, 5]
    back = [file.ids[start:end].tolist() for start, end in pairwise(starts)]
    assert back == [[*document, END] for document in documents]
    assert [file.words_before(token) for token in (0, 4, 5, 46)] == [0, 3, 3, 43]


def test_training_sees_the_same_windows_whatever_the_width(tmp_path):
    documents = [list(range(number, number + 50)) for number in range(40)]
    for name, vocab_size in (("short", 100), ("long", 100_000)):
        write_tokens(tmp_path, name, documents, END, vocab_size, 0)
    short, long = (random_windows(read_tokens(tmp_path, name), 7, 16, seed=1) for name in ("short", "long"))
    assert np.array_equal(short, long)


def test_no_document_makes_an_empty_file_that_reads(tmp_path):
    assert write_tokens(tmp_path, "train", [], END, 100, 0) == 0
    with pytest.raises(InputError, match="train: not a readable token file"):
        read_tokens(tmp_path, "train")      # which nothing can be trained on


@pytest.mark.parametrize("header", ["", "[]", '{"tokens": 3}', '{"tokens": 3, "documents": 1, "utf8_bytes": 0, '
                                    '"raw_words": [], "dtype": "float99"}'])
def test_a_damaged_header_is_named(tmp_path, header):
    write_tokens(tmp_path, "train", [[1, 2]], END, 100, 0)
    (tmp_path / "train.json").write_text(header)
    with pytest.raises(InputError, match="train"):
        read_tokens(tmp_path, "train")


def test_a_file_that_was_cut_short_is_told_by_its_header(tmp_path):
    write_tokens(tmp_path, "train", [[1, 2, 3]], END, 100_000, 0)
    data = (tmp_path / "train.bin").read_bytes()
    (tmp_path / "train.bin").write_bytes(data[:8])
    with pytest.raises(InputError, match="2 tokens where its header says 4"):
        read_tokens(tmp_path, "train")
    assert json.loads((tmp_path / "train.json").read_text())["dtype"] == "<u4"


AWKWARD = ["", " ", "\n\n\n", "\r\n \t x",
           "日本語テキスト。", "𝔘nicode 👩‍👩‍👧 ﷽", "a\u0000b", "don't CAN'T I'LL", "ſs 'ſ",
           "İstanbul ǅ", "\u200b\u200d", "\ud7ff\ue000\uffff", "é" * 5000, "x" * 20000, "1234567890" * 30]


def test_many_texts_at_once_get_the_ids_of_the_tokenizer_whatever_encodes_them(tokenizer, prose, monkeypatch):
    texts = [*prose[:20], *AWKWARD, *prose[20:]]
    expected = [tokenizer.encode(text, add_special_tokens=False).ids for text in texts]
    assert list(encode_batches(tokenizer, iter(texts), batch=7)) == expected
    monkeypatch.setitem(sys.modules, "gigatoken", None)      # as where it has no wheel
    assert list(encode_batches(tokenizer, texts, batch=7)) == expected


def test_an_encoder_that_gives_other_ids_is_not_used(tokenizer, prose, monkeypatch):
    import gigatoken

    monkeypatch.setattr(gigatoken.Tokenizer, "encode_batch_list", lambda self, texts: [[1]] * len(texts))
    expected = [tokenizer.encode(text, add_special_tokens=False).ids for text in prose]
    assert list(encode_batches(tokenizer, prose, batch=4)) == expected
