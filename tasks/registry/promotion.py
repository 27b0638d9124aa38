"""Which release is in service: it moves forward through gates and back by hand, and each move is recorded.

The alias `champion` of the registered model of releases is the truth. A move is recorded first, then the alias is set
in one call; `previous` and the aliases of the stages' own models follow, and `repair` brings them there after a crash.
"""

import json
import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from genai_core.errors import GateFailed, InputError
from tasks.catalog import FAMILIES
from tasks.language_model import BASE
from tasks.lease import lease
from tasks.pipeline import PipelineRun
from tasks.registry.aliases import behind, champion_number, follow
from tasks.registry.contents import require_files, versions_beside
from tasks.registry.moves import ROLLBACK, Move, before_the_last, last_champion, record_move, withdrawn
from tasks.registry.releases import (
    Release,
    find,
    in_service,
    model_stages_of,
    needed_stages_of,
    register,
    release_stage,
    releases,
)
from tasks.registry.versions import (
    directory_of,
    figures_of,
    find_version,
    key_figures,
    model_name,
    read_version,
    set_alias,
    tag,
)
from tasks.store import records
from tasks.store.artifacts import read_manifest
from tasks.store.workspace import Workspace
from tasks.tracking import client as tracking

logger = logging.getLogger("tasks")


class OtherChampion(GateFailed):
    """Another release came into service than the one that the gates held a run against."""


Approve = Callable[[Release], str]
"""Asks a person about a release that is to be put in service and tells who said yes; raises GateFailed for a no."""


def conclude(run: PipelineRun, approve: Approve | None = None, compared_with: str | None = None) -> Release:
    """Do what the judged gates of a run say: put its versions in service as a release, or tag them as failed.

    `compared_with` names the release that the gates held the run against; without it they held it against none, as
    those of a family do. Nothing is moved when the release in service holds the same bytes. Raises GateFailed with the
    gate, the figure and the bound, and OtherChampion when another release came into service in the meantime.
    """
    verdicts = _verdicts(run)
    failed = [verdict for verdict in verdicts if not verdict.get("passed")]
    together = {"gates.family": run.family, "gates.versions": json.dumps(run.versions)}
    if failed:
        reason = "; ".join(map(_told, failed))
        for stage, version in run.versions.items():
            tag(stage, version, {**together, "gates": "failed", "gates.reason": reason})
        raise GateFailed(reason)
    for stage, version in run.versions.items():
        tag(stage, version, {**together, "gates": "passed"})
    champion = in_service(run.family)
    draft = replace(_draft(run, champion), verdicts=verdicts)
    if champion and champion.digests == draft.digests:
        logger.info("release %s is in service already, with the same models", champion.name)
        return champion
    _refuse_withdrawn(draft)
    if compared_with is not None:
        _require_still(compared_with, champion)
    if champion and (lacking := models_lacking(run, champion)):
        raise GateFailed(lacking)
    if approve:
        draft = replace(draft, approved=approve(draft))
    with _lock(run.family):
        now = in_service(run.family)
        if now and now.digests == draft.digests:      # another run of the same came first
            return now
        if compared_with is not None:
            _require_still(compared_with, now)
        release = register(draft, run.parent_run_id)
        _serve(release, f"every gate passed; approved by {draft.approved}" if approve else "every gate passed")
    return release


