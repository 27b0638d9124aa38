"""What evaluate reads from outside a run: a model that judges, and tasks of lm-evaluation-harness with their data.

It is looked at before a run begins, so that what is missing costs no hour, and its digest is part of the key.
"""

import hashlib
from pathlib import Path

from genai_core.config.release import EvaluateConfig
from genai_core.data.shards.files import file_digest
from genai_core.data.tokens.tokenizer import load_tokenizer
from genai_core.errors import InputError
from genai_core.evaluation.harness.tasks import built_task, harness_package, tasks_folder
from genai_core.export.model_directory import load_config
from genai_core.models.opened import kind_of, served

JUDGES = ("language_model", "quantized_language_model")
"""Kinds of models that can be asked which of two answers is better."""


def require_outside(config: EvaluateConfig, root: Path) -> None:
    """Raises InputError for what is named and is not there or cannot be asked."""
    if config.judge.model:
        _require_judge(served(judge_directory(config, root)))
    if config.lm_eval.tasks:
        harness_package()
        folder = tasks_folder(config, root)
        for name in config.lm_eval.tasks:
            built_task(name, folder)


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
