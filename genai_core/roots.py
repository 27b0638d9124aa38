"""Which files of this machine a run may read: those of its workspace, and those below the roots that its owner allows.

Whoever starts a run names files, and may be somebody else than the owner of the machine that reads them: flows are
started through an API. So the roots are a setting of the process that runs the flow, which no parameter reaches. A
person who types a command owns both; the `genai` command therefore allows everything unless the setting says less.
"""

import os
from pathlib import Path

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
    named = [Path(entry) for entry in os.environ.get(SETTING, "").split(os.pathsep) if entry]
    return [root.expanduser().resolve() for root in (workspace, *named)]


def require_allowed(path: Path, field: str, workspace: Path | None = None) -> None:
    """Raise InputError unless `path`, which may hold wildcards, lies below a root wherever its links and `..` lead.

    Nothing is looked for outside the roots, so that the error does not tell what is there.
    """
    parts = path.expanduser().parts
    fixed = next((number for number, part in enumerate(parts) if _WILDCARDS & set(part)), len(parts))
    inside = any(Path(*parts[:fixed]).resolve().is_relative_to(root) for root in allowed_roots(workspace))
    if not inside or ".." in parts[fixed:]:
        raise InputError(f"{field}: {path} is outside what this process may read; {SETTING} in its environment, which "
                         "no parameter of a run can change, names more folders than the workspace")
