"""DVC, behind one module: `data.dvc` follows the datasets, a remote keeps them, and a clone pulls them."""

import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tasks.store.artifacts import Store
from tasks.store.workspace import Workspace

logger = logging.getLogger("tasks")


@contextmanager
def _repository(workspace: Workspace) -> Iterator[Any]:
    """The DVC repository of a workspace; one outside the git repository is made on first use.

    GENAI_DVC_REMOTE names the remote; without it, the configured one is used, or a folder of the workspace.
    """
    os.environ.setdefault("DVC_NO_ANALYTICS", "1")
    from dvc.repo import Repo
    from dvc.ui import ui

    logging.getLogger("dvc").setLevel(logging.ERROR)
    ui.error_console.quiet = True      # it draws a spinner across the live screen of the run
    if not (workspace.root / ".dvc").is_dir():
        Repo.init(str(workspace.root), no_scm=True).close()
    with Repo(str(workspace.root)) as repository:
        if given := os.environ.get("GENAI_DVC_REMOTE"):
            _set_remote(repository, given)
        elif "remote" not in repository.config["core"]:
            _set_remote(repository, str(workspace.hidden / "dvc-remote"))
        yield repository


def _set_remote(repository: Any, url: str) -> None:
    """Make `url` the default remote, in the local config that no commit holds."""
    with repository.config.edit("local") as config:
        config.setdefault("remote", {})["given"] = {"url": url}
        config.setdefault("core", {})["remote"] = "given"
    repository.config.load()


def add_and_push(workspace: Workspace) -> dict[str, Any]:
    """Make `data.dvc` name what is in `data/` now, and push it to the configured remote; md5, bytes and files."""
    store = Store(workspace)
    with store.lock("dvc", "repository"), _repository(workspace) as repository:
        stage = repository.add(str(workspace.data))[0]
        out = stage.outs[0]
        pushed = repository.push()
        return {"md5": out.hash_info.value, "bytes": out.meta.size, "files": out.meta.nfiles, "pushed_files": pushed}


def current_md5(workspace: Workspace) -> str | None:
    """The md5 that `data.dvc` names, or None when there is none."""
    try:
        return md5_of((workspace.root / "data.dvc").read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        return None


def md5_of(text: str) -> str | None:
    """The md5 in the text of a `data.dvc`, or None when it cannot be read."""
    import yaml

    try:
        md5: str = yaml.safe_load(text)["outs"][0]["md5"]
        return md5
    except (yaml.YAMLError, KeyError, IndexError, TypeError):
        return None


def remote_url(workspace: Workspace) -> str:
    """Address of the remote that a workspace uses by default."""
    with _repository(workspace) as repository:
        url: str = repository.config["remote"][repository.config["core"]["remote"]]["url"]
        return url if "://" in url else str(Path(url).expanduser().resolve())


def use_remote(workspace: Workspace, url: str) -> None:
    """Make `url` the default remote of a workspace, in its local config that no commit holds."""
    with _repository(workspace) as repository:
        _set_remote(repository, url)


def fetch(workspace: Workspace, directory: Path, target: Path) -> bool:
    """Copy a dataset that `data.dvc` names out of the cache or the remote to `target`, which is not there yet.

    False when neither has it. Nothing of the workspace is touched, so that nobody sees half of it.
    """
    if not (workspace.root / "data.dvc").is_file():
        return False
    from dvc.exceptions import DvcException
    from dvc_data.index.index import DataIndexError  # the list of files is neither in the cache nor in the remote

    name = directory.relative_to(workspace.root).as_posix()
    try:
        with Store(workspace).lock("dvc", "repository"), _repository(workspace) as repository:
            if not repository.dvcfs.isdir(name):
                return False
            repository.dvcfs.get(name, str(target), recursive=True)
    except (DvcException, DataIndexError, OSError) as error:
        logger.info("%s is not in the DVC remote (%s)", directory.name, (str(error) or "no reason").splitlines()[0])
        return False
    return (target / "manifest.json").is_file()


def pull_all(workspace: Workspace) -> bool:
    """Fetch everything that `data.dvc` names into a workspace that has none of it; False when nobody has it."""
    from dvc.exceptions import DvcException

    try:
        with Store(workspace).lock("dvc", "repository"), _repository(workspace) as repository:
            repository.pull(targets=[str(workspace.data)], force=True)
    except (DvcException, OSError) as error:
        logger.info("the data is not in the DVC remote (%s)", str(error).splitlines()[0])
        return False
    return any(workspace.data.iterdir())


def directories_of(workspace: Workspace, md5: str) -> set[tuple[str, str]] | None:
    """Stage and key of every dataset in a version of the data; None when the list of its files is not in the cache."""
    if not (workspace.root / ".dvc").is_dir():
        return None
    with Store(workspace).lock("dvc", "repository"), _repository(workspace) as repository:
        listing = Path(repository.cache.local.oid_to_path(md5))
    if not listing.is_file():
        return None
    parts = [entry["relpath"].split("/") for entry in json.loads(listing.read_text(encoding="utf-8"))]
    return {(part[0], part[1]) for part in parts if len(part) > 2}      # a file of the user's own lies higher
