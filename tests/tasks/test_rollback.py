"""Going back from a release, and what is left to do when the one in service is damaged or gone."""

import pytest

from genai_core.errors import GateFailed, InputError
from tasks.registry import moves, promotion, releases
from tasks.registry.releases import in_service
from tasks.tracking import client as tracking
from tests.tasks.conftest import FAMILY


def test_a_rollback_goes_to_the_release_before_or_to_the_named_one(registry):
    first, second, third = (promotion.conclude(registry.run(content)) for content in "abc")
    assert promotion.rollback(family=FAMILY).name == second.name == in_service(FAMILY).name
    assert registry.aliases() == second.versions and registry.aliases("previous") == third.versions
    assert promotion.rollback(first.name, FAMILY).name == first.name
    assert registry.aliases() == first.versions and registry.aliases("previous") == second.versions
    happened = moves.history("release-music")
    assert [move.name for move in happened] == [first.name, second.name, third.name, second.name, first.name]



def test_a_champion_that_was_deleted_is_no_first_release(registry):
    first, second = (promotion.conclude(registry.run(content)) for content in "ab")
    tracking.client().delete_model_version("genai-release-music", second.version)
    for asked in (lambda: in_service(FAMILY), lambda: promotion.conclude(registry.run("c"))):
        with pytest.raises(InputError, match=rf"version 2 was in service, .*took it .* one of {first.name} in service"):
            asked()
    assert promotion.rollback(family=FAMILY).name == first.name      # which also needs no name
    assert promotion.conclude(registry.run("c")).name == f"{first.name}-3"      # the deleted one's name is not reused



def test_a_lone_champion_that_was_deleted_leaves_a_way_out(registry):
    run = registry.run("a")
    lone = promotion.conclude(run)
    tracking.client().delete_model_version("genai-release-music", lone.version)
    with pytest.raises(InputError, match="`genai promote MODEL --override REASON`"):
        promotion.conclude(registry.run("b"))
    promotion.promote(f"models:/genai-tune-lstm/{run.versions['tune_lstm']}", "it was deleted by mistake")
    assert in_service(FAMILY).versions == run.versions
    assert promotion.conclude(registry.run("b")).compared_with == in_service(FAMILY).compared_with != lone.name



def test_an_alias_that_was_taken_away_is_no_first_release(registry):
    first, second = (promotion.conclude(registry.run(content)) for content in "ab")
    tracking.client().delete_registered_model_alias("genai-release-music", "champion")
    with pytest.raises(InputError, match="version 2 was in service"):
        promotion.conclude(registry.run("c"))
    assert promotion.promote(second.name, family=FAMILY) and in_service(FAMILY) == second
    assert promotion.rollback(family=FAMILY).name == first.name



def test_what_was_gone_back_from_stays_out_when_a_later_champion_is_deleted(registry):
    first, second = (promotion.conclude(registry.run(content)) for content in "ab")
    promotion.rollback(family=FAMILY)
    third = promotion.conclude(registry.run("c"))
    tracking.client().delete_model_version("genai-release-music", third.version)
    assert promotion.rollback(first.name, FAMILY).name == first.name
    with pytest.raises(GateFailed, match=f"release {second.name}"):
        promotion.conclude(registry.run("b"))



def test_a_rollback_past_one_goes_no_further_forward_and_withdraws_nothing_newer(registry):
    first, second, third = (promotion.conclude(registry.run(content)) for content in "abc")
    promotion.rollback(first.name, FAMILY)
    with pytest.raises(InputError, match="nothing to go back to"):
        promotion.rollback(family=FAMILY)
    assert promotion.rollback(second.name, FAMILY).name == second.name      # forward, by its name
    assert promotion.conclude(registry.run("a")).versions == first.versions
    with pytest.raises(GateFailed, match=f"release {third.name}"):
        promotion.conclude(registry.run("c"))



def test_models_that_a_person_put_back_under_another_name_are_not_refused(registry):
    first, _ = (promotion.conclude(registry.run(content)) for content in "ab")
    again = promotion.conclude(registry.run("a"))
    assert again.digests == first.digests and again.name != first.name
    promotion.rollback(family=FAMILY)
    with pytest.raises(GateFailed, match=again.name):
        promotion.conclude(registry.run("a"))
    promotion.promote(first.name, family=FAMILY)      # the same models
    promotion.conclude(registry.run("c"))
    assert promotion.conclude(registry.run("a")).digests == first.digests



