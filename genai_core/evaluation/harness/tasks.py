"""The tasks that are named: read, built by lm-evaluation-harness, and tried on one document.

They are tried before a run begins, since they are asked at its end, hours later.
"""

from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from genai_core.config.release import EvaluateConfig
from genai_core.errors import InputError

LOADERS = ("json", "csv", "parquet", "text")
"""Loaders of `datasets` that read the files that they are given and nothing else."""
REPLIES = {"generate_until": "", "loglikelihood_rolling": -1.0}
"""What a model could reply, by the kind of request, to try what is made of it; to any other (-1.0, False)."""


def tasks_folder(config: EvaluateConfig, root: Path) -> Path:
    """Folder of the tasks. Raises InputError where there is none."""
    folder = root / Path(config.lm_eval.folder).expanduser()
    if not config.lm_eval.folder or not folder.is_dir():
        raise InputError(f"evaluate.lm_eval.folder: {config.lm_eval.folder or 'empty'}: there is no such folder; "
                         "relative paths start at the workspace")
    return folder


def built_task(name: str, folder: Path) -> Any:
    """The task of a YAML file, as lm-evaluation-harness asks it, after one document of it was tried.

    Raises InputError for what `read_task` refuses, for what is not asked here, and for whatever the harness raises.
    """
    from lm_eval.tasks import TaskManager

    said = f"evaluate.lm_eval.tasks: {folder / name}.yaml"
    settings = read_task(name, folder)
    _require_own_metrics(said, settings)
    try:
        (task,) = TaskManager(include_defaults=False).load([settings])["tasks"].values()
        _try(task)
    except Exception as error:      # of any kind: what a wrong template or column raises is for no one to foresee
        reason = error.__cause__ or error
        raise InputError(f"{said} cannot be asked: {type(reason).__name__}: {_line(reason)}") from None
    if getattr(task, "MULTIMODAL", False) or getattr(task, "UNSAFE_CODE", False):
        raise InputError(f"{said}: a task with pictures or sound, or that runs code, is not asked here")
    return task


def _try(task: Any) -> None:
    """Word the first document, and make its figures of replies as a model could give them."""
    task.set_fewshot_seed(0)
    number, document = next(iter(task.doc_iterator(limit=1)))
    context = task.fewshot_context(document, task.config.num_fewshot or 0, gen_prefix=task.doc_to_prefix(document))
    made = task.construct_requests(doc=document, ctx=context, metadata=(task.config.task, number, 1))
    task._instances = made if isinstance(made, list) else [made]
    for request in task.instances:
        if request.request_type == "generate_until":
            answer_limits(request.args[1])
        request.resps = [REPLIES.get(request.request_type, (-1.0, False))]
    task.apply_filters()
    for name in task.instances[0].filtered_resps:
        figures = task.process_results(document, [request.filtered_resps[name] for request in task.instances])
        for metric in set(figures) & set(task.aggregation()):
            with suppress(ZeroDivisionError):      # this document may be empty, all together are not
                task.aggregation()[metric]([figures[metric]])


def answer_limits(options: dict[str, Any]) -> tuple[int, tuple[str, ...]]:
    """Most tokens of an answer, and the texts that end it, of the `generation_kwargs` of a task. Raises ValueError for
    what they cannot be, and where an answer is to be sampled."""
    tokens, until = int(options.get("max_gen_toks", 128)), options.get("until") or []
    stops = [until] if isinstance(until, str) else until
    if tokens < 1 or not all(isinstance(stop, str) for stop in stops):
        raise ValueError("max_gen_toks has to be a number from 1 on, until a list of texts")
    if options.get("do_sample"):
        raise ValueError("a task that samples its answers (do_sample) is not asked here")
    return tokens, tuple(stop for stop in stops if stop)


def _require_own_metrics(said: str, settings: dict[str, Any]) -> None:
    """Raises InputError for a metric that the harness does not have: it would look for code on the hub."""
    import lm_eval.api.metrics  # noqa: F401      registers them
    from lm_eval.api.registry import metric_registry

    metrics = settings.get("metric_list") or []
    if not isinstance(metrics, list) or not all(isinstance(each, dict) for each in metrics):
        raise InputError(f"{said}: metric_list has to be a list of {{metric: NAME}}")
    for each in metrics:
        if each.get("metric") not in list(metric_registry) or each.get("hf_evaluate"):
            raise InputError(f"{said}: metric_list: {each.get('metric')!r} is no metric that lm-evaluation-harness has "
                             "itself")


def read_task(name: str, folder: Path) -> dict[str, Any]:
    """The settings of a task, its data files relative to the folder. Raises InputError for what is none, and for a file
    outside of the folder, whose digest would not tell that it changed."""
    file = folder / f"{name}.yaml"
    if not file.resolve().is_relative_to(folder.resolve()):
        raise InputError(f"evaluate.lm_eval.tasks: {name} is no file of {folder}, and what is read is part of the key")
    try:
        task = yaml.safe_load(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"evaluate.lm_eval.tasks: there is no {file}") from None
    except (yaml.YAMLError, OSError, UnicodeDecodeError) as error:
        raise InputError(f"evaluate.lm_eval.tasks: {file} cannot be read; a task here has no !function and no include "
                         f"({_line(error)})") from None
    if not isinstance(task, dict) or task.get("task") != name or {"include", "use_prompt"} & set(task):
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


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
