"""Cleaning: each rule gives its reason, repairs repair, and held-out text does not leak into training."""

import json
import re
from itertools import pairwise

import ftfy
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genai_core.config.data import CleanConfig
from genai_core.context import Context
from genai_core.data.clean import decontaminate, privacy, words
from genai_core.data.clean.decontaminate import KnownRuns, held_out_runs, index_runs, shared_runs, shares_runs
from genai_core.data.clean.deduplicate import jaccard, shingle_sets, signatures
from genai_core.data.clean.language import language_of
from genai_core.data.clean.normalize import detokenize_wikitext, normalize, repair_unicode
from genai_core.data.clean.privacy import mask_personal_data
from genai_core.data.clean.quality import reason_to_remove
from genai_core.data.clean.words import hash_words
from genai_core.data.shards.tables import complete_tables, read_table, write_table
from genai_core.errors import InputError
from genai_core.stages import clean

GOOD = "This is a film that I would watch again, and the cast of it is a joy to see in every scene."


@pytest.mark.parametrize(("text", "reason"), [
    (GOOD, None),
    ("Too short.", "too_few_words"),
    ("the " + "x" * 40 + " and " + "y" * 40 + " of " + "z" * 60, "unusual_word_length"),
    ("this is the #first and the #second part of the #whole text", "too_many_symbols"),
    ("the 100 200 300 400 500 600 of 700 800 900", "too_few_letters"),
    ("watch online free movie download best quality trailer", "no_stop_words"),
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
    ("def f(x):  # x\n    if x:\n\treturn  1", "def f(x): # x\n    if x:\n\treturn 1"),
    ("a List<String> of <stdio.h>, Vec<T>", "a List<String> of <stdio.h>, Vec<T>"),
    ("#include <map>\nstd::map<int, std::vector<A>> m;", "#include <map>\nstd::map<int, std::vector<A>> m;"),
    ("<b>Use</b> <vector> and std::vector<int>,<br>not List<A> or List<P>: i<b and c>d",
     "Use <vector> and std::vector<int>,\nnot List<A> or List<P>: i<b and c>d"),
    ("<p>Say #include <span> or <code>Map<K, V></code>.</p>", "Say #include <span> or Map<K, V>."),
    ('<a href="x">link</a> <img src=y> <svg:path d="z"/> <!-- unseen --> git add <source>', "link git add <source>"),
    ("one < br / > two <BR clear=all>three", "one\ntwo\nthree"),
    ("an old page <p>with <li>items <hr> and a </font>", "an old page <p>with\nitems and a"),
    ("<!DOCTYPE html><body><p>one<p>two<x-y>three</x-y>", "one\ntwothree"),
    ("<script async>let a = b<c;</script>AT&amp;T &lt;div&gt;", "AT&T <div>"),
])
def test_normalisation(before, after):
    assert normalize(before) == after


def test_chats_keep_the_markup_that_they_speak_of():
    asked = "How do I centre a <div>?\n    <p>text</p>"
    assert normalize(asked, markup=True) == asked


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


def test_shared_runs_are_found_whatever_the_punctuation():
    held_out = ["One two three four five six seven eight nine ten eleven twelve thirteen fourteen."]
    texts = ["x ONE, two; three four five six seven eight nine ten eleven twelve thirteen y",
             "one two three four five six seven eight nine ten eleven twelve and thirteen", ""]
    assert shares_runs(texts, held_out, 13) == [True, False, False]
    short = ["seven words that stand held out here"]
    assert shares_runs(["and seven words that stand held out here too"], short, 13) == [True]
    assert shares_runs(["six words stand held out here", "it is six words stand held out here"],
                       ["six words stand held out here"], 13) == [False, False]


