"""Making a model again: its commit in a clean worktree, its data, its parameters, and a comparison of every digest."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml
from rich.console import Console

from genai_core.errors import InputError
from tasks.catalog import lasting_stages
from tasks.registry.lineage import Node, lineage
from tasks.store import dvc, records
from tasks.store.artifacts import MANIFEST, read_manifest
from tasks.store.remote import RemoteRefuses
from tasks.store.workspace import REPOSITORY, Workspace
from tasks.tracking import client as tracking

console = Console()


@dataclass(frozen=True)
class Reproduced:
    """One artifact of the chain, then and now."""

    stage: str
    key: str
    before: str
    after: str
    """Digest of what was made now; empty when there is nothing."""

    @property
    def agrees(self) -> bool:
        return self.before == self.after


def reproduce(uri: str, workspace: Workspace, keep: Path | None, pull: bool) -> list[Reproduced]:
    """Make a registered model again, with nothing but what its records name. Raises InputError where they do not do."""
    root = lineage(uri)
    commit = root.commit.removesuffix("-dirty")
    if not commit or commit == "unknown":
        raise InputError(f"{uri}: the commit that made it is not known (it was made outside of git)")
    if root.commit.endswith("-dirty"):
        console.print(f"[yellow]it was made from {commit[:12]} with changes that no commit holds; the digests will "
                      "tell whether they mattered[/]", highlight=False)
    if difference := records.environment_difference({"environment": root.environment}):
        console.print(f"[yellow]it was made with other versions than those here: {difference}; the digests will tell "
                      "whether they matter[/]", highlight=False)
    config = _config(root)
    with _worktree(commit, keep) as directory:
        made_in = Workspace(directory)
        preset = directory / "reproduce.yaml"
        preset.write_text(config, encoding="utf-8")
        _copy_own_files(preset, workspace, made_in)
        if pull:
            _pull(root, workspace, made_in)
        family = yaml.safe_load(config).get("family", "")
        which = ["--family", family] if family else []
        _run(made_in, ["run", *which, "--preset", str(preset), "--until", root.stage])
        return [Reproduced(node.stage, node.key, node.digest, _digest(made_in, node)) for node in root.all_nodes()]


def _config(root: Node) -> str:
    """The whole config of the run that made the model, as that run stored it."""
    import mlflow
    from mlflow.exceptions import MlflowException

    client = tracking.client()
    try:
        stage_run = client.get_run(root.mlflow_run_id)
        parent = stage_run.data.tags.get("mlflow.parentRunId", root.mlflow_run_id)
        return mlflow.artifacts.load_text(f"runs:/{parent}/config.yaml")
    except MlflowException as error:
        raise InputError(f"{root.version}: the config of its run is not in MLflow any more ({error})") from None


@contextmanager
def _worktree(commit: str, keep: Path | None) -> Iterator[Path]:
    directory = keep.resolve() if keep else Path(tempfile.mkdtemp(prefix="genai-reproduce-")) / "worktree"
    done = subprocess.run(["git", "-C", str(REPOSITORY), "worktree", "add", "--detach", str(directory), commit],
                          capture_output=True, text=True, check=False)
    if done.returncode:
        raise InputError(f"git cannot check {commit[:12]} out: {done.stderr.strip().splitlines()[-1]}")
    try:
        yield directory
    finally:
        if not keep:
            subprocess.run(["git", "-C", str(REPOSITORY), "worktree", "remove", "--force", str(directory)],
                           capture_output=True, check=False)
            shutil.rmtree(directory.parent, ignore_errors=True)


def _copy_own_files(preset: Path, workspace: Workspace, made_in: Workspace) -> None:
    """The user's own source files: no commit and no registry holds them."""
    # as it stands: the code of that commit may have had fields that the code here does not know
    sources = yaml.safe_load(preset.read_text(encoding="utf-8"))["collect"]["sources"]
    for source in sources.values():
        for pattern in source["paths"] if source["kind"] == "files" and source.get("enabled", True) else ():
            found = [] if Path(pattern).is_absolute() else list(workspace.root.glob(pattern))
            for file in (file for path in found for file in _files_in(path)):
                target = made_in.root / file.relative_to(workspace.root)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, target)


def _files_in(path: Path) -> list[Path]:
    """The file itself, or those of a folder that a source reads: no hidden ones."""
    if path.is_file():
        return [path]
    return [file for file in path.rglob("*") if file.is_file()
            and not any(part.startswith(".") for part in file.relative_to(path).parts)]


def _pull(root: Node, workspace: Workspace, made_in: Workspace) -> None:
    """The data as `data.dvc` named it then, from the remote that this workspace uses."""
    if not root.dvc_md5:
        return
    try:
        found = dvc.pull_data(made_in, workspace, root.dvc_md5)
    except RemoteRefuses as refusal:
        console.print(str(refusal), style="yellow", highlight=False, markup=False)
        found = False
    console.print(f"pulled: data {root.dvc_md5}" if found else
                  "the remote does not have the data: it is collected again", highlight=False)


def _run(made_in: Workspace, arguments: list[str]) -> None:
    """In the worktree, with its code, services and a remote of its own: nothing can come from elsewhere."""
    environment = {name: value for name, value in os.environ.items()
                   if not name.startswith(("PREFECT_", "MLFLOW_", "GENAI_")) or name == "GENAI_CACHE"}
    environment |= {"GENAI_HOME": str(made_in.root), "PYTHONPATH": str(made_in.root),
                    "GENAI_DVC_REMOTE": str(made_in.hidden / "dvc-remote")}
    done = subprocess.run([sys.executable, "-m", _command_of(made_in), *arguments], cwd=made_in.root, env=environment,
                          stdin=subprocess.DEVNULL, check=False)
    if done.returncode:
        raise InputError("the run in the worktree failed; its messages are above")


def _command_of(made_in: Workspace) -> str:
    """The module of the command at the commit of the worktree; before it had a folder, it was `flows.command`."""
    return "flows.command" if (made_in.root / "flows" / "command.py").is_file() else "flows.cli.command"


def _digest(made_in: Workspace, node: Node) -> str:
    directory = made_in.root / lasting_stages()[node.stage].folder / node.stage
    digests = [read_manifest(path.parent)["digest"] for path in directory.glob(f"*/{MANIFEST}")]
    return node.digest if node.digest in digests else next(iter(digests), "")