def promote(reference: str, override: str = "", family: str = "") -> Move | None:
    """Put a release in service by hand, or the run that a model version comes from; None when it is there already.

    Raises InputError for versions that did not pass their gates unless `override` gives a reason.
    """
    if "/" not in reference and "@" not in reference:
        release = find(reference, family)
        with _lock(family):
            return _serve(release, _by_hand(override))
    version = read_version(reference)
    gates = version.tags.get("gates", "")
    if gates != "passed" and not override.strip():
        why = version.tags.get("gates.reason") or "it was never held against the gates: no run went on to promote it"
        raise InputError(f"{reference}: {why}; to promote it all the same, give --override and the reason")
    family = _family_of(version)
    champion = None
    with _lock(family):
        with tracking.told("the release that this one replaces is not known"):      # a person may go on all the same
            champion = in_service(family)
        draft = _draft_of(family, versions_beside(version, model_stages_of(family), needed_stages_of(family),
                                                  reference))
        if champion and champion.versions == draft.versions:
            return None
        require_files(draft)
        run_id = tracking.start_parent_run(f"promoted by hand · {reference}", {}, {"override": override.strip()})
        release = register(replace(draft, gates="passed" if gates == "passed" else _by_hand(override)), run_id)
        tracking.end_run(run_id, "FINISHED")
        return _serve(release, _by_hand(override))


def rollback(name: str = "", family: str = "") -> Move:
    """Put the release before the one in service, or the named one, in service. Raises InputError without one.

    What is gone back from does not come back by itself: `conclude` refuses the same models until somebody promotes
    them by the release's name.
    """
    with _lock(family):
        release = find(name, family) if name else _before(family)
        if release is None:
            raise InputError("no release served before the one in service that was not itself taken out of service, so "
                             "there is nothing to go back to; `genai releases` lists what there is")
        move = _serve(release, ROLLBACK)
    if move is None:
        raise InputError(f"release {release.name} is in service already")
    return move


def _before(family: str) -> Release | None:
    """The release that served last before the one in service, of those that no rollback went back over."""
    there, serving = {release.version: release for release in releases(family)}, champion_number(family)
    return next((there[version] for version in reversed(before_the_last(release_stage(family)))
                 if version in there and version != serving), None)


def adopt(release: Release, reason: str) -> Release | None:
    """Put the release of another registry in service here, with the versions that its models have here; None where one
    is in service already. Raises InputError when a model of it is not registered here."""
    with _lock(release.family):
        if in_service(release.family):
            return None
        found = {stage: find_version(stage, key, release.digests[stage]) for stage, key in release.keys.items()}
        if missing := [stage for stage, version in found.items() if version is None]:
            raise InputError(f"release {release.name}: its models of {', '.join(missing)} are not registered here")
        draft = replace(release, versions={stage: str(version.version) for stage, version in found.items()},
                        compared_with="", compared_digests={})
        require_files(draft)
        run_id = tracking.start_parent_run(f"published · release {release.name}", {}, {"published.from": release.name})
        here = register(draft, run_id)
        tracking.end_run(run_id, "FINISHED")
        _serve(here, reason)
        return here


def repair(family: str = "") -> Release | None:
    """The release in service, after the aliases that follow it were set right where a crash had left them behind."""
    if champion_number(family) == "":
        return None
    if behind(family):
        with _lock(family):
            for change in follow(family):
                logger.warning("a move of the release in service had been cut short: %s", change)
    return in_service(family)


def repair_all() -> None:
    """`repair` for every family that has releases; where one cannot be, that is told, since others can."""
    found = tracking.client().search_registered_models("name LIKE 'genai-release%'")
    there = {model.name for model in found}
    for family in ("", *FAMILIES):
        if model_name(release_stage(family)) in there:
            with tracking.told("the aliases of the stages stay as they are"):
                repair(family)


def models_lacking(run: PipelineRun, champion: Release) -> str:
    """Why a run cannot replace a release that has models of stages that the run does not have; empty where it can."""
    names = {stage.name for stage in run.stages}
    if names & set(BASE.stages):      # trained here or taken in, it is a base
        names |= set(BASE.stages)
    missing = [stage for stage in champion.versions if stage not in names]
    return "" if not missing else (
        f"release {champion.name}, which is in service, has models of {', '.join(missing)}, and this run's data gives "
        f"none, so it does not replace it; `genai promote MODEL --override REASON` does")


