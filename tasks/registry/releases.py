"""What a release is: the versions of all models of one run, under one name.

It is kept as a version of a registered model of its own, `genai-release`, or `genai-release-FAMILY`. The alias
`champion` of that model says which release is in service, and moves in one call. Its facts are tags, given in the call
that makes the version; beside them, `release.json` lies in the run that made it.
"""

import json
import logging
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from functools import cache
from typing import Any

from genai_core.errors import InputError
from tasks.catalog import family_named, stages_of
from tasks.language_model import BASE
from tasks.registry.moves import last_champion, recorded_moves
from tasks.registry.versions import model_name, registered_model
from tasks.stage import Input
from tasks.tracking import client as tracking

logger = logging.getLogger("tasks")

NAME, FACTS = "release", "release.facts"
DESCRIPTION = "Releases: each version names the versions of every stage's model that serve together."
EXISTS = "RESOURCE_ALREADY_EXISTS"


@dataclass(frozen=True)
class Release:
    """One set of versions that serve together, and what is known of it."""

    family: str
    versions: dict[str, str]
    """Stage to the version of its registered model."""
    digests: dict[str, str]
    """Stage to the digest of its artifact."""
    keys: dict[str, str]
    """Stage to the key of its artifact."""
    name: str = ""
    """The day in UTC on which it was made, with a number from the second one of a day on: `2026.11.24-2`."""
    version: str = ""
    """Its number as a version of the registered model of releases."""
    compared_with: str = ""
    """Name of the release that was in service when this one was judged: a language model is held against it, another
    family's release replaces it when its gates pass. Empty for a first one, and for one that was promoted by hand."""
    compared_digests: dict[str, str] = field(default_factory=dict)
    figures: dict[str, float] = field(default_factory=dict)
    """Figures worth comparing, as `stage/figure`."""
    verdicts: list[dict[str, Any]] = field(default_factory=list)
    """The gates as they were judged."""
    gates: str = "passed"
    """`passed`, or by whom and why it is a release although they did not."""
    approved: str = ""
    """Who approved it and why, where a person was asked."""
    made: str = ""
    """When, in UTC."""
    dvc_md5: str = ""
    """The md5 by which `data.dvc` knows the datasets."""
    commit: str = ""
    environment: dict[str, str] = field(default_factory=dict)
    """Versions of Python and of the libraries that made it."""
    flow_run_id: str = ""
    command: str = ""

    @property
    def registered_as(self) -> str:
        return model_name(release_stage(self.family))

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def release_stage(family: str) -> str:
    """What the registered model of releases is called where the others are called by their stage."""
    family_named(family) if family else None      # an unknown one is an error, not an empty list
    return f"release-{family}" if family else "release"


def model_stages_of(family: str) -> tuple[str, ...]:
    """The stages of a family whose models make a release; of a language model, those that it may have."""
    return tuple(stage.name for stage in stages_of(family) if stage.kind == "model")


def needed_stages_of(family: str) -> tuple[Input, ...]:
    """The stages whose models every release has: a language model that was given no chats has fewer than all, and its
    base may come from outside."""
    return model_stages_of(family) if family else (BASE, "quantize")


def in_service(family: str = "") -> Release | None:
    """The release that serves; None before the first one. Raises InputError when the registry has lost it."""
    found, stage = with_alias(family, "champion"), release_stage(family)
    if found is None and (lost := last_champion(stage)):
        raise InputError(f"{model_name(stage)} has no champion any more: version {lost} was in service, and somebody "
                         f"took it or its alias away; {_another(family)}")
    return found


def in_service_at(client: Any, family: str) -> Release | None:
    """The release that serves in another registry, by its client."""
    name = model_name(release_stage(family))
    model = next(iter(client.search_registered_models(f"name='{name}'")), None)
    number = model.aliases.get("champion") if model else None
    return _read(client.get_model_version(name, number)) if number else None


def with_alias(family: str, alias: str) -> Release | None:
    stage = release_stage(family)
    model = registered_model(stage)
    number = model.aliases.get(alias) if model else None
    if not number:
        return None
    found = next((release for release in releases(family) if release.version == str(number)), None)
    if found is None:
        raise InputError(f"{model_name(stage)}@{alias} names version {number}, which the registry does not have any "
                         f"more or cannot read; {_another(family)}")
    return found


def releases(family: str = "") -> list[Release]:
    """All releases, oldest first: by their numbers, since the clocks of two hosts may differ."""
    readable = [release for entry in _entries(family) if FACTS in entry.tags and (release := _read(entry))]
    return sorted(readable, key=lambda release: int(release.version))


