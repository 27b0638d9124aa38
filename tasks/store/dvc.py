"""DVC, behind one module: its cache, its lists of files, and `data.dvc`, which names the datasets of a run."""

import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from tasks.store.artifacts import Artifact, Damaged, Store
from tasks.store.remote import Remote, reason, remote_of
from tasks.store.workspace import Workspace

logger = logging.getLogger("tasks")

OWN = "workspace"
"""The name of the remote that is a folder of the workspace."""
GIVEN = "given"
"""The name of the remote that the environment gives, within DVC's configuration in memory."""


@contextmanager
def repository(workspace: Workspace) -> Iterator[Any]:
    """The DVC repository of a workspace; one outside the git repository is made on first use.

    GENAI_DVC_REMOTE names the remote, and is given to DVC in memory alone: it may hold credentials, and ends with the
    process. Without it, the configured one is used; where none is, a folder of the workspace becomes the configured
    one, so that `dvc pull` finds it too.
    """
    os.environ.setdefault("DVC_NO_ANALYTICS", "1")
    from dvc.repo import Repo
    from dvc.ui import ui

    logging.getLogger("dvc").setLevel(logging.ERROR)
    ui.error_console.quiet = True      # it draws a spinner across the live screen of the run
    if not (workspace.root / ".dvc").is_dir():
        with Store.of(workspace).lock("dvc", "repository"):
            if not (workspace.root / ".dvc").is_dir():
                Repo.init(str(workspace.root), no_scm=True).close()
    _forget_written_remote(workspace)
    url = os.environ.get("GENAI_DVC_REMOTE", "")
    with Repo(str(workspace.root)) as opened:
        if not url and "remote" not in opened.config["core"]:
            _configure_own_remote(workspace, opened)
        if url:
            opened.config["remote"][GIVEN] = {"url": url if "://" in url else str(Path(url).expanduser().resolve())}
            opened.config["core"]["remote"] = GIVEN
        yield opened


def _configure_own_remote(workspace: Workspace, opened: Any) -> None:
    """Make a folder of the workspace its default remote; the path is written relative, so that the workspace may move.
    """
    from dvc.config_schema import RelPath

    with Store.of(workspace).lock("dvc", "repository"), opened.config.edit("local") as config:
        config.setdefault("remote", {})[OWN] = {"url": RelPath(workspace.hidden / "dvc-remote")}
        config.setdefault("core", {})["remote"] = OWN
    opened.config.load()


def _forget_written_remote(workspace: Workspace) -> None:
    """Earlier versions wrote the remote of the environment, credentials included, into DVC's local config."""
    local = workspace.root / ".dvc" / "config.local"
    if not local.is_file() or f'remote "{GIVEN}"' not in local.read_text(encoding="utf-8"):
        return
    from dvc.config import Config

    with Config(str(workspace.root / ".dvc")).edit("local") as config:
        config.get("remote", {}).pop(GIVEN, None)
        if config.get("core", {}).get("remote") == GIVEN:
            del config["core"]["remote"]


def has_remote(workspace: Workspace) -> bool:
    """Whether there is a remote that could hold anything: one is given, or the workspace has used DVC before."""
    return bool(os.environ.get("GENAI_DVC_REMOTE")) or (workspace.root / ".dvc").is_dir()


@contextmanager
def remote(workspace: Workspace) -> Iterator[Remote]:
    """The remote of a workspace. Raises RemoteRefuses when there is no using it."""
    with repository(workspace) as opened:
        yield remote_of(workspace, opened)


def remember(workspace: Workspace, opened: Any, artifact: Artifact, known: str = "") -> Any:
    """DVC's list of an artifact's files, with them in its cache; `known` is the md5 of the list where it is known."""
    from dvc_data.hashfile.build import build
    from dvc_data.hashfile.hash_info import HashInfo
    from dvc_data.hashfile.tree import Tree
    from dvc_objects.errors import ObjectFormatError
    from dvc_objects.fs.local import localfs

    cache, directory = opened.cache.local, artifact.directory(workspace)
    tree: Any
    with Store.of(workspace).lock("dvc", "repository"):
        if known:
            try:
                tree = Tree.load(cache, HashInfo("md5", known))
                if len(cache.oids_exist([oid.value for _, _, oid in tree])) == len({oid for _, _, oid in tree}):
                    return tree
            except (FileNotFoundError, ObjectFormatError):
                logger.debug("%s is not in DVC's cache any more", known)
        _, _, tree = build(cache, str(directory), localfs, "md5", dry_run=True)
        tree.digest()
        entries = list(tree)
        cache.add([str(directory.joinpath(*key)) for key, _, _ in entries], localfs,
                  [oid.value for _, _, oid in entries])
        cache.add(tree.path, tree.fs, tree.oid)
        return tree


