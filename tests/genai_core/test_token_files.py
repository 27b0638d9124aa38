"""Token files: fast encoding gives the same ids, they come back as they were, and a damaged file says which it is."""

import json
import sys
import tempfile
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from genai_core.data.tokens.batches import Windows, epoch_order, epoch_rows, random_windows, shuffled
from genai_core.data.tokens.token_files import read_tokens, write_header, write_tokens
from genai_core.data.tokens.tokenizer import Encoder, encodes_fast
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


@pytest.mark.parametrize("fast", [True, False])
def test_many_texts_at_once_get_the_ids_of_the_tokenizer_whatever_encodes_them(tokenizer, prose, fast):
    texts = [*prose[:20], *AWKWARD, *prose[20:]]
    expected = [tokenizer.encode(text, add_special_tokens=False).ids for text in texts]
    ids, lengths = Encoder(tokenizer, fast)(texts)
    assert lengths.tolist() == list(map(len, expected))
    assert ids.tolist() == [number for row in expected for number in row]


def test_the_fast_encoder_is_taken_only_where_it_is_there_and_agrees(tokenizer, prose, monkeypatch):
    assert encodes_fast(tokenizer, prose[:5])
    import gigatoken

    other = gigatoken.Tokenizer.from_json(tokenizer.to_str()).encode_batch(["something else"] * 5)
    with monkeypatch.context() as patch:
        patch.setattr(gigatoken.Tokenizer, "encode_batch", lambda self, texts: other)
        assert not encodes_fast(tokenizer, prose[:5])
    monkeypatch.setitem(sys.modules, "gigatoken", None)      # as where it has no wheel
    assert not encodes_fast(tokenizer, prose[:5])


def _in_parts(directory, lengths, dtype="<u2"):
    """The numbers from 0 on, in files of these lengths."""
    bounds = np.concatenate([[0], np.cumsum(lengths)])
    for number, (start, end) in enumerate(pairwise(bounds)):
        np.arange(start, end).astype(dtype).tofile(directory / f"train-{number}.bin")
    np.zeros(1, "<i8").tofile(directory / "train.starts")
    write_header(directory, "train", int(bounds[-1]), 1, 0, 60_000, None,
                 {f"train-{number}": length for number, length in enumerate(lengths)})
    return read_tokens(directory, "train")


@given(st.lists(st.integers(1, 9), min_size=2, max_size=6), st.data())
def test_ids_in_parts_read_as_one_array(lengths, data):
    with tempfile.TemporaryDirectory() as folder:
        ids = _in_parts(Path(folder), lengths).ids
        whole = np.arange(sum(lengths))
        assert len(ids) == len(whole)
        place = st.integers(-len(whole) - 2, len(whole) + 2)
        start, stop = data.draw(place), data.draw(place)
        assert np.array_equal(ids[start:stop], whole[start:stop])
        places = np.array(data.draw(st.lists(st.integers(0, len(whole) - 1), min_size=1, max_size=8)))
        assert np.array_equal(ids[places], whole[places])
        assert np.array_equal(ids[places[:, None]], whole[places[:, None]])


def test_a_part_that_was_cut_short_is_named(tmp_path):
    _in_parts(tmp_path, [3, 4])
    (tmp_path / "train-1.bin").write_bytes(b"12")
    with pytest.raises(InputError, match=r"train-1.bin: 1 tokens where its header says 4"):
        read_tokens(tmp_path, "train")


@given(st.integers(1, 3000), st.integers(0, 2**32), st.integers(0, 9))
def test_an_epoch_visits_every_example_once_and_each_place_is_computed_for_itself(count, seed, epoch):
    order = epoch_order(count, epoch, seed)
    assert np.array_equal(np.sort(order), np.arange(count))
    some = np.arange(0, count, 7)
    assert np.array_equal(shuffled(some, count, seed, epoch), order[some])


def test_orders_are_even_and_differ(tmp_path):
    """Over many seeds each of five things is at each place as often as at any other."""
    counts = np.zeros((5, 5))
    for seed in range(2000):
        counts[np.arange(5), epoch_order(5, 0, seed)] += 1
    assert abs(counts / 2000 - 0.2).max() < 0.04, "some four standard errors"
    assert not np.array_equal(epoch_order(100, 0, 1), epoch_order(100, 1, 1))


def test_an_order_of_a_thousand_million_takes_no_memory():
    rows = epoch_rows(10**9, step=10**6, batch_size=32, seed=3)
    assert len(set(rows.tolist())) == 32 and rows.min() >= 0 and rows.max() < 10**9


def test_windows_are_a_function_of_the_step_across_parts(tmp_path):
    windows = Windows(_in_parts(tmp_path, [50, 7, 43, 100]), 8, 4, seed=5, device=torch.device("cpu"))
    first = [windows.batch(step)["ids"] for step in range(12)]
    again = Windows(_in_parts(tmp_path, [50, 7, 43, 100]), 8, 4, seed=5, device=torch.device("cpu"))
    assert torch.equal(first[11], again.batch(11)["ids"]), "a resumed run sees what an uninterrupted one does"
    epoch = torch.cat(first)[:windows.windows]
    assert len({int(row[0]) // 8 for row in epoch}) == windows.windows