def _entries(family: str) -> Iterable[Any]:
    return tracking.client().search_model_versions(f"name='{model_name(release_stage(family))}'")


def _another(family: str) -> str:
    names = ", ".join(release.name for release in releases(family)[-5:])
    by_model = "`genai promote MODEL --override REASON` makes one of a run's models"
    return f"`genai rollback NAME` puts one of {names} in service, {by_model}" if names else by_model


def find(name: str, family: str = "") -> Release:
    """The release of this name. Raises InputError where there is none, or more than one."""
    every = releases(family)
    found = [release for release in every if release.name == name]
    if len(found) == 1:
        return found[0]
    if found:
        numbers = " and ".join(release.version for release in found)
        raise InputError(f"release {name}: the versions {numbers} of {found[0].registered_as} both have this name; "
                         "delete one of them in MLflow")
    there = ", ".join(release.name for release in every[-5:]) or "none yet"
    raise InputError(f"there is no release {name!r}; the newest are: {there}")


def register(draft: Release, run_id: str) -> Release:
    """Give a draft its name and its version of the registered model; one that is there already is not made again.

    `run_id` is the MLflow run in which its `release.json` is kept.
    """
    client, model = tracking.client(), draft.registered_as
    for release in releases(draft.family):
        if release.versions == draft.versions and release.compared_with == draft.compared_with:
            return release      # made by a run that was killed before it was put in service
    _ensure_model(model)
    now = datetime.now(UTC)
    named = replace(draft, name=_free_name(draft.family, now), made=now.isoformat(timespec="seconds"))
    tracking.log_text(run_id, json.dumps(named.to_dict(), indent=1) + "\n", "release/release.json")
    facts = {**named.to_dict(), "name": "", "version": ""}
    tags = {NAME: named.name, FACTS: json.dumps(facts), "dvc.md5": named.dvc_md5, "git.commit": named.commit,
            "gates": named.gates, "compared_with": named.compared_with,
            **{f"version.{stage}": f"models:/{model_name(stage)}/{version}"
               for stage, version in named.versions.items()}}
    created = client.create_model_version(
        model, f"{client.get_run(run_id).info.artifact_uri}/release", run_id, tags=tags,
        description=f"Release {named.name}: " + ", ".join(f"{stage} {version}"
                                                          for stage, version in named.versions.items()))
    return _settled(replace(named, version=str(created.version)))


def _settled(made: Release) -> Release:
    """The release under a name of its own: another host, or the same request sent again, may have taken the name."""
    client = tracking.client()
    same = [release for release in releases(made.family) if release.name == made.name]
    first = same[0] if same else made
    if first.versions == made.versions:
        for doubled in same[1:]:
            if doubled.versions == made.versions:
                client.delete_model_version(made.registered_as, doubled.version)
        return first
    name = _free_name(made.family, datetime.fromisoformat(made.made))
    client.set_model_version_tag(made.registered_as, made.version, NAME, name)
    return replace(made, name=name)


def _ensure_model(model: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        tracking.client().create_registered_model(model, description=DESCRIPTION)
    except MlflowException as error:
        if error.error_code != EXISTS:
            raise


def _free_name(family: str, day: datetime) -> str:
    taken = {entry.tags.get(NAME) for entry in _entries(family)}
    taken |= {move.name for move in recorded_moves(release_stage(family))}      # also of one that was deleted
    name, number = f"{day:%Y.%m.%d}", 1
    while (chosen := name if number == 1 else f"{name}-{number}") in taken:
        number += 1
    return chosen


def _read(entry: Any) -> Release | None:
    """The release of a version; None, and a warning, when somebody changed its facts into what is none."""
    known = {field.name for field in fields(Release)}
    try:
        facts = {name: value for name, value in json.loads(entry.tags[FACTS]).items() if name in known}
        release = Release(**{**facts, "name": entry.tags.get(NAME, ""), "version": str(entry.version)})
        stages = set(release.versions)
        if not stages or not stages == set(release.digests) == set(release.keys):
            raise ValueError("it does not name a version, a digest and a key of the same stages")
        if not isinstance(release.figures, dict) or not isinstance(release.compared_digests, dict):
            raise ValueError("its figures or what it was compared with are no mapping")
    except (ValueError, TypeError, AttributeError) as error:
        _warn_once(f"{entry.name}/{entry.version}: its tag {FACTS} is damaged, so it counts for no release: {error}")
        return None
    return release


@cache
def _warn_once(text: str) -> None:
    logger.warning(text)