def test_a_move_that_cannot_be_read_is_passed_over_and_none_is_written_over(registry, caplog):
    for content in "ab":
        promotion.conclude(registry.run(content))
    client = tracking.client()
    client.set_registered_model_tag("genai-release-music", f"{moves.PREFIX}000002", "{")
    third = promotion.conclude(registry.run("c"))
    assert "promotion.000002 cannot be read" in caplog.text and in_service(FAMILY) == third
    client.delete_registered_model_tag("genai-release-music", f"{moves.PREFIX}000001")
    promotion.conclude(registry.run("d"))
    assert [move.after for move in moves.recorded_moves("release-music")] == ["3", "4"]



def test_one_family_with_a_damaged_champion_keeps_no_other_from_its_registry(registry, caplog):
    first, second = (promotion.conclude(registry.run(content)) for content in "ab")
    tracking.client().set_model_version_tag("genai-release-music", second.version, releases.FACTS, "{")
    promotion.repair_all()      # what every command of the registry does first
    assert "the aliases of the stages stay as they are" in caplog.text
    assert promotion.rollback(first.name, FAMILY).name == first.name



def test_what_was_gone_back_from_does_not_come_back_by_itself(registry):
    first, second, third = (promotion.conclude(registry.run(content)) for content in "abc")
    for expected in (second, first):      # one further back each time, not to and fro
        assert promotion.rollback(family=FAMILY).name == expected.name
        with pytest.raises(GateFailed, match=rf"release {third.name}.*took out of service.*genai promote {third.name}"):
            promotion.conclude(registry.run("c"))      # the nightly run, from the cache
        assert in_service(FAMILY) == expected
    with pytest.raises(InputError, match="nothing to go back to"):
        promotion.rollback(family=FAMILY)
    assert promotion.promote(third.name, family=FAMILY).name == third.name      # a person may
    assert promotion.conclude(registry.run("c")) == third
    assert promotion.conclude(registry.run("a")).versions == first.versions      # and no longer in service is not worse



@pytest.mark.parametrize("facts", ["{", "[]", "{}", '{"versions": 3, "digests": {}, "keys": {}}',
                                   '{"versions": {}, "digests": {}, "keys": {}}',
                                   '{"family": "music", "versions": {}, "digests": {}, "keys": {}}'])
def test_a_release_with_damaged_facts_is_passed_over_with_a_warning(registry, caplog, facts):
    first, second, third = (promotion.conclude(registry.run(content)) for content in "abc")
    tracking.client().set_model_version_tag("genai-release-music", second.version, releases.FACTS, facts)
    assert releases.releases(FAMILY) == [first, third] and "genai-release-music/2: its tag" in caplog.text
    assert promotion.conclude(registry.run("d")).name == f"{first.name}-4"      # the name is not given again
    tracking.client().set_model_version_tag("genai-release-music", in_service(FAMILY).version, releases.FACTS, facts)
    with pytest.raises(InputError, match="cannot read; `genai rollback NAME` puts one of "):
        in_service(FAMILY)
    assert promotion.rollback(first.name, FAMILY).name == first.name == in_service(FAMILY).name



@pytest.mark.parametrize(("name", "words"), [
    ("", "nothing to go back to"), ("1999.1.1", "there is no release '1999.1.1'; the newest are: "),
    ("serving", "is in service already")])
def test_a_rollback_that_cannot_be_done_says_so_and_moves_nothing(registry, name, words):
    first = promotion.conclude(registry.run("a"))
    with pytest.raises(InputError, match=words):
        promotion.rollback(first.name if name == "serving" else name, FAMILY)
    assert in_service(FAMILY) == first and registry.aliases() == first.versions



def test_a_name_that_two_hosts_gave_is_refused_in_one_line(registry):
    first, second = (promotion.conclude(registry.run(content)) for content in "ab")
    tracking.client().set_model_version_tag("genai-release-music", second.version, releases.NAME, first.name)
    with pytest.raises(InputError, match="the versions 1 and 2 of genai-release-music both have this name"):
        promotion.rollback(first.name, FAMILY)
    assert in_service(FAMILY).version == second.version
