"""Releases of a language model hold the models there are: one without a chat model does not replace one that has it
unless a person says so, and then no alias of a chat model stays behind."""

import pytest

from flows.pipeline_run import _warn_of_a_lesser_release
from genai_core.config.pipeline import load_pipeline
from genai_core.errors import GateFailed, InputError
from tasks.language_model import BASE
from tasks.registry import promotion
from tasks.registry.aliases import behind
from tasks.registry.releases import in_service, model_stages_of, needed_stages_of, releases
from tasks.registry.versions import set_alias

CHATS = ("instruct", "reward", "rlhf")
EVERY = ("pretrain", *CHATS, "quantize")
WHOLE = load_pipeline("smoke")
TEXT = load_pipeline("smoke", {"collect.replace_sources": True, "collect.sources.mine": {"kind": "random_text"}})


@pytest.fixture
def served(registry):
    """The release of a run with every model, in service."""
    return promotion.conclude(registry.run("whole", WHOLE))


def test_a_release_holds_the_models_that_the_data_gives(registry):
    assert model_stages_of("") == ("adopt", *EVERY) and needed_stages_of("") == (BASE, "quantize")
    run = registry.run("text", TEXT)
    assert tuple(run.versions) == ("pretrain", "quantize")
    release = promotion.conclude(run)
    assert release == in_service("") and release.versions == run.versions
    assert set(release.digests) == set(release.keys) == {"pretrain", "quantize"}
    assert registry.aliases("champion", ("pretrain", "quantize")) == run.versions


def test_of_a_family_every_release_has_every_model():
    assert needed_stages_of("music") == model_stages_of("music")


def test_a_release_that_lacks_models_does_not_replace_one_that_has_them_and_says_so(registry, served, caplog):
    run = registry.run("text", TEXT)
    message = (f"release {served.name}, which is in service, has models of instruct, reward, rlhf, and this run's data "
               "gives none, so it does not replace it; `genai promote MODEL --override REASON` does")
    _warn_of_a_lesser_release(run)
    assert message in caplog.text, "before the first hour, and not after the last"
    with pytest.raises(GateFailed) as caught:
        promotion.conclude(run)
    assert str(caught.value) == message
    assert in_service("") == served and releases("") == [served]
    assert registry.aliases("champion", EVERY) == served.versions


def test_nothing_is_said_where_no_model_is_lost(registry, served, caplog):
    _warn_of_a_lesser_release(registry.run("other", WHOLE))
    assert "does not replace" not in caplog.text
    assert promotion.conclude(registry.run("other", WHOLE)).compared_with == served.name


@pytest.fixture
def by_hand(registry, served):
    """A run without chats that was judged, and that a person put in service all the same; and the move."""
    run = registry.run("text", TEXT)
    with pytest.raises(GateFailed):
        promotion.conclude(run)
    return run, promotion.promote(f"models:/genai-quantize/{run.versions['quantize']}", "no chats are wanted here")


def test_by_hand_it_comes_into_service_and_the_aliases_of_absent_models_go(registry, served, by_hand):
    run, move = by_hand
    release = in_service("")
    assert move.name == release.name and release.versions == run.versions
    assert registry.aliases("champion", EVERY) == run.versions | dict.fromkeys(CHATS, "")
    assert registry.aliases("previous", EVERY) == served.versions, "what served before is known of every model"
    assert behind("") == []


def test_going_back_from_it_brings_them_back(registry, served, by_hand):
    run, _ = by_hand
    assert promotion.rollback().name == served.name
    assert registry.aliases("champion", EVERY) == served.versions
    assert registry.aliases("previous", EVERY) == run.versions | dict.fromkeys(CHATS, "")


def test_a_run_with_more_models_replaces_a_release_with_fewer(registry):
    first = promotion.conclude(registry.run("text", TEXT))
    whole = registry.run("whole", WHOLE)
    release = promotion.conclude(whole)
    assert release.compared_with == first.name and set(release.versions) == set(EVERY)
    assert registry.aliases("champion", EVERY) == whole.versions


def test_an_alias_that_a_crash_has_left_on_an_absent_model_is_taken_away(registry, served, by_hand):
    set_alias("instruct", "champion", served.versions["instruct"])
    assert behind("") == [("instruct", "champion", served.versions["instruct"], "")]
    promotion.repair("")
    assert registry.aliases("champion", CHATS) == dict.fromkeys(CHATS, "")


def test_a_version_that_does_not_tell_which_quantized_model_belongs_to_it_makes_no_release(registry):
    """It was never judged, and a base model's lineage holds nothing that was made of it."""
    run = registry.run("text", TEXT)
    with pytest.raises(InputError, match="every release holds a model of pretrain or adopt, quantize, and nothing "
                                         "tells which version of quantize belongs to it; promote the last model of its "
                                         "run"):
        promotion.promote(f"models:/genai-pretrain/{run.versions['pretrain']}", "it is good")
    assert in_service("") is None