@given(st.lists(st.text("ab c.é\n", max_size=40), max_size=6), st.lists(st.text("ab c.é\n", max_size=40), max_size=4))
def test_shared_runs_are_those_of_the_words(texts, held_out):
    """Beside the plain way: sets of tuples of words."""
    def runs(text, length):
        words = re.findall(r"\w+", text.lower())
        return {tuple(words[start:start + length]) for start in range(len(words) - length + 1)}

    known = {length: set() for length in (3, 4, 5)}
    for text in held_out:
        length = min(5, len(re.findall(r"\w+", text)))
        if length >= 3:
            known[length] |= runs(text, length)
    expected = [any(runs(text, length) & known[length] for length in known) for text in texts]
    assert shares_runs(texts, held_out, 5) == expected


def test_a_file_of_runs_knows_those_that_are_in_it_and_no_others(tmp_path, monkeypatch):
    monkeypatch.setattr(decontaminate, "_PIECE", 700)      # so that it is read in many pieces
    generator = np.random.default_rng(0)
    runs = np.unique(generator.integers(0, 2**64, 5000, np.uint64))
    runs.tofile(tmp_path / "runs")
    index_runs(tmp_path / "runs")
    asked = [np.concatenate([runs[::3], generator.integers(0, 2**64, 20_000, np.uint64)]), runs[:0], runs[-1:]]
    for known in (KnownRuns(tmp_path / "runs"), KnownRuns(runs)):
        likely = [known.likely(each) for each in asked]
        assert len(likely[0]) < 1.02 * len(asked[0][np.isin(asked[0], runs)]) + 200      # few others pass
        held = known.hold([each[at] for each, at in zip(asked, likely, strict=True)])
        for each, at, holds in zip(asked, likely, held, strict=True):
            assert np.array_equal(at[holds], np.flatnonzero(np.isin(each, runs)))


@settings(deadline=None)
@given(st.lists(st.text("日本a 。", max_size=24), max_size=6), st.lists(st.text("日本a 。", max_size=24), max_size=4))
def test_two_letters_without_spaces_count_as_a_word_in_shared_runs(texts, held_out):
    """Beside the plain way: sets of tuples of words, the size of each counted in half words."""
    def words_of(text):
        return re.findall("[日本]|[^\\W日本]+", text)

    def size(run):
        return sum(1 if word in ("日", "本") else 2 for word in run)

    def runs(text):
        words = words_of(text)
        return [tuple(words[start:end]) for start in range(len(words)) for end in range(start + 1, len(words) + 1)]

    known = {run for text in held_out for run in runs(text) if size(run) >= 8 and size(run[:-1]) < 8}
    known |= {tuple(words_of(text)) for text in held_out if 4 <= size(words_of(text)) < 8}
    expected = [not known.isdisjoint(runs(text)) for text in texts]
    assert shares_runs(texts, held_out, 4) == expected


HELD_OUT_CHINESE = "老人慢慢地走过城里的街道，没有人知道他从哪里来，也没有人知道他要到哪里去。"


def test_a_chinese_passage_is_found_wherever_it_begins():
    passage = HELD_OUT_CHINESE[3:31]
    assert len(re.findall(r"\w", passage)) == 26
    texts = [f"昨天{passage}了", f"昨天晚上{passage}", passage[1:], "他说：老人慢慢地走过城里的街道，什么也没有看见。"]
    assert shares_runs(texts, [HELD_OUT_CHINESE], 13) == [True, True, False, False], "a clause is no passage"
    thai = "ชายชราเดินช้าๆผ่านถนนในเมืองไม่มีใครรู้ว่าเขามาจากไหนและจะไปที่ใด"
    assert shares_runs([f"เมื่อวานนี้{thai}แล้ว"], [thai], 13) == [True]


def test_chinese_texts_that_differ_in_a_word_are_near_duplicates():
    texts = [HELD_OUT_CHINESE * 2, (HELD_OUT_CHINESE * 2).replace("老人", "老頭", 1)]
    flat, bounds = shingle_sets(hash_words(texts))
    assert jaccard(flat[:bounds[1]], flat[bounds[1]:]) > 0.8


