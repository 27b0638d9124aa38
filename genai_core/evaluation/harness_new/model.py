"""Tasks of EleutherAI's lm-evaluation-harness in our table: asked of every model of a run, the quantized ones too.

The tasks are YAML files of one folder with their data beside them, so that its digest says what the figures depend on.
The harness words the questions and makes the figures; log-probabilities and answers are our engine's. It is a package
that is imported when a task is named (extra `lm-eval`).
"""

import math
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from genai_core.config.release import EvaluateConfig
from genai_core.data.chat import (
    END_OF_TEXT,
    adopted_format,
    cleaned,
    document_start,
    end_ids,
    end_of,
    render_prompt,
    token_id,
)
from genai_core.data.tokens.batches import pad
from genai_core.errors import InputError
from genai_core.evaluation.language_model import Evaluated
from genai_core.evaluation.outside import harness_package, read_task, tasks_folder
from genai_core.evaluation.tasks import SLOTS, Sample, Subject, alike
from genai_core.inference.generate import generate
from genai_core.inference.likelihood import BATCH
from genai_core.inference.precision import inference_precision

PREFIX = "lm_eval"
Scored = list[tuple[float, bool]]
"""Of each continuation its log-probability, and whether each of its tokens is the likeliest."""


def add_harness_figures(result: Evaluated, config: EvaluateConfig, subject: Subject, root: Path) -> None:
    """Put the figures of the named tasks into a model's column, as `lm_eval/TASK/METRIC`. Raises InputError where the
    package is missing or a task cannot be read."""
    lm_eval = harness_package()
    asked = [read_task(name, tasks_folder(config, root)) for name in config.lm_eval.tasks]
    found = lm_eval.simple_evaluate(_model(subject), tasks=asked, limit=config.lm_eval.limit, bootstrap_iters=0,
                                    log_samples=True, apply_chat_template=subject.chats, random_seed=config.seed,
                                    numpy_random_seed=config.seed, torch_random_seed=config.seed,
                                    fewshot_random_seed=config.seed)
    for task, figures in found["results"].items():
        documents = sorted(found["samples"][task], key=lambda document: document["doc_id"])
        samples: list[Sample] = [{"task": f"{PREFIX}/{task}", "asked": str(document["arguments"][0][0]),
                                  "expected": str(document["target"]), "answered": _said(document)}
                                 for document in documents]
        for name, value in figures.items():
            metric, _, kind = name.partition(",")
            if not kind or "stderr" in metric or not isinstance(value, float):
                continue
            figure = f"{PREFIX}/{task}/{metric}" + (f"/{kind}" if kind != "none" else "")
            values = [document.get(metric) for document in documents]
            if metric == "bits_per_byte":      # log-likelihood and bytes of each document
                outcomes = [[-each[0] / math.log(2) for each in values], [float(each[1]) for each in values]]
                result.add_outcomes(figure, value, outcomes, samples)
            elif all(isinstance(each, int | float) for each in values):
                result.add_outcomes(figure, value, alike([float(each) for each in values]), samples)
            else:
                result.figures[figure] = value


def _model(subject: Subject) -> Any:
    """Our model as the harness asks it."""
    from lm_eval.api.model import TemplateLM
    from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

    class Harnessed(TemplateLM):
        tokenizer_name = "genai"
        max_length = subject.model.context_length
        eot_token_id = token_id(subject.tokenizer, END_OF_TEXT)
        prefix_token_id = (document_start(subject.tokenizer) or [eot_token_id])[0]

        def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
            return _encoded(subject, string, add_special_tokens is not False)

        def chat_template(self, chat_template: bool | str = False) -> str:
            return ""

        def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
            adopted, messages = adopted_format(subject.tokenizer), cleaned(subject.tokenizer, chat_history)
            return str(adopted.render(messages, generate=True)) if adopted else render_prompt(messages)

        def _loglikelihood_tokens(self, requests: list[tuple[Any, list[int], list[int]]], **_: Any) -> Scored:
            return scored(subject, [(context, continuation) for _, context, continuation in requests])

        def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = False) -> list[float]:
            found = []
            for request in requests:
                ids = self.tok_encode(request.args[0], add_special_tokens=False)
                windows = get_rolling_token_windows(ids, self.prefix_token_id, self.max_length, 1)
                found.append(sum(value for value, _ in scored(subject, list(map(make_disjoint_window, windows)))))
            return found

        def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
            return [_answer(subject, *request.args) for request in requests]

    return Harnessed()


@torch.no_grad()
def scored(subject: Subject, pairs: list[tuple[list[int], list[int]]]) -> Scored:
    """How likely continuations are after their contexts, of which as much is read as fits."""
    device = next(subject.model.parameters()).device
    length, first = subject.model.context_length, document_start(subject.tokenizer)
    rows = [end_of(context + continuation, length, first) for context, continuation in pairs]
    order = sorted(range(len(rows)), key=lambda place: len(rows[place]))
    found: dict[int, tuple[float, bool]] = {}
    for start in range(0, len(order), BATCH):
        chosen = order[start:start + BATCH]
        ids, _ = (tensor.to(device) for tensor in pad([rows[place] for place in chosen], 0, "right"))
        with inference_precision(subject.model):
            hidden = subject.model.hidden(ids)
            for number, place in enumerate(chosen):
                end = len(rows[place]) - 1
                begin = max(0, end - len(pairs[place][1]))
                log_probs = F.log_softmax(subject.model.logits(hidden[number, begin:end]).float(), dim=-1)
                targets = ids[number, begin + 1:end + 1]
                value = log_probs.gather(-1, targets[:, None]).double().sum().item()
                found[place] = value, bool((log_probs.argmax(-1) == targets).all())
    return [found[place] for place in range(len(pairs))]


def _answer(subject: Subject, context: str, options: dict[str, Any]) -> str:
    """The likeliest continuation of a context, up to the first of the words at which it is to stop."""
    if options.get("do_sample"):
        raise InputError("evaluate.lm_eval: a task that samples its answers (do_sample) is not asked here")
    tokens = min(int(options.get("max_gen_toks", 128)), subject.model.context_length // 2)
    room = subject.model.context_length - tokens
    ids = end_of(_encoded(subject, context), room, document_start(subject.tokenizer))
    with inference_precision(subject.model):
        made = generate(subject.model, [ids], tokens, end_ids(subject.tokenizer), slots=SLOTS,
                        pad_id=token_id(subject.tokenizer, END_OF_TEXT))
    text = subject.tokenizer.decode(made.unpadded()[0])
    stops = options.get("until") or []
    for stop in [stops] if isinstance(stops, str) else stops:
        text = text.split(stop)[0] if stop else text
    return text


def _encoded(subject: Subject, text: str, whole: bool = True) -> list[int]:
    """Token ids of a text, a `whole` one from the start of a document on; of a chat the template writes that."""
    ids = list(subject.tokenizer.encode(text, add_special_tokens=False).ids)
    start = document_start(subject.tokenizer) if whole and not subject.chats else []
    return ids if ids[:len(start)] == start else start + ids


def _said(document: dict[str, Any]) -> str:
    """The answer in words; nothing where the model was only asked how likely texts are."""
    given = document.get("filtered_resps") or [""]
    return given[0] if isinstance(given[0], str) else ""
