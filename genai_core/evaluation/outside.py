"""What evaluate reads from outside a run: a model that judges, and tasks of lm-evaluation-harness with their data.

It is looked at before a run begins, so that what is missing costs no hour, and its digest is part of the key.
"""

import hashlib
from pathlib import Path
from typing import Any

import yaml

from genai_core.config.release import EvaluateConfig
from genai_core.data.shards.files import file_digest
from genai_core.data.tokens.tokenizer import load_tokenizer
from genai_core.errors import InputError
from genai_core.export.model_directory import load_config
from genai_core.models.opened import kind_of, served

JUDGES = ("language_model", "quantized_language_model")
"""Kinds of models that can be asked which of two answers is better."""
LOADERS = ("json", "csv", "parquet", "text")
"""Loaders of `datasets` that read the files that they are given and nothing else."""


def require_outside(config: EvaluateConfig, root: Path) -> None:
    """Raises InputError for what is named and is not there or cannot be asked."""
    if config.judge.model:
        _require_judge(served(judge_directory(config, root)))
    if config.lm_eval.tasks:
        harness_package()
        folder = tasks_folder(config, root)
        for name in config.lm_eval.tasks:
            read_task(name, folder)


def outside_digests(config: EvaluateConfig, root: Path) -> dict[str, str]:
    """SHA-256 of the files of each that is named. Raises InputError as `require_outside`."""
    require_outside(config, root)
    found = {}
    if config.judge.model:
        directory = served(judge_directory(config, root))
        files = [path for path in directory.iterdir() if path.is_file() and path.name != "README.md"]
        found["judge"] = _digest(directory, files)
    if config.lm_eval.tasks:
        folder = tasks_folder(config, root)
        found["lm_eval"] = _digest(folder, [path for path in folder.rglob("*") if path.is_file()])
    return found


def _digest(folder: Path, files: list[Path]) -> str:
    text = "".join(f"{path.relative_to(folder).as_posix()} {file_digest(path)}\n" for path in sorted(files))
    return hashlib.sha256(text.encode()).hexdigest()


def _require_judge(directory: Path) -> None:
    """Raises InputError unless a directory is that of a language model: all but its weights is looked at."""
    try:
        if (kind := kind_of(directory)) not in JUDGES:
            raise InputError(f"{directory}: a model of kind {kind} compares no answers; name a language model")
        load_config(directory)
        load_tokenizer(directory)
    except InputError as error:
        raise InputError(f"evaluate.judge.model: {error}") from None


def judge_directory(config: EvaluateConfig, root: Path) -> Path:
    """Directory of the model that judges. Raises InputError where there is none."""
    directory = root / Path(config.judge.model).expanduser()
    if not directory.is_dir():
        raise InputError(f"evaluate.judge.model: {config.judge.model}: there is no such model directory; relative "
                         "paths start at the workspace")
    return directory


def tasks_folder(config: EvaluateConfig, root: Path) -> Path:
    """Folder of the tasks. Raises InputError where there is none."""
    folder = root / Path(config.lm_eval.folder).expanduser()
    if not config.lm_eval.folder or not folder.is_dir():
        raise InputError(f"evaluate.lm_eval.folder: {config.lm_eval.folder or 'empty'}: there is no such folder; "
                         "relative paths start at the workspace")
    return folder


def read_task(name: str, folder: Path) -> dict[str, Any]:
    """The task of a YAML file, its data files relative to the folder. Raises InputError for what is none."""
    file = folder / f"{name}.yaml"
    try:
        task = yaml.safe_load(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"evaluate.lm_eval.tasks: there is no {file}") from None
    except (yaml.YAMLError, OSError, UnicodeDecodeError) as error:
        raise InputError(f"evaluate.lm_eval.tasks: {file} cannot be read; a task here has no !function and no include "
                         f"({' '.join(str(error).split())[:200]})") from None
    if not isinstance(task, dict) or task.get("task") != name or "include" in task:
        raise InputError(f"evaluate.lm_eval.tasks: {file} is no task called {name} that stands by itself")
    if task.get("dataset_path") not in LOADERS:
        raise InputError(f"evaluate.lm_eval.tasks: {file} needs a dataset_path that reads files of its folder "
                         f"({', '.join(LOADERS)}), since what is read is part of the key; it has "
                         f"{task.get('dataset_path')!r}")
    kwargs = task.get("dataset_kwargs")
    files = kwargs.get("data_files") if isinstance(kwargs, dict) else None
    if not isinstance(files, dict) or not all(isinstance(path, str) for path in files.values()):
        raise InputError(f"evaluate.lm_eval.tasks: {file} needs dataset_kwargs: {{data_files: {{test: FILE}}}} with "
                         "files of its folder, since what is read is part of the key")
    for path in files.values():
        if not (folder / path).resolve().is_relative_to(folder.resolve()) or not (folder / path).is_file():
            raise InputError(f"evaluate.lm_eval.tasks: {file} names {path}, which is no file of its folder")
    absolute = {split: str(folder / path) for split, path in files.items()}
    return {**task, "dataset_kwargs": {**task["dataset_kwargs"], "data_files": absolute}}


def harness_package() -> Any:
    """lm-evaluation-harness. Raises InputError where it is not installed."""
    try:
        import lm_eval
    except ImportError:
        raise InputError("evaluate.lm_eval: the package lm_eval is not installed: "
                         ".venv/bin/pip install -c constraints.txt -e '.[lm-eval]'") from None
    return lm_eval