@given(st.lists(st.text("ab _1é–\U0001f600日\ud800ก\u0e31\n", max_size=30), max_size=8))
def test_words_are_those_of_the_regular_expression(texts):
    found = hash_words(texts)
    expected = [re.findall(r"[日ก]|[^\W日ก]+", text.lower()) for text in texts]
    assert np.diff(found.bounds).tolist() == list(map(len, expected))
    flat = [word for row in expected for word in row]
    assert len(set(zip(flat, found.hashes.tolist(), strict=True))) == len(set(flat)) == len(set(found.hashes.tolist()))


def test_long_texts_are_hashed_in_pieces_to_the_same_words(prose, monkeypatch):
    texts = [prose[3], "x" * 100, "", prose[5] + " ΑΣ.α ΑΣ", "word" * 50 + " end"]
    whole = hash_words(texts)
    monkeypatch.setattr(words, "BLOCK_CHARACTERS", 16)
    in_pieces = hash_words(texts)
    assert np.array_equal(whole.hashes, in_pieces.hashes) and np.array_equal(whole.bounds, in_pieces.bounds)


def test_similarity_is_that_of_the_sets_of_shingles(prose):
    def shingles(text):
        words = re.findall(r"\w+", text.lower())
        return {tuple(words[start:start + 5]) for start in range(max(1, len(words) - 4))}

    texts = [prose[3], prose[3].replace("the", "a", 2), prose[5], "three words only", ""]
    flat, bounds = shingle_sets(hash_words(texts))
    sets = [flat[start:end] for start, end in pairwise(bounds)]
    for one, own in zip(texts, sets, strict=True):
        for other, others in zip(texts, sets, strict=True):
            shared = len(shingles(one) & shingles(other)) / len(shingles(one) | shingles(other))
            assert jaccard(own, others) == pytest.approx(shared)
    signature = signatures(flat, bounds, 512)
    assert (signature[:, 0] == signature[:, 1]).mean() == pytest.approx(jaccard(sets[0], sets[1]), abs=0.1)


REPAIRED = st.lists(st.one_of(
    st.sampled_from("aZ 1.,;:!?'\"()<>&#\n\r\t\f"),
    st.sampled_from("éÃ©â€™Â“”’‘\x85\x96\u2028\x1b\x7f°ßœŒŽﬁＡ、　каВЂІёАقه日本ー"),
    st.sampled_from(["&amp;", "&lt;", "<b>", "\x1b[0m", "e\u0301", "â€œ"])), max_size=40).map("".join)


@settings(max_examples=1500)
@given(REPAIRED)
def test_the_fast_repair_is_ftfys(text):
    assert repair_unicode(text) == ftfy.fix_text(text, normalization="NFC")


def test_the_fast_repair_is_ftfys_on_pages(prose):
    pages = [*prose, "\n".join(prose[:3]).replace(" is ", " â€œisâ€\x9d &amp; \x07"), "x" * 1_000_001 + "Ã©"]
    assert [repair_unicode(page) for page in pages] == [ftfy.fix_text(page, normalization="NFC") for page in pages]


@settings(max_examples=500)
@given(st.text("0123 .-+()a@é٣", max_size=40))
def test_masking_skips_only_what_it_would_not_find(text):
    expected = text
    for pattern, placeholder in ((privacy._EMAIL, "<email>"), (privacy._IP, "<ip>"), (privacy._PHONE, "<phone>")):
        expected = pattern.sub(placeholder, expected)
    assert mask_personal_data(text)[0] == expected


@pytest.mark.parametrize(("text", "language"), [
    (GOOD, "en"), ("Das ist ein Buch, das von der Liebe und dem Tod handelt, und es ist nicht kurz.", "de"),
    ("Это не книга, а что-то, как он сказал, из жизни.", "ru"), ("他们在河边走了很久，谁也没有说话。", "zh"),
    ("これは川のそばを歩いた二人の話です。", "ja"), ("كان الرجل يمشي على ضفة النهر ولا يتكلم.", "ar"),
    ("C'est un livre qui parle de la mer et des hommes dans une ville.", "fr"), ("1234 + 5678", "und")])
