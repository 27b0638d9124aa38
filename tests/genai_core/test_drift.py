"""How far data has moved: amounts, shares, and data that was not there before."""

import json
import random
from collections import Counter

import pytest
from pydantic import ValidationError

from genai_core.config.data import CleanConfig, DriftGate
from genai_core.data.clean.card import CARD, SourceCard, write_card
from genai_core.data.clean.drift import drift


def entry(source, rows, table="documents", **counts):
    return {"source": source, "table": table, "splits": {"train": rows}, "characters": 10 * rows, "languages": {},
            "lengths": {}, "labels": {}, **counts}


def moved(of, before, now, **fields):
    return drift(DriftGate(of=of, most=0.1, **fields), before, now)


def test_amounts_change_by_their_ratio_up_or_down():
    before = [entry("web", 100), entry("books", 100), entry("talk", 5, "chats")]
    assert moved("rows", before, before)[0] == 0
    assert moved("rows", before, [entry("web", 150), entry("books", 100)]) == (0.25, "200 → 250")
    assert moved("characters", before, [entry("web", 100)])[0] == 0.5
    assert moved("rows", before, [entry("web", 150)], source="web")[0] == 0.5
    assert moved("rows", before, [entry("talk", 6, "chats")], table="chats")[0] == pytest.approx(0.2)


def test_a_distribution_moves_by_the_share_that_lies_elsewhere():
    before = [entry("web", 90, languages={"en": 80, "de": 10}), entry("books", 10, languages={"en": 10})]
    distance, told = moved("languages", before, [entry("web", 200, languages={"en": 120, "de": 80})])
    assert distance == pytest.approx(0.3)
    assert told == "de 10.0% → 40.0%, en 90.0% → 60.0%"
    assert moved("sources", before, [entry("web", 900), entry("books", 100)])[0] == 0, "more of the same"
    assert moved("sources", before, [entry("books", 5)])[0] == pytest.approx(0.9)
    assert moved("lengths", [entry("web", 2, lengths={"5": 1, "9": 1})], [entry("web", 2, lengths={"9": 2})]) == (
        0.5, "under 32 characters 50.0% → 0.0%, under 512 characters 50.0% → 100.0%")


def labelled(counts, directory):
    """The entry of a card of a source with so many records of each label."""
    card = SourceCard("web", "documents", Counter(train=counts.total()), labels=counts)
    write_card({("web", "documents"): card}, directory)
    return json.loads((directory / CARD).read_text())


def test_two_samples_of_more_labels_than_a_card_names_are_alike(tmp_path):
    generator = random.Random(0)
    before, now = (labelled(Counter(f"label {generator.randrange(200)}" for _ in range(20_000)), tmp_path)
                   for _ in range(2))
    assert moved("labels", before, now)[0] < 0.05
    skewed = labelled(Counter(f"label {min(generator.randrange(400), 200)}" for _ in range(20_000)), tmp_path)
    assert 0.4 < moved("labels", before, skewed)[0] < 0.55, "half of the records have a label that was rare"


def test_a_label_in_place_of_all_others_has_moved_by_all_there_is(tmp_path):
    few, many = Counter({"a": 10, "b": 10}), Counter({f"label {number}": 10 for number in range(60)})
    assert moved("labels", labelled(few, tmp_path), labelled(Counter({"c": 20}), tmp_path))[0] == 1
    assert moved("labels", labelled(few, tmp_path), labelled(many, tmp_path))[0] > 0.9
    assert moved("labels", labelled(many, tmp_path), labelled(few, tmp_path))[0] > 0.9


def test_what_was_not_there_before_or_is_no_more_has_moved_by_all_there_is():
    chats = [entry("talk", 5, "chats")]
    assert moved("rows", [], chats, table="chats")[0] == moved("rows", chats, [], table="chats")[0] == 1
    assert moved("labels", [entry("web", 5)], [entry("web", 5, labels={"good": 3})])[0] == 1
    assert moved("labels", [entry("web", 5)], [entry("web", 5)])[0] == 0, "nothing has a label, before and now"


def test_languages_are_counted_of_documents_alone():
    with pytest.raises(ValidationError, match="languages are counted of documents alone, not of chats"):
        DriftGate(of="languages", table="chats", most=0.1)


def test_one_source_alone_is_not_spread_over_sources():
    with pytest.raises(ValidationError, match="one source alone, web, cannot spread otherwise over sources"):
        DriftGate(of="sources", source="web", most=0.1)


def test_gates_are_no_part_of_what_a_key_holds():
    gated = CleanConfig(gates={"text": DriftGate(of="rows", most=0.1)})
    assert gated.for_key() == CleanConfig().for_key() and "gates" in gated.model_dump()
