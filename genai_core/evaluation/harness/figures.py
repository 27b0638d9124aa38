"""The figures of the harness in a model's column, each with the answers that it is of."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from genai_core.config.release import EvaluateConfig
from genai_core.evaluation.harness.model import harness_model
from genai_core.evaluation.harness.tasks import built_task, harness_package, tasks_folder
from genai_core.evaluation.language_model import Evaluated
from genai_core.evaluation.samples import Sample, question_ids
from genai_core.evaluation.tasks import Subject, alike

PREFIX = "lm_eval"
UNFILTERED = "none"
"""What the harness calls the filter of a task that has none of its own."""
SIZES: dict[str, Callable[[str], int]] = {"acc_norm": len, "acc_bytes": lambda choice: len(choice.encode())}
"""What a metric divides the log-probability of a choice by."""
MUTUAL = "acc_mutual_info"
"""The metric that takes off the log-probability of a choice without its question, asked after all of the others."""
Document = dict[str, Any]
"""What the harness logs of a document and one of the filters that its answers go through."""


def add_harness_figures(result: Evaluated, config: EvaluateConfig, subject: Subject, root: Path) -> None:
    """Put the figures of the named tasks into a model's column, as `lm_eval/TASK/METRIC`, and `/FILTER` where the task
    names filters. Raises InputError where the package is missing or a task cannot be asked."""
    lm_eval = harness_package()
    folder = tasks_folder(config, root)
    tasks = {name: built_task(name, folder) for name in config.lm_eval.tasks}
    manager = lm_eval.tasks.TaskManager(include_defaults=False)      # thousands of files, of which none is asked
    found = lm_eval.simple_evaluate(harness_model(subject), tasks=list(tasks.values()), task_manager=manager,
                                    limit=config.lm_eval.limit, bootstrap_iters=0, log_samples=True,
                                    apply_chat_template=subject.chats, random_seed=config.seed,
                                    numpy_random_seed=config.seed, torch_random_seed=config.seed,
                                    fewshot_random_seed=config.seed)
    for name, figures in found["results"].items():
        for column, value in figures.items():
            metric, _, kind = column.partition(",")
            if not kind or "stderr" in metric or not isinstance(value, float):
                continue
            documents = sorted((document for document in found["samples"][name] if document["filter"] == kind),
                               key=lambda document: document["doc_id"])
            _add(result, tasks[name], metric, kind, value, documents)


def _add(result: Evaluated, task: Any, metric: str, kind: str, value: float, documents: list[Document]) -> None:
    """A figure of a task, of the documents of its filter; where its answers are other ones, they are a list by
    themselves."""
    name = f"{PREFIX}/{task.config.task}"
    figure = f"{name}/{metric}" + (f"/{kind}" if kind != UNFILTERED else "")
    if metric == "bits_per_byte":      # log-likelihood and bytes of each document
        documents = [document for document in documents if document[metric][1]]
    values: list[Any] = [document.get(metric) for document in documents]
    if metric == "bits_per_byte":
        outcomes = [[-each[0] / math.log(2) for each in values], [float(each[1]) for each in values]]
    elif all(isinstance(each, int | float) for each in values) and math.isclose(float(np.mean(values)), value):
        outcomes = alike([float(each) for each in values])
    else:      # it is no mean over documents, as a perplexity is none
        result.figures[figure] = value
        return
    others = [kind] if kind != UNFILTERED else [metric] if metric in (*SIZES, MUTUAL) else []
    listed = ", ".join([name, *others])
    ids = question_ids([listed] * len(documents), [document["doc_hash"] for document in documents])
    samples: list[Sample] = [{"task": listed, "question": question, "asked": str(document["arguments"][0][0]),
                              "expected": _expected(task, document), "answered": _answered(task, document, metric)}
                             for question, document in zip(ids, documents, strict=True)]
    result.add_outcomes(figure, value, outcomes, samples)


def _answered(task: Any, document: Document, metric: str) -> str:
    """The answer in words, as the filter left it; of a question with choices the one that the metric takes for the
    likeliest; of a single continuation that one where each of its tokens is the likeliest, else nothing."""
    replies = document["filtered_resps"]
    if task.OUTPUT_TYPE == "multiple_choice":
        choices = task.doc_to_choice(document["doc"])
        log_probs = np.array([value for value, _ in replies], dtype=float)
        scores = log_probs[:len(choices)]
        if metric == MUTUAL:
            scores = scores - log_probs[len(choices):]
        elif metric in SIZES:
            scores = scores / [SIZES[metric](choice) for choice in choices]
        return str(choices[int(scores.argmax())])
    reply = replies[0]
    if task.OUTPUT_TYPE == "loglikelihood":
        return str(document["target"]) if reply[1] else ""
    while isinstance(reply, list):      # a filter may leave every answer to the question
        reply = reply[0] if reply else ""
    return reply if isinstance(reply, str) else ""


def _expected(task: Any, document: Document) -> str:
    """What counts as right, in words where the task has the number of a choice."""
    choices = task.doc_to_choice(document["doc"]) if task.config.doc_to_choice is not None else []
    target = task.doc_to_text(document["doc"]) if task.multiple_input else document["target"]
    targets = target if isinstance(target, list) else [target]
    return " / ".join(str(choices[each] if isinstance(each, int) and 0 <= each < len(choices) else each)
                      for each in targets)
