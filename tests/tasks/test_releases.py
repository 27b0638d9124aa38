"""Releases on a real registry: one name for the models of a run, moved as one, repaired after a crash."""

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from genai_core.errors import GateFailed, InputError
from tasks.catalog import family_named
from tasks.pipeline import PipelineRun
from tasks.registry import moves, promotion, releases, versions
from tasks.registry.opponent import all_here, opponent, opposing_models, require_opponent
from tasks.registry.releases import in_service
from tasks.store.artifacts import KeyParts
from tasks.store.workspace import Workspace
from tasks.tracking import client as tracking

FAMILY = "music"
"""It has two models: the fewest of which a part can be moved."""
STAGES = releases.model_stages_of(FAMILY)


@dataclass
class Registry:
    """A workspace with an MLflow of its own, and runs whose models are a few bytes."""

    workspace: Workspace
    passed: bool = True

    def run(self, content: str) -> PipelineRun:
        """A run that made models of this content, registered and judged but not acted on."""
        run = PipelineRun(family_named(FAMILY).load("smoke"), self.workspace, command="genai run", commit="c0ffee")
        run.parent_run_id = tracking.start_parent_run(content, {}, {})
        for stage in (*STAGES, "evaluate", "promote"):
            report = stage in ("evaluate", "promote")
            parts = KeyParts(stage, {"content": content}, {}, {})
            directory = run.store.directory(stage, "report" if report else "model", parts.key)
            if not directory.exists():
                with run.store.new(directory, parts) as scratch:
                    (scratch / "weights").write_text(content)
                    if stage == "promote":
                        verdict = {"gate": "size", "figure": "int8/size", "value": 1.0, "comparison": "<=",
                                   "bound": 0.5, "passed": self.passed, "interval": [0.9, 1.1]}
                        (scratch / "gates.json").write_text(json.dumps([verdict]))
                    run.store.commit(scratch, directory, parts, {})
            artifact = run.artifacts[stage] = run.store.find(directory)
            if not report:
                run.versions[stage] = self._version(stage, artifact, run)
        return run

    def _version(self, stage, artifact, run) -> str:
        client, name = tracking.client(), versions.model_name(stage)
        if found := versions.find_version(stage, artifact.key):
            return str(found.version)
        if versions.registered_model(stage) is None:
            client.create_registered_model(name)
        folder = self.workspace.root / "mlartifacts" / stage / artifact.key
        target = folder / "artifacts" / artifact.key
        target.mkdir(parents=True)
        for file in artifact.directory(self.workspace).iterdir():
            (target / file.name).write_bytes(file.read_bytes())
        tags = {"stage": stage, "cache.key": artifact.key, "artifact.digest": artifact.digest, "path": artifact.path}
        return str(client.create_model_version(name, folder.as_uri(), run.parent_run_id, tags=tags).version)

    def aliases(self, alias: str = "champion") -> dict[str, str]:
        return {stage: str(versions.registered_model(stage).aliases.get(alias, "")) for stage in STAGES}


def _home(root: Path, patch: pytest.MonkeyPatch) -> None:
    """Make `root` the workspace; the client of another one leaves its addresses in the environment."""
    patch.setenv("GENAI_HOME", str(root))
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"):
        patch.delenv(name, raising=False)
    _forget_the_client()


def _forget_the_client() -> None:
    for cached in (tracking.client, tracking.experiment_id, releases._warn_once):
        cached.cache_clear()


@pytest.fixture(scope="module")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database with nothing in it: making one takes seconds."""
    home = tmp_path_factory.mktemp("empty")
    with pytest.MonkeyPatch.context() as patch:
        _home(home, patch)
        tracking.experiment_id()
    return home / "mlflow.db"


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_database: Path) -> Iterator[Registry]:
    shutil.copy(empty_database, tmp_path)
    _home(tmp_path, monkeypatch)
    yield Registry(Workspace(tmp_path))
    _forget_the_client()


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


def test_a_release_whose_files_are_gone_does_not_come_into_service(registry):
    first, second = (promotion.conclude(registry.run(content)) for content in "ab")
    files = registry.workspace.root / "mlartifacts" / "tune_lstm" / first.keys["tune_lstm"]
    for lose in (lambda weights: weights.write_bytes(b""), Path.unlink):
        for weights in files.rglob("weights"):
            lose(weights)
        with pytest.raises(InputError, match=r"genai-tune-lstm/1: its files are gone .*, or cut short \(weights\)"):
            promotion.rollback(family=FAMILY)
    assert in_service(FAMILY) == second and registry.aliases() == second.versions


def test_a_name_that_two_hosts_gave_is_refused_in_one_line(registry):
    first, second = (promotion.conclude(registry.run(content)) for content in "ab")
    tracking.client().set_model_version_tag("genai-release-music", second.version, releases.NAME, first.name)
    with pytest.raises(InputError, match="the versions 1 and 2 of genai-release-music both have this name"):
        promotion.rollback(first.name, FAMILY)
    assert in_service(FAMILY).version == second.version


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
