"""Which files of this machine a run may read: those of its workspace, and those below the roots that its owner allows.

Whoever starts a run names files, and may be somebody else than the owner of the machine that reads them: flows are
started through an API. So the roots are a setting of the process that runs the flow, which no parameter reaches. A
person who types a command owns both; the `genai` command therefore allows everything unless the setting says less.
"""

import os
from pathlib import Path

from genai_core.config.addresses import SCHEMES, shown
from genai_core.errors import InputError

SETTING = "GENAI_DATA_ROOTS"
_REPOSITORY = Path(__file__).parents[1]
_WILDCARDS = frozenset("*?[")


def allow_everything() -> None:
    """For a command that the owner of this machine types: every root, unless the setting says which."""
    os.environ.setdefault(SETTING, "/")


def allowed_roots(workspace: Path | None = None) -> list[Path]:
    """The workspace and the folders that the setting names, separated as in PATH; symbolic links followed."""
    workspace = workspace or Path(os.environ.get("GENAI_HOME", _REPOSITORY))
    named = [Path(entry) for entry in _entries() if "://" not in entry]
    return [root.expanduser().resolve() for root in (workspace, *named)]


def require_allowed(path: Path, field: str, workspace: Path | None = None) -> None:
    """Raise InputError unless `path`, which may hold wildcards, lies below a root wherever its links and `..` lead.

    Nothing is looked for outside the roots, so that the error does not tell what is there.
    """
    parts = path.expanduser().parts
    fixed = next((number for number, part in enumerate(parts) if _WILDCARDS & set(part)), len(parts))
    try:
        target = Path(*parts[:fixed]).resolve()
    except (OSError, RuntimeError):      # RuntimeError is what Python before 3.13 says of links in a circle
        raise InputError(f"{field}: {path} cannot be followed: its symbolic links lead in a circle") from None
    inside = any(target.is_relative_to(root) for root in allowed_roots(workspace))
    if not inside or ".." in parts[fixed:]:
        raise InputError(f"{field}: {path} is outside what this process may read; {SETTING} in its environment, which "
                         "no parameter of a run can change, names more folders than the workspace")


def require_allowed_address(address: str, field: str) -> None:
    """Raise InputError unless the setting allows everything (`/`) or names a beginning of `address`.

    An address is read with the credentials of the process, so that whoever starts a run must not choose it freely.
    """
    allowed = [entry.rstrip("/") + "/" for entry in _entries() if "://" in entry]
    if "/" not in _entries() and not any(f"{address}/".startswith(entry) for entry in allowed):
        raise InputError(f"{field}: {shown(address)} is outside what this process may read; {SETTING} in its "
                         "environment, which no parameter of a run can change, may name addresses (s3://bucket/folder)")


def cache_directory() -> Path:
    """Where downloads are kept for every workspace of this user: `GENAI_CACHE`, or the user's cache directory."""
    default = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "genai-core"
    return Path(os.environ.get("GENAI_CACHE", default))


def _entries() -> list[str]:
    """Entries of the setting. The colon of an address and of its port separates none."""
    entries: list[str] = []
    for part in os.environ.get(SETTING, "").split(os.pathsep):
        begins = bool(entries) and entries[-1] in (*SCHEMES, "http") and part.startswith("//")
        port = bool(entries) and entries[-1].startswith("http") and "://" in entries[-1] and part[:1].isdigit()
        if begins or port:
            entries[-1] += f":{part}"
        elif part:
            entries.append(part)
    return entries
