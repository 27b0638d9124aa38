"""The aliases that follow the release in service: `previous`, and those of the stages' own models.

A crash between two of them leaves some behind; what they should be can be told from the release at any time.
"""

from tasks.catalog import FAMILIES
from tasks.registry.moves import history
from tasks.registry.releases import in_service, model_stages_of, release_stage, releases
from tasks.registry.versions import model_name, registered_model, set_alias
from tasks.tracking import client as tracking


def follow(family: str) -> list[str]:
    """Set `previous` and the stages' aliases to what the release in service says; what was changed, in words."""
    changes = behind(family)
    for stage, alias, _, version in changes:
        if version:
            set_alias(stage, alias, version)
        else:
            tracking.client().delete_registered_model_alias(model_name(stage), alias)
    return [f"{model_name(stage)}@{alias} from {now or 'none'} to {version or 'none'}"
            for stage, alias, now, version in changes]


def behind(family: str) -> list[tuple[str, str, str, str]]:
    """The aliases that do not say what the release in service does: stage, alias, the version that it has and the one
    that it should have, empty for none."""
    release = in_service(family)
    if release is None:
        return []
    moves = history(release_stage(family))
    before = moves[-1].before if moves else ""
    former = next((earlier for earlier in releases(family) if earlier.version == before), None)
    wanted = {(release_stage(family), "previous"): before if former else ""}
    for stage in dict.fromkeys((*model_stages_of(family), *release.versions)):
        version = release.versions.get(stage, "")      # one without chats has no chat model
        if _leading_family(stage) != family:
            continue
        earlier = former.versions.get(stage, "") if former else _alias(stage, "previous")
        if not former and _alias(stage, "champion") not in ("", version):
            earlier = _alias(stage, "champion")      # it served before there were releases
        wanted |= {(stage, "previous"): "" if earlier == version else earlier, (stage, "champion"): version}
    return [(stage, alias, now, version) for (stage, alias), version in wanted.items()
            if (now := _alias(stage, alias)) != version]


def _alias(stage: str, alias: str) -> str:
    model = registered_model(stage)
    return str(model.aliases.get(alias, "")) if model else ""


def champion_number(family: str) -> str:
    return _alias(release_stage(family), "champion")


def _leading_family(stage: str) -> str:
    """Whose release the aliases of a stage follow: that of the first family that makes it and has one in service."""
    making = [family for family in ("", *FAMILIES) if stage in model_stages_of(family)]
    if len(making) == 1:
        return making[0]
    return next((family for family in making if champion_number(family)), making[0])
