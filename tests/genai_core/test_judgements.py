"""Judgements: what may be compared with what, and the share that the gold reward keeps from the reward model."""

import math

import numpy as np
import pytest

from genai_core.config.release import Gold
from genai_core.data.instruction.judgements import Judged, Judgements, judgements, position, text_of
from genai_core.evaluation.preferences import judged_accuracy, judgement_figures
from tests.genai_core.tables import document, preference, rating, turns, write_tables


def subjects(judged):
    return {repr(each.subject) for each in judged}


@pytest.fixture
def cleaned(tmp_path):
    """Texts and conversations with a rating, and preferences, in every split."""
    def text(number, split):
        return rating(f"text {number} of {split}", float(number), source="texts", split=split)

    def conversation(number, split):
        return rating(turns(f"question {number} of {split}", "answer"), float(number % 2), source="thumbs", split=split)

    def both(number, split):
        return preference(f"problem {number} of {split}", "right", "wrong", source="pairs/easy", split=split)

    splits = [(number, split) for split in ("train", "validation", "test") for number in range(50)]
    return write_tables(tmp_path, preferences=[both(*each) for each in splits],
                        ratings=[make(*each) for make in (text, conversation) for each in splits])


def test_the_share_of_the_gold_reward_and_that_of_the_reward_model_are_disjoint_and_together_all(cleaned):
    every = judgements(cleaned, "train")
    kept = judgements(cleaned, "train", gold=Gold(), kept=True)
    left = judgements(cleaned, "train", gold=Gold())
    assert len(every.all) == 200
    assert not subjects(kept.all) & subjects(left.all)
    assert subjects(kept.all) | subjects(left.all) == subjects(every.all)
    assert len(kept.all) + len(left.all) == len(every.all)
    assert 0.15 < len(kept.all) / len(every.all) < 0.35, "about a quarter"
    assert not judgements(cleaned, "train", kept=True).all and judgements(cleaned, "train").all


def test_pairs_are_those_of_a_group_that_differ_by_enough_and_all_choices(cleaned):
    known = judgements(cleaned, "train")
    counts = {source: known.pairs_of(source, 3.0) for source in known.sources}
    assert counts == {"texts": sum(range(1, 48)), "thumbs": 0, "pairs/easy": 50}
    write_tables(cleaned, documents=[document(f"text {number}", label="ab"[number % 2]) for number in range(10)])
    labelled = judgements(cleaned, "train", ("mine",), Gold(task="sentiment", label="a", fraction=1e-9))
    assert labelled.pairs_of("mine", 3.0) == 25
    scores = np.array([each.rating for each in labelled.all])
    assert judgement_figures(scores, labelled, labelled, 3.0)["mine/accuracy"] == 1


def test_preferences_of_a_source_are_called_the_same_in_every_split(tmp_path):
    splits = ("train", "validation", "test")
    write_tables(tmp_path, preferences=[preference(f"q of {split}", "a", "b", split=split) for split in splits],
                 ratings=[rating("a text", 1.0), rating("another", 2.0)])      # of the training split alone
    for split in splits:
        assert {each.source for each in judgements(tmp_path, split).preferred} == {"mine/preferences"}, split


def test_ratings_that_differ_by_less_than_one_are_measured_where_the_gap_says_so():
    judged = [Judged(f"text {number}", number / 10, "mine", "mine") for number in range(10)]
    scores = np.array([each.rating for each in judged])
    assert judged_accuracy(scores, judged, 0.2) == 1 and math.isnan(judged_accuracy(scores, judged, 1.0))
    known = Judgements(judged, [])
    assert not {"mine/accuracy", "mine/calibration_error"} - judgement_figures(scores, known, known, 0.2).keys()


def test_both_answers_of_a_preference_and_all_judgements_of_a_question_are_on_the_same_side(tmp_path):
    write_tables(tmp_path, preferences=[preference(f"q {number}", "a", "b") for number in range(40)],
                 ratings=[rating(turns(f"Q {number}!", answer), 1.0) for number in range(40) for answer in "ab"])
    kept = judgements(tmp_path, "train", gold=Gold(fraction=0.5), kept=True)
    asked = {name: [each.subject[0]["content"] for each in judged]
             for name, judged in (("rated", kept.rated), ("preferred", kept.preferred))}
    assert 0 < len(asked["preferred"]) < 80
    assert sorted(asked["rated"]) == sorted(text.replace("q", "Q") + "!" for text in asked["preferred"])
    assert all(position(text) < 0.5 for text in asked["rated"])


def test_labelled_texts_of_named_sources_are_judged_and_a_share_of_them_is_left_to_the_gold_reward(tmp_path):
    labelled = [document(f"text {number} of {split}", ("bad", "good")[number % 2], source="mine/films", split=split)
                for split in ("train", "test") for number in range(60)]
    write_tables(tmp_path, documents=[*labelled, document("no label", source="mine/films")],
                 ratings=[rating(f"rated {number}", 3.0, source="stars") for number in range(20)], preferences=[])
    gold = Gold(task="films", label="good", fraction=0.5)
    sources = ("stars", "mine/films")
    given, left = (judgements(tmp_path, "train", sources, gold, kept=kept) for kept in (False, True))
    assert [each.group for each in given.rated[:20]] == ["stars"] * 20, "what a task teaches takes no rating away"
    assert {each.group for each in given.rated[20:]} == {"mine/films"} == {each.group for each in left.rated}
    assert len(given.rated) - 20 + len(left.rated) == 60 and 15 < len(left.rated) < 45
    assert not subjects(given.rated) & subjects(left.rated)
    for each in given.rated[20:]:
        number = int(str(each.subject).split()[1])
        assert each.rating == number % 2, each
    assert len(judgements(tmp_path, "test", sources, gold).rated) == 60, "held-out ones are measured whole"
    assert {each.group for each in judgements(tmp_path, "train", (), gold).rated} == {"stars"}, "none is named"
    assert {each.group for each in judgements(tmp_path, "train", sources, Gold()).rated} == {"stars"}, "none is good"


