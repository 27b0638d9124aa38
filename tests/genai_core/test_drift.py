"""How far data has moved: amounts, shares, and data that was not there before."""

import pytest
from pydantic import ValidationError

from genai_core.config.data import CleanConfig, DriftGate
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


def test_what_was_not_there_before_or_is_no_more_has_moved_by_all_there_is():
    chats = [entry("talk", 5, "chats")]
    assert moved("rows", [], chats, table="chats")[0] == moved("rows", chats, [], table="chats")[0] == 1
    assert moved("labels", [entry("web", 5)], [entry("web", 5, labels={"good": 3})])[0] == 1
    assert moved("labels", [entry("web", 5)], [entry("web", 5)])[0] == 0, "nothing has a label, before and now"


def test_languages_are_counted_of_documents_alone():
    with pytest.raises(ValidationError, match="languages are counted of documents alone, not of chats"):
        DriftGate(of="languages", table="chats", most=0.1)


def test_gates_are_no_part_of_what_a_key_holds():
    gated = CleanConfig(gates={"text": DriftGate(of="rows", most=0.1)})
    assert gated.for_key() == CleanConfig().for_key() and "gates" in gated.model_dump()
