"""The licence of a base: what its files say, and whether somebody has to accept terms first."""

import re
from pathlib import Path
from typing import Any

import yaml

from genai_core.bases.files import is_terms
from genai_core.bases.places import Place
from genai_core.config.base_model import BaseModelConfig
from genai_core.errors import InputError
from genai_core.models.opened import read_json

FREE = frozenset({
    "0bsd", "afl-3.0", "agpl-3.0", "apache-2.0", "artistic-2.0", "blueoak-1.0.0", "bsd", "bsd-2-clause",
    "bsd-3-clause", "bsd-3-clause-clear", "bsl-1.0", "cc-by-2.0", "cc-by-2.5", "cc-by-3.0", "cc-by-4.0",
    "cc-by-sa-3.0", "cc-by-sa-4.0", "cc0-1.0", "cdla-permissive-1.0", "cdla-permissive-2.0", "cdla-sharing-1.0",
    "ecl-2.0", "epl-1.0", "epl-2.0", "etalab-2.0", "eupl-1.1", "eupl-1.2", "gfdl", "gpl", "gpl-2.0", "gpl-3.0", "isc",
    "lgpl", "lgpl-2.1", "lgpl-3.0", "lppl-1.3c", "mit", "mit-0", "mpl-2.0", "ms-pl", "ncsa", "odbl", "odc-by",
    "ofl-1.1", "openmdw-1.0", "osl-3.0", "pddl", "postgresql", "unlicense", "wtfpl", "zlib"})
"""Licences that ask for no acceptance, as SPDX and the hub call them."""
TERMS = {
    "gemma": "https://ai.google.dev/gemma/terms",
    "llama": "https://www.llama.com/llama-downloads",
    "deepseek": "https://github.com/deepseek-ai/DeepSeek-LLM/blob/main/LICENSE-MODEL",
    "cc-by-nc": "https://creativecommons.org/licenses/by-nc/4.0",
}
"""Where the terms of use of a licence stand, by the beginning of its name."""
PROVENANCE = "base.json"
"""What stands beside a base that was taken in: where it came from, and under which licence."""
UNKNOWN = "not stated"
OTHER = "other"
"""What the hub calls a licence that has no name, or whose terms stand in a file alone."""
_SEVERAL = " and "


def licence_of(config: BaseModelConfig, place: Place) -> str:
    """The name of the licence: as the files of the base say, else as the config says, else `other` where terms stand
    beside the weights. A card beside a file that was named by itself may be of something else, and comes last."""
    card, given = _in_card(place.directory / "README.md"), config.licence
    stated = _in_gguf(place) or (given or card if place.alone else card or _taken_in(place) or given)
    return stated or (OTHER if terms_beside(place) else UNKNOWN)


def require_acceptance(licence: str, config: BaseModelConfig, place: Place) -> None:
    """Raise InputError for a base that comes under terms of use which nobody has accepted."""
    bound = [name for name in licence.split(_SEVERAL) if not _is_free(name)]
    if licence == UNKNOWN or not bound or config.accept_licence.lower() == licence.lower():
        return
    where = [address for name, address in TERMS.items() if any(each.lower().startswith(name) for each in bound)]
    shown = " and ".join([*where[:1], *map(str, terms_beside(place)[:1])]) or "the page that the base comes from"
    raise InputError(f"base.accept_licence: this base comes under the terms {licence!r} ({shown}); read them, and set "
                     f"base.accept_licence: {licence} to accept them")


def _is_free(name: str) -> bool:
    return re.sub(r"-(only|or-later)$", "", name.strip().lower().replace(" ", "-")) in FREE


def terms_beside(place: Place) -> list[Path]:
    """The files of a base that say under which terms it comes."""
    return sorted(path for path in place.directory.iterdir() if path.is_file() and is_terms(path.name))


def _in_card(path: Path) -> str:
    """The licence in the front matter of a model card, several joined; `other` where that is no YAML."""
    if not path.is_file():
        return ""
    text = path.read_text(encoding="utf-8-sig", errors="replace")
    parts = re.split(r"^---\s*$", text, maxsplit=2, flags=re.MULTILINE)
    if len(parts) < 3 or parts[0].strip():
        return ""
    try:
        front = yaml.safe_load(parts[1])
    except yaml.YAMLError:
        return OTHER
    if not isinstance(front, dict):
        return ""
    names = _names(front.get("license"))
    return _SEVERAL.join(_names(front.get("license_name")) or names if names == [OTHER] else names)


def _names(stated: Any) -> list[str]:
    """The names in a field that holds one or a list of them."""
    return [" ".join(str(name).split()) for name in (stated if isinstance(stated, list) else [stated])
            if name not in (None, "")]


def _in_gguf(place: Place) -> str:
    if not place.gguf:
        return ""
    reader = place.reader()
    fields = [reader.get_field(name) for name in ("general.license", "general.license.name")]
    stated, name = (" ".join(str(field.contents()).split()) if field else "" for field in fields)
    return name or stated if stated.lower() in ("", OTHER) else stated


def _taken_in(place: Place) -> str:
    """The licence of what this project has taken in before."""
    path = place.directory / PROVENANCE
    found = str(read_json(path).get("licence") or "") if path.is_file() else ""
    return "" if found == UNKNOWN else found
