"""The files that DVC keeps, in its cache and in a remote that is a folder: which lists name them, and which do not.

DVC's own garbage collection knows data.dvc alone; what hosts share by key has lists of its own.
"""

import json
import os
import re
from pathlib import Path

from tasks.store.workspace import Workspace

ROOT = Path("files", "md5")
_MD5 = re.compile(r"\bmd5: *['\"]?([0-9a-f]{32}(?:\.dir)?)")


def cache_folder(workspace: Workspace) -> Path:
    return workspace.root / ".dvc" / "cache"


def remote_folder(workspace: Workspace) -> Path | None:
    """The remote, when it is a folder of this machine."""
    from dvc.config import Config, ConfigError

    url = os.environ.get("GENAI_DVC_REMOTE", "")
    if not url and (workspace.root / ".dvc").is_dir():
        try:
            config = Config(str(workspace.root / ".dvc"))
            url = config["remote"][config["core"]["remote"]]["url"]
        except (ConfigError, KeyError):
            url = str(workspace.hidden / "dvc-remote")
    if not url or "://" in url:
        return None
    folder = Path(url).expanduser().resolve()
    return folder if folder.is_dir() else None


def lists_of(workspace: Workspace, artifacts: set[tuple[str, str]]) -> set[str]:
    """The md5 of the list of files of each of these artifacts, by stage and key, that has one of its own."""
    return set().union(*(_md5_in(workspace.hidden / "published" / stage / f"{key}.json") for stage, key in artifacts))


def versions_of_data(workspace: Workspace) -> set[str]:
    """The md5 of every version of the data that a run here has made."""
    return set().union(*map(_md5_in, (workspace.hidden / "records" / "version_data").glob("*.json")))


def named_by_others(workspace: Workspace) -> set[str]:
    """Every md5 in the .dvc files and the dvc.lock of the workspace, beside data.dvc: data that somebody versioned with
    DVC by hand."""
    files = [path for pattern in ("*.dvc", "dvc.lock") for path in workspace.root.rglob(pattern)
             if path.is_file() and path != workspace.root / "data.dvc"]
    return {md5 for path in files for md5 in _MD5.findall(path.read_text(encoding="utf-8", errors="replace"))}


def unneeded(workspace: Workspace, folder: Path, dropped: set[str], others: set[str], oldest: float) -> list[Path]:
    """The lists that are dropped, what tells of them, and every file older than `oldest` that no other list names;
    none of `others`."""
    dropped = dropped - others
    files = {f"{path.parent.name}{path.name}": path for path in (folder / ROOT).glob("??/*") if path.is_file()}
    named = set(others)
    for md5, path in files.items():
        if path.suffix == ".dir" and md5 not in dropped:
            named |= {entry["md5"] for entry in json.loads(path.read_text(encoding="utf-8"))}
    documents = [*folder.glob("genai/*/*/*.json"), *(workspace.hidden / "published").glob("*/*.json")]
    gone = [path for md5, path in files.items()
            if md5 in dropped or (path.suffix != ".dir" and md5 not in named and path.stat().st_mtime <= oldest)]
    return [path for path in documents if _md5_in(path) & dropped] + gone      # what names them first


def remove(paths: list[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)      # DVC makes them read-only, which their folder is not


def _md5_in(path: Path) -> set[str]:
    try:
        return {json.loads(path.read_text(encoding="utf-8"))["md5"]}
    except (OSError, ValueError, KeyError, TypeError):
        return set()