def _refuse_withdrawn(draft: Release) -> None:
    same = {release.version: release.name for release in releases(draft.family) if release.digests == draft.digests}
    if move := withdrawn(release_stage(draft.family), set(same)):
        name = same[move.before]
        raise GateFailed(f"these are the models of release {name}, which {move.who} took out of service on "
                         f"{move.when[:10]}; `genai promote {name}` puts it back")


def _require_still(expected: str, champion: Release | None) -> None:
    serving = champion.name if champion else ""
    if serving != expected:
        raise OtherChampion(f"the release in service changed during this run, from {expected or 'none'} to "
                            f"{serving or 'none'}, which it has to be held against")


def _serve(release: Release, reason: str) -> Move | None:
    """Move `champion` to a release; the caller holds the lock. Raises InputError when files of it are gone."""
    stage = release_stage(release.family)
    if champion_number(release.family) == release.version:
        follow(release.family)
        return None
    require_files(release)
    move = record_move(stage, last_champion(stage), release.version, reason, release.name, release.figures)
    set_alias(stage, "champion", release.version)
    follow(release.family)
    logger.info("release %s is in service: %s", release.name, reason)
    return move


def _draft(run: PipelineRun, champion: Release | None) -> Release:
    made = {stage: run.artifacts[stage] for stage in run.versions}
    return Release(
        run.family, dict(run.versions), {stage: artifact.digest for stage, artifact in made.items()},
        {stage: artifact.key for stage, artifact in made.items()},
        compared_with=champion.name if champion else "", compared_digests=champion.digests if champion else {},
        figures=figures_of(run), dvc_md5=run.dataset_md5, commit=run.commit, environment=records.environment(),
        flow_run_id=run.flow_run_id, command=run.command)


def _draft_of(family: str, numbers: dict[str, str]) -> Release:
    """A release of registered versions, from what their tags tell; it was held against no other."""
    found = {stage: read_version(f"models:/{model_name(stage)}/{number}") for stage, number in numbers.items()}
    last = found[list(found)[-1]].tags
    figures: dict[str, float] = {}
    for stage, version in found.items():
        if directory := directory_of(Workspace.current(), version):
            metrics = key_figures(stage, read_manifest(directory)["metrics"])
            figures |= {f"{stage}/{name}": value for name, value in metrics.items()}
    return Release(
        family, numbers, {stage: version.tags.get("artifact.digest", "") for stage, version in found.items()},
        {stage: version.tags.get("cache.key", "") for stage, version in found.items()},
        figures=figures, dvc_md5=last.get("dvc.md5", ""), commit=last.get("git.commit", ""),
        environment=json.loads(last.get("environment", "{}")), flow_run_id=last.get("prefect.flow_run_id", ""),
        command=last.get("command", ""))


def _family_of(version: Any) -> str:
    stage = version.tags.get("stage", "")
    if "gates.family" in version.tags:
        return str(version.tags["gates.family"])
    making = [family for family in ("", *FAMILIES) if stage in model_stages_of(family)]
    if not making:
        raise InputError(f"{version.name} version {version.version} is not a model of a stage; a release is promoted "
                         "by its name")
    return making[0]


def _verdicts(run: PipelineRun) -> list[dict[str, Any]]:
    path = run.artifacts["promote"].directory(run.workspace) / "gates.json"
    verdicts: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    return verdicts


def _told(verdict: dict[str, Any]) -> str:
    value, bound = verdict.get("value"), verdict.get("bound")
    measured = f"{value:.4f}" if isinstance(value, int | float) else str(value)
    wanted = f"{bound:.4f}" if isinstance(bound, int | float) else str(bound)
    return (f"gate {verdict['gate']}: {verdict.get('figure', '')} is {measured}, wanted "
            f"{verdict.get('comparison', '')} {wanted}")


def _lock(family: str) -> Any:
    return lease(Workspace.current(), "registry", release_stage(family))


def _by_hand(override: str) -> str:
    return f"override: {override.strip()}" if override.strip() else "by hand"