def test_the_language_is_told(text, language):
    assert language_of(text) == language


@pytest.mark.parametrize("text", [
    "Der alte Mann ging langsam durch die Straßen der Stadt, und niemand wusste, woher er kam oder wohin er wollte. ",
    "Старый человек медленно шёл по улицам города, и никто не знал, откуда он пришёл и куда он идёт. ",
    "老人慢慢地走过城里的街道，没有人知道他从哪里来，也没有人知道他要到哪里去。河边的灯一盏一盏地亮了。",
    "مشى الرجل العجوز ببطء في شوارع المدينة ولم يعرف أحد من أين جاء أو إلى أين يذهب في تلك الليلة. ",
    "老人はゆっくりと町の通りを歩いていたが、どこから来たのか、どこへ行くのかを知る者はいなかった。"])
def test_books_of_other_languages_are_kept(text):
    assert reason_to_remove(normalize(text), CleanConfig()) is None


def test_text_without_spaces_is_judged_by_its_characters():
    assert reason_to_remove("好", CleanConfig()) == "too_few_words"
    assert reason_to_remove("买东西请到这里来" * 40, CleanConfig()) == "repeated_phrase"
    numbers = "一二三四五六七八九十，" + "1234567890" * 10
    assert reason_to_remove(numbers, CleanConfig(max_top_ngram_ratio=1)) == "too_few_letters"


def _document(number, text, split="train", source="a"):
    return {"id": f"{source}/{number}", "source": source, "split": split, "licence": "x", "text": text, "label": None,
            "raw_words": None}


def _tables(tmp_path, documents, ratings=()):
    write_table(documents, "documents", tmp_path)
    write_table(list(ratings), "ratings", tmp_path)
    complete_tables(tmp_path, clean.TABLES)
    return tmp_path


def test_every_removal_has_a_reason_and_the_leak_is_closed(tmp_path, prose, recorder):
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    rated = {"id": "r/0", "source": "r", "split": "test", "licence": "x", "rating": 2.0, "raters": 20,
             "messages": None,
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
        collected = _tables(tmp_path / "in", [_document(0, "a"), _document(1, "b")])
        clean.run(CleanConfig(), collected=collected, out_dir=tmp_path, context=Context(tmp_path, recorder))


def test_data_without_documents_is_cleaned_too(tmp_path, recorder):
    chat = {"id": "c/0", "source": "c", "split": "train", "licence": "x", "messages": [
        {"role": "user", "content": "How are you?"}, {"role": "assistant", "content": "Fine &amp; well."}]}
    write_table([chat], "chats", tmp_path / "in")
    result = clean.run(CleanConfig(), collected=_tables(tmp_path / "in", []), out_dir=tmp_path,
                       context=Context(tmp_path, recorder))
    assert result.metrics["chats_kept"] == 1 and result.metrics["documents_kept"] == 0
    assert read_table(tmp_path, "chats")[0]["messages"][1]["content"] == "Fine & well."


def test_the_wording_that_questions_share_gives_none_of_them_away():
    wording = "Solve the following problem step by step and put the final answer after the word Answer"
    held_out = [f"{wording}: what is {number} plus {number + 1}?" for number in range(9)]
    training = [f"{wording}: what is {number} times {number + 2}?" for number in range(100, 140)]
    known = KnownRuns(held_out_runs(held_out, 13, templates=True))
    assert not shared_runs(hash_words(training), known, 13)
    assert set(shared_runs(hash_words([*training, held_out[3]]), known, 13)) == {40}
    few = KnownRuns(held_out_runs(held_out[:1], 13, templates=True))
    assert len(shared_runs(hash_words(training), few, 13)) == 40      # one question's words may be a quotation
