"""Releases on a real registry: one name for the models of a run, moved as one, repaired after a crash."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from genai_core.errors import GateFailed, InputError
from tasks.catalog import family_named
from tasks.registry import moves, promotion, releases, versions
from tasks.registry.opponent import all_here, opponent, opposing_models, require_opponent
from tasks.registry.releases import in_service
from tasks.tracking import client as tracking
from tests.tasks.conftest import FAMILY, STAGES


def test_a_release_names_every_model_with_digest_and_key_and_what_it_was_compared_with(registry):
    first, run = promotion.conclude(registry.run("a")), registry.run("b")
    second = promotion.conclude(run)
    today = f"{datetime.now(UTC):%Y.%m.%d}"
    assert (first.name, second.name) == (today, f"{today}-2")
    assert second == in_service(FAMILY) == releases.find(second.name, FAMILY)
    assert second.versions == run.versions and set(second.versions) == set(STAGES)
    assert second.digests == {stage: run.artifacts[stage].digest for stage in STAGES}
    assert second.keys == {stage: run.artifacts[stage].key for stage in STAGES}
    assert (first.compared_with, second.compared_with) == ("", first.name)
    assert second.compared_digests == first.digests
    assert (second.commit, second.command) == ("c0ffee", "genai run") and second.environment["python"]
    assert registry.aliases() == second.versions and registry.aliases("previous") == first.versions


def test_the_same_models_make_no_second_release(registry):
    first = promotion.conclude(registry.run("a"))
    assert promotion.conclude(registry.run("a")) == first and len(releases.releases(FAMILY)) == 1


def test_of_two_runs_with_the_same_models_the_later_one_ends_well_too(registry):
    made = []

    def meanwhile(_):
        made.append(promotion.conclude(registry.run("a"), compared_with=""))
        return "somebody"

    assert promotion.conclude(registry.run("a"), meanwhile, compared_with="") == made[0] == in_service(FAMILY)
    assert len(releases.releases(FAMILY)) == 1


def test_a_failed_gate_leaves_everything_in_service_and_makes_no_release(registry):
    first = promotion.conclude(registry.run("a"))
    registry.passed = False
    with pytest.raises(GateFailed, match=r"gate size: int8/size is 1\.0000, wanted <= 0\.5000"):
        promotion.conclude(registry.run("b"))
    assert in_service(FAMILY) == first and len(releases.releases(FAMILY)) == 1 and registry.aliases() == first.versions


def test_a_run_that_was_compared_with_another_release_than_serves_now_is_not_promoted(registry):
    first = promotion.conclude(registry.run("a"))
    late = registry.run("late")
    promotion.conclude(registry.run("b"))
    with pytest.raises(GateFailed, match=f"changed during this run, from {first.name} to {first.name}-2"):
        promotion.conclude(late, compared_with=first.name)
    assert in_service(FAMILY).name == f"{first.name}-2"


def test_a_run_is_held_against_the_release_in_service_and_a_rerun_of_it_against_what_it_was_held_against(registry):
    assert opponent(FAMILY, registry.run("a").artifacts) is None
    first = promotion.conclude(registry.run("a"))
    assert opponent(FAMILY, registry.run("a").artifacts) is None, "the first release is held against itself"
    assert opponent(FAMILY, registry.run("b").artifacts) == first
    promotion.conclude(registry.run("b"))
    assert opponent(FAMILY, registry.run("b").artifacts) == first
    assert opponent(FAMILY, registry.run("c").artifacts).name == f"{first.name}-2"


def test_the_models_that_a_run_is_held_against_are_fetched_and_a_lost_one_is_one_clear_line(registry):
    first = promotion.conclude(registry.run("a"))
    stage = replace(family_named(FAMILY).all_stages[-1], in_service={"champion": STAGES[0]})
    shutil.rmtree(registry.workspace.models)
    require_opponent(FAMILY, [stage], registry.workspace)
    models = opposing_models(first, stage, registry.workspace)
    assert models[STAGES[0]].digest == first.digests[STAGES[0]] and all_here(first, stage, registry.workspace)
    shutil.rmtree(registry.workspace.models)
    shutil.rmtree(registry.workspace.root / "mlartifacts")
    with pytest.raises(InputError, match=f"release {first.name}, which .* has lost its {STAGES[0]} model .*neither"):
        opposing_models(first, stage, registry.workspace)
    with pytest.raises(InputError, match=f"release {first.name}, which .* has lost its {STAGES[0]} model .*manifest"):
        require_opponent(FAMILY, [stage], registry.workspace)      # which a run asks before its first stage
    assert in_service(FAMILY) == first


def test_a_failed_run_becomes_a_release_only_with_a_reason(registry):
    first = promotion.conclude(registry.run("a"))
    registry.passed = False
    run = registry.run("b")
    with pytest.raises(GateFailed):
        promotion.conclude(run)
    uri = f"models:/genai-tune-lstm/{run.versions['tune_lstm']}"
    with pytest.raises(InputError, match=r"gate size.*--override"):
        promotion.promote(uri)
    move = promotion.promote(uri, "the edge box has room")
    release = in_service(FAMILY)
    assert release.versions == run.versions and release.gates == "override: the edge box has room"
    assert move.name == release.name and promotion.promote(uri, "again") is None
    assert promotion.promote(first.name, family=FAMILY).name == first.name == in_service(FAMILY).name


def test_releases_keep_their_order_when_the_clock_of_a_host_is_behind(registry, monkeypatch):
    class Behind(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime(2020, 1, 1, tzinfo=tz)

    first = promotion.conclude(registry.run("a"))
    monkeypatch.setattr(releases, "datetime", Behind)
    monkeypatch.setattr(moves, "datetime", Behind)
    second = promotion.conclude(registry.run("b"))
    assert (second.name, second.compared_with) == ("2020.01.01", first.name)
    assert releases.releases(FAMILY) == [first, second] and in_service(FAMILY) == second
    assert promotion.rollback(family=FAMILY).name == first.name


def test_a_release_whose_files_are_gone_does_not_come_into_service(registry):
    first, second = (promotion.conclude(registry.run(content)) for content in "ab")
    files = registry.workspace.root / "mlartifacts" / "tune_lstm" / first.keys["tune_lstm"]
    for lose in (lambda weights: weights.write_bytes(b""), Path.unlink):
        for weights in files.rglob("weights"):
            lose(weights)
        with pytest.raises(InputError, match=r"genai-tune-lstm/1: its files are gone .*, or cut short \(weights\)"):
            promotion.rollback(family=FAMILY)
    assert in_service(FAMILY) == second and registry.aliases() == second.versions


def test_a_registry_without_releases_has_none_in_service_and_keeps_its_champions(registry):
    run = registry.run("old")
    for stage, version in run.versions.items():
        versions.set_alias(stage, "champion", version)
    promotion.repair_all()
    assert in_service(FAMILY) is None and registry.aliases() == run.versions
    release = promotion.conclude(registry.run("new"))
    assert release.compared_with == "" and registry.aliases() == release.versions
    assert registry.aliases("previous") == run.versions


WRITES = ("create_registered_model", "create_model_version", "set_model_version_tag", "set_registered_model_tag",
          "set_registered_model_alias", "delete_registered_model_alias", "delete_model_version", "log_text")


class Killed(BaseException):
    """What ends a process, as no handler of errors catches it."""


@pytest.fixture
def kill_after(monkeypatch: pytest.MonkeyPatch):
    """Let the process die right after the write with this number; 0 lets it live. The list tells the writes."""
    def dying(name: str, number: int, done: list[str]) -> Callable[..., object]:
        client = tracking.client()

        def write(*arguments: object, **named: object) -> object:
            result = getattr(type(client), name)(client, *arguments, **named)
            done.append(name)
            if len(done) == number:
                raise Killed
            return result

        return write

    def arm(number: int) -> list[str]:
        done: list[str] = []
        for name in WRITES:
            monkeypatch.setattr(tracking.client(), name, dying(name, number, done))
        return done

    return arm


@pytest.mark.parametrize("step", ["promotion", "rollback"])
def test_a_crash_between_any_two_writes_is_repaired_to_one_release_old_or_new(registry, kill_after, step):
    promotion.conclude(registry.run("0"))
    promotion.conclude(registry.run("1"))
    seen, number = set(), 1
    while True:
        if step == "rollback" and number > 1 and in_service(FAMILY).version == "1":
            promotion.promote(releases.releases(FAMILY)[1].name, family=FAMILY)
        old = in_service(FAMILY)
        run = registry.run(f"next {number}")
        done = kill_after(number)
        try:
            promotion.conclude(run) if step == "promotion" else promotion.rollback(family=FAMILY)
            finished = True
        except Killed:
            finished = False
        kill_after(0)
        serving = promotion.repair(FAMILY)      # what the next command does first
        expected = [old.versions, run.versions] if step == "promotion" else [
            entry.versions for entry in releases.releases(FAMILY)]
        assert serving.versions in expected, f"after write {number}, {done[-1]}"
        assert registry.aliases() == serving.versions, f"mixed after write {number}, {done[-1]}"
        before = moves.history("release-music")[-1].before
        former = next(release for release in releases.releases(FAMILY) if release.version == before)
        assert registry.aliases("previous") == former.versions and former != serving
        seen.add(serving.versions == old.versions)
        if finished:
            break
        if step == "promotion":      # the same command goes on
            assert promotion.conclude(run).versions == run.versions == registry.aliases()
        number += 1
    assert seen == {True, False} and number > (14 if step == "promotion" else 6)
    names = [release.name for release in releases.releases(FAMILY)]
    assert len(names) == len(set(names)) and len(names) == (number + 2 if step == "promotion" else 2)
