"""Cleaning: each rule gives its reason, repairs repair, and held-out text does not leak into training."""

import json

import pytest

from genai_core.config.data import CleanConfig
from genai_core.context import Context
from genai_core.data.clean.decontaminate import HeldOut
from genai_core.data.clean.deduplicate import near_duplicates
from genai_core.data.clean.normalize import detokenize_wikitext, normalize
from genai_core.data.clean.privacy import mask_personal_data
from genai_core.data.clean.quality import reason_to_remove
from genai_core.data.tables import read_table, write_table
from genai_core.errors import InputError
from genai_core.stages import clean

GOOD = "This is a film that I would watch again, and the cast of it is a joy to see in every scene."


@pytest.mark.parametrize(("text", "reason"), [
    (GOOD, None),
    ("Too short.", "too_few_words"),
    ("the " + "x" * 40 + " and " + "y" * 40 + " of " + "z" * 60, "unusual_word_length"),
    ("this is the #first and the #second part of the #whole text", "too_many_symbols"),
    ("the 100 200 300 400 500 600 of 700 800 900", "too_few_letters"),
    ("Palabras españolas sin ninguna palabra inglesa dentro", "no_stop_words"),
    ("function() { return the value of it to the caller }", "curly_brackets"),
    ("Please enable JavaScript to see the content of this page", "boilerplate"),
    ("the same line is here\n" * 6, "repeated_lines"),
    ("buy it now " * 30 + "the end of it is here", "repeated_phrase"),
])
def test_each_rule_gives_its_reason(text, reason):
    assert reason_to_remove(text, CleanConfig()) == reason


@pytest.mark.parametrize(("before", "after"), [
    ("It was <i>good</i>.<br /><br />I liked it.", "It was good.\n\nI liked it."),
    ("schÃ¶n and â€œquotedâ€\x9d", 'schön and "quoted"'),
    ("a  b \n\n\n\n c", "a b\n\n c"),
    ("3 < 4 and 5 > 2", "3 < 4 and 5 > 2"),
    ("<script>alert(1)</script><p>text</p>", "text"),
])
def test_normalisation(before, after):
    assert normalize(before) == after


def test_wikitext_reads_as_it_was_written():
    raw = (" = Robert Boulter = \n \n A role @-@ playing game ( 1 @,@ 000 copies ) , \" great \" , it 's said .\n"
           " = = Early = = \n")
    assert detokenize_wikitext(raw).strip().split("\n") == [
        "# Robert Boulter", "", 'A role-playing game (1,000 copies), "great", it\'s said.', "## Early"]


def test_personal_data_is_masked_and_numbers_are_not():
    text, count = mask_personal_data("Write to a.b@example.org, call +49 30 1234 5678 or 555-123-4567, ping 10.0.0.1; "
                                     "it cost 1,000,000 in 1999-2001, version 1.2.3.4.5, page 300-400.")
    assert count == 4
    assert text == ("Write to <email>, call <phone> or <phone>, ping <ip>; "
                    "it cost 1,000,000 in 1999-2001, version 1.2.3.4.5, page 300-400.")


def test_near_duplicates_point_to_the_first(prose):
    page = prose[3]
    changed = page.replace("the", "a", 1)
    assert list(near_duplicates([page, prose[5], changed, page], 0.8, 128)) == [None, None, 0, 0]


def test_shared_runs_of_words_are_found_whatever_the_punctuation():
    held_out = HeldOut(["One two three four five six seven eight nine ten eleven twelve thirteen fourteen."], 13)
    assert held_out.match("x ONE, two; three four five six seven eight nine ten eleven twelve thirteen y")
    assert held_out.match("one two three four five six seven eight nine ten eleven twelve and thirteen") is None


def _document(number, text, split="train", source="a"):
    return {"id": f"{source}/{number}", "source": source, "split": split, "licence": "x", "text": text, "label": None,
            "raw_words": None}


def _tables(tmp_path, documents, ratings=()):
    write_table(documents, "documents", tmp_path)
    write_table(list(ratings), "ratings", tmp_path)
    write_table([], "chats", tmp_path)
    write_table([], "translations", tmp_path)
    write_table([], "titles", tmp_path)
    return tmp_path


def test_every_removal_has_a_reason_and_the_leak_is_closed(tmp_path, prose, recorder):
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    rated = {"id": "r/0", "source": "r", "split": "test", "licence": "x", "rating": 2.0, "raters": 20,
             "text": "An effective but too tepid film, if you ask me about it."}
    long = " ".join(prose[0].split()[3:63])
    documents = [_document(0, GOOD), _document(1, GOOD.upper()),
                 _document(2, "an effective, but too-tepid film -- if you ask me about it"),
                 _document(3, long, split="test"), _document(4, "And so it is said that " + long + " in the end of it")]
    result = clean.run(CleanConfig(), collected=_tables(tmp_path / "in", documents, [rated]), out_dir=tmp_path / "out",
                       context=Context(tmp_path, recorder))
    kept = [row["id"] for row in read_table(tmp_path / "out", "documents")]
    assert kept == ["a/0", "a/3"]
    reasons = (tmp_path / "out" / "removed.json").read_text()
    for reason in ("exact_duplicate", "same_as_held_out_rating", "shared_with_held_out"):
        assert f'"train/documents/{reason}": 1' in reasons
    assert result.metrics["documents_removed"] == 3


def test_removals_of_held_out_records_are_counted_by_split_and_told(tmp_path, prose, recorder):
    """Of held-out text only repeats go, but they do go: whoever compares figures must see how many."""
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    page = prose[3]
    documents = [_document(0, GOOD), _document(1, page, split="validation"),
                 _document(2, page.replace("the", "a", 1), split="test"), _document(3, page, split="test"),
                 _document(4, "of", split="test"), _document(5, "the")]
    result = clean.run(CleanConfig(), collected=_tables(tmp_path / "in", documents), out_dir=tmp_path / "out",
                       context=Context(tmp_path, recorder))
    assert json.loads((tmp_path / "out" / "removed.json").read_text()) == {
        "test/documents/exact_duplicate": 1, "test/documents/near_duplicate": 1, "train/documents/too_few_words": 1}
    assert result.metrics["held_out_removed"] == 2
    assert any("of held-out records 2" in note for note in recorder.notes)
    sample = [json.loads(line) for line in (tmp_path / "out" / "removed_sample.jsonl").read_text().splitlines()]
    assert {row["split"] for row in sample} == {"test", "train"}


def test_nothing_left_is_an_error_with_the_reasons(tmp_path, recorder):
    with pytest.raises(InputError, match=r"no training document is left.*too_few_words 2"):
        clean.run(CleanConfig(), collected=_tables(tmp_path, [_document(0, "a"), _document(1, "b")]), out_dir=tmp_path,
                  context=Context(tmp_path, recorder))