@pytest.mark.parametrize("split", ["validation", "test"])
@pytest.mark.parametrize("kept", [True, False])
def test_held_out_judgements_are_measured_whole(cleaned, split, kept):
    held_out = judgements(cleaned, split, gold=Gold(), kept=kept)
    assert len(held_out.rated) == 100 and len(held_out.preferred) == 100


def test_judgements_are_of_the_sources_that_are_named(cleaned):
    assert judgements(cleaned, "train").sources == ("texts", "thumbs", "pairs/easy")
    assert judgements(cleaned, "train", ("pairs",)).sources == ("pairs/easy",)
    assert judgements(cleaned, "train", ("pairs/easy", "texts")).sources == ("texts", "pairs/easy")
    assert judgements(cleaned, "train", ("pairs/hard",)).all == []


def test_in_pairs_the_answers_of_a_preference_stay_adjacent_and_ratings_come_in_random_order(cleaned):
    judged = judgements(cleaned, "train")
    for seed in range(3):
        ordered = judged.in_pairs(seed)
        assert len(ordered) == len(judged.all)
        assert [(first.rating, second.rating) for first, second in zip(ordered[100::2], ordered[101::2], strict=True)] \
            == [(1.0, 0.0)] * 50
        assert all(first.group == second.group for first, second in zip(ordered[100::2], ordered[101::2], strict=True))
        assert ordered[100:] == judged.preferred and ordered[:100] != judged.rated
    assert judged.in_pairs(0) != judged.in_pairs(1)


def test_of_an_odd_number_of_ratings_one_is_left_out_and_no_answer_of_a_preference_is():
    rated = [Judged(f"text {number}", 1.0, "mine", "mine") for number in range(5)]
    preferred = [Judged("good", 1.0, "p/1", "p"), Judged("bad", 0.0, "p/1", "p")]
    ordered = Judgements(rated, preferred).in_pairs(0)
    assert len(ordered) == 6 and ordered[4:] == preferred


def test_ratings_are_compared_within_a_source_alone():
    """Each source is ordered right by itself, and the one with the higher numbers scores lower throughout."""
    judged = [Judged(str(value), value, "stars", "stars") for value in (1.0, 3.0, 5.0)]
    judged += [Judged(f"t{value}", value, "thumbs", "thumbs") for value in (0.0, 1.0)]
    scores = np.array([-9.0, -8.0, -7.0, 1.0, 2.0])
    assert judged_accuracy(scores, judged, 1.0) == 1.0
    assert judged_accuracy(-scores, judged, 1.0) == 0.0
    one_wrong = np.array([-9.0, -8.0, -7.0, 2.0, 1.0])
    assert judged_accuracy(one_wrong, judged, 1.0) == 0.5, "sources count alike, however many pairs they have"
    assert math.isnan(judged_accuracy(scores[:1], judged[:1], 1.0))


def test_answers_of_two_preferences_are_not_compared():
    judged = [Judged(f"{question}{side}", float(side == "a"), f"p/{question}", "p") for question in "xy"
              for side in "ab"]
    assert judged_accuracy(np.array([9.0, 8.0, 1.0, 0.0]), judged, 1.0) == 1.0
    assert judged_accuracy(np.array([1.0, 0.0, 8.0, 9.0]), judged, 1.0) == 0.5


@pytest.mark.parametrize("min_gap", [0.5, 1.0])
def test_figures_are_by_source_beside_a_baseline_and_their_means(cleaned, min_gap):
    held_out, train = judgements(cleaned, "test"), judgements(cleaned, "train")
    scores = np.array([each.rating for each in held_out.all])
    figures = judgement_figures(scores, held_out, train, min_gap)
    for source in ("texts", "thumbs", "pairs/easy"):
        assert figures[f"{source}/accuracy"] == 1.0
        assert 0 <= figures[f"{source}/baseline_accuracy"] <= 1
    assert figures["pairs/easy/baseline_accuracy"] == 1.0, "right and wrong are told by their words"
    assert 0 <= figures["pairs/easy/calibration_error"] <= 1 and 0 <= figures["pairs/easy/longer_preferred"] <= 1
    assert figures["pairs/easy/preferences"] == 50 and figures["texts/rated"] == 50
    assert figures["accuracy"] == 1.0
    assert figures["baseline_accuracy"] == pytest.approx(np.mean(
        [figures[f"{source}/baseline_accuracy"] for source in ("texts", "thumbs", "pairs/easy")]))
    assert not any(math.isnan(value) for value in figures.values())


def test_of_a_conversation_the_baseline_reads_what_the_assistant_says():
    assert text_of(turns("question", "one", "again", "two")) == "one\ntwo" and text_of("a text") == "a text"