def send(opened: Any, to: Remote, what: str, md5: str) -> None:
    """Bring a list that is in the cache, and the files that it names, to a remote: the list last."""
    from dvc_data.hashfile.hash_info import HashInfo
    from dvc_data.hashfile.tree import Tree

    cache = opened.cache.local
    files = sorted({oid.value for _, _, oid in Tree.load(cache, HashInfo("md5", md5))})
    for oids in (files, [md5]):
        def transfer(oids: list[str] = oids) -> None:
            # DVC's own look takes a remote that does not answer for one that has nothing, after a while for each file
            missing = [oid for oid in oids if not to.has(to.objects.oid_to_path(oid))]
            to.objects.add([cache.oid_to_path(oid) for oid in missing], cache.fs, missing, check_exists=False)

        try:
            to.ask(f"push {what}", transfer)
        except FileNotFoundError as error:
            raise to.missing(f"push {what}", error) from error


def receive(workspace: Workspace, opened: Any, source: Remote | None, what: str, md5: str, target: Path) -> bool:
    """Copy the files of a list to `target`, which is not there yet, through the cache; False where some are missing.

    Without a remote they must be in the cache.
    """
    from dvc_data.hashfile.hash_info import HashInfo
    from dvc_data.hashfile.tree import Tree
    from dvc_objects.errors import ObjectFormatError

    cache = opened.cache.local

    def bring(oids: list[str]) -> None:
        missing = sorted(set(oids) - set(cache.oids_exist(oids)))
        if missing and source is None:
            raise FileNotFoundError(f"{len(missing)} files are not in DVC's cache")
        if missing and source is not None:
            source.ask(f"fetch {what}", lambda: cache.add([source.objects.oid_to_path(oid) for oid in missing],
                                                          source.fs, missing, verify=True))

    try:
        with Store.of(workspace).lock("dvc", "repository"):
            bring([md5])
            tree = Tree.load(cache, HashInfo("md5", md5))
            bring([oid.value for _, _, oid in tree])
        for parts, _, oid in tree:
            inside = PurePosixPath(*parts)
            if inside.is_absolute() or ".." in inside.parts:
                raise Damaged(f"{inside} leads out of the artifact")
            file = target / inside
            file.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(cache.oid_to_path(oid.value), file)
    except (FileNotFoundError, ObjectFormatError, Damaged) as error:
        logger.info("%s cannot be fetched (%s)", what, reason(error))
        return False
    return True


def forget(workspace: Workspace, opened: Any, md5: str) -> None:
    """Take the files of a list out of the cache: one of them is damaged there."""
    from dvc_data.hashfile.hash_info import HashInfo
    from dvc_data.hashfile.tree import Tree

    cache = opened.cache.local
    with Store.of(workspace).lock("dvc", "repository"):
        for _, _, oid in Tree.load(cache, HashInfo("md5", md5)):
            Path(cache.oid_to_path(oid.value)).unlink(missing_ok=True)


def write_data_dvc(workspace: Workspace, opened: Any, datasets: Mapping[Artifact, str]) -> str:
    """Make `data.dvc` name these datasets, whose lists are in the cache, and nothing else; the md5 of all of them.

    `data/` itself is not touched: what other runs made there stays.
    """
    from dvc_data.hashfile.hash_info import HashInfo
    from dvc_data.hashfile.meta import Meta
    from dvc_data.hashfile.tree import Tree

    cache, whole, size = opened.cache.local, Tree(), 0
    with Store.of(workspace).lock("dvc", "repository"):
        for artifact, md5 in datasets.items():
            folder = PurePosixPath(artifact.path).relative_to("data").parts
            for key, _, oid in Tree.load(cache, HashInfo("md5", md5)):
                whole.add((*folder, *key), None, oid)
                size += artifact.directory(workspace).joinpath(*key).stat().st_size
        whole.digest()
        cache.add(whole.path, whole.fs, whole.oid)
        with opened.lock:
            stage = opened.stage.create(single_stage=True, validate=False, fname=str(workspace.root / "data.dvc"),
                                        wdir=str(workspace.root), outs=[str(workspace.data)], force=True)
            out = stage.outs[0]
            out.hash_info = HashInfo("md5", whole.oid)
            out.meta = Meta(size=size, nfiles=len(whole), isdir=True)
            out.ignore()
            stage.dump()
    return str(whole.oid)


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


def directories_of(workspace: Workspace, md5: str) -> set[tuple[str, str]] | None:
    """Stage and key of every dataset in a version of the data; None when the list of its files is not in the cache."""
    if not (workspace.root / ".dvc").is_dir():
        return None
    with repository(workspace) as opened:
        listing = Path(opened.cache.local.oid_to_path(md5))
    if not listing.is_file():
        return None
    parts = [entry["relpath"].split("/") for entry in json.loads(listing.read_text(encoding="utf-8"))]
    return {(part[0], part[1]) for part in parts if len(part) > 2}      # a file of the user's own lies higher


def pull_data(workspace: Workspace, source: Workspace, md5: str) -> bool:
    """Fetch everything that a version of the data names from the remote or cache of another workspace into one that
    has none of it; False when neither has all of it."""
    with repository(source) as opened:
        return receive(source, opened, remote_of(source, opened), f"data {md5}", md5, workspace.data)
