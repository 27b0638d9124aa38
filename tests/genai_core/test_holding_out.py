"""Holding out: whole documents where there are enough, pieces of them where a source is one book."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genai_core.config.data import CollectConfig, FileSource
from genai_core.context import Context
from genai_core.data.shards.pieces import cut
from genai_core.data.shards.splits import fingerprint, split_of
from genai_core.data.shards.tables import read_table
from genai_core.errors import InputError
from genai_core.stages import collect


def collected(tmp_path, recorder, **fractions):
    config = CollectConfig(sources={"mine": FileSource(paths=("*.txt",), licence="own")}, **fractions)
    (tmp_path / "out").mkdir()
    collect.run(config, out_dir=tmp_path / "out", context=Context(tmp_path, recorder, tmp_path))
    rows = read_table(tmp_path / "out", "documents")
    return rows, {split: sum(row["split"] == split for row in rows) for split in ("train", "validation", "test")}


def test_a_book_of_a_megabyte_is_a_whole_source(tmp_path, prose, recorder):
    book = "\n\n".join(prose) * 2
    (tmp_path / "book.txt").write_text(book[:1_100_000])
    rows, counts = collected(tmp_path, recorder)
    assert counts["validation"] >= 1 and counts["test"] >= 1 and counts["train"] > 9 * counts["test"]
    assert "".join(row["text"] for row in rows).split() == book[:1_100_000].split()
    assert [row["id"] for row in rows[:2]] == ["mine/0000000.00000", "mine/0000000.00001"]
    assert max(len(row["text"]) for row in rows) <= 6000
    sides = {}
    for row in rows:      # the second half of the book repeats the first: equal pieces are on the same side
        assert sides.setdefault(fingerprint(row["text"]), row["split"]) == row["split"]
    assert any("cut into pieces" in note for note in recorder.notes)


def test_two_kilobytes_are_a_whole_source(tmp_path, prose, recorder):
    (tmp_path / "page.txt").write_text(prose[3][:2000])
    _, counts = collected(tmp_path, recorder)
    assert min(counts.values()) >= 1 and counts["train"] >= 5


def test_too_little_text_says_how_much_is_needed(tmp_path, recorder):
    (tmp_path / "page.txt").write_text("Hardly anything. " * 8)
    with pytest.raises(InputError, match=r"sources.mine: 136 characters in 1 documents are too little.* 900 are"):
        collected(tmp_path, recorder)


def test_nothing_is_cut_where_nothing_is_to_be_held_out(tmp_path, prose, recorder):
    (tmp_path / "book.txt").write_text("\n\n".join(prose))
    rows, counts = collected(tmp_path, recorder, validation_fraction=0, test_fraction=0)
    assert len(rows) == 1 and counts["train"] == 1


def test_many_documents_stay_whole_and_go_where_their_hash_says(tmp_path, prose, recorder):
    pages = [f"{number} {page}"[:2000] for number, page in enumerate(prose * 4)]
    for number, page in enumerate(pages):
        (tmp_path / f"{number:04d}.txt").write_text(page)
    rows, counts = collected(tmp_path, recorder, validation_fraction=0.1, test_fraction=0.1)
    assert [row["text"] for row in rows] == pages and min(counts.values()) >= 3
    assert all(row["split"] == split_of(row["text"], 0.1, 0.1) for row in rows)


@given(st.text("ab. \n。日", max_size=400), st.integers(4, 50))
def test_pieces_make_the_text_again(text, length):
    pieces = cut(text, length)
    assert "".join(pieces) == text
    assert all(length // 2 <= len(piece) <= length * 3 // 2 for piece in pieces[:-1])
    assert len(pieces[-1]) <= length * 3 // 2


def test_pieces_end_with_paragraphs_then_sentences_then_words():
    assert cut("One. Two.\n\nThree four. " + "x" * 30, 14)[0] == "One. Two.\n\n"
    assert cut("One two. Three four " + "x" * 30, 14)[0] == "One two. "
    assert cut("One two three " + "x" * 30, 12)[0] == "One two "
    assert cut("x" * 30, 10) == ["x" * 10, "x" * 10, "x" * 10]
