"""What people said of answers that an application logged in MLflow, as rows of a source.

Each feedback on a trace (`mlflow.log_feedback`) is a row: the request, the response, and a verdict (true and false, up
and down, 1 and 0) or a number. Judgements of language models are left out, being nobody's; so is who gave them, except
where `genai label --import` takes verdicts over as labels, which have a labeller.
"""

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from genai_core.data.sources.shapes.rows import ANSWER, QUESTION, verdict
from genai_core.errors import InputError
from genai_core.labelling.labels import Candidate, Label, assistant_says
from tasks.tracking import client as tracking

logger = logging.getLogger("tasks")

_WORDS = {"up": 1.0, "thumbs_up": 1.0, "thumbs up": 1.0, "👍": 1.0, "yes": 1.0, "good": 1.0, "like": 1.0,
          "down": -1.0, "thumbs_down": -1.0, "thumbs down": -1.0, "👎": -1.0, "no": -1.0, "bad": -1.0, "dislike": -1.0}
_JUDGES = ("LLM_JUDGE", "AI_JUDGE")
_PAGE = 500
_ASKED = (*QUESTION, "input", "inputs", "message", "text", "content")
_SAID = (*ANSWER, "outputs", "message", "text", "content")


def feedback_rows(experiment: str) -> list[dict[str, Any]]:
    """Rows of answers with a verdict, or of rated conversations, the oldest answer first.

    Raises InputError where the experiment is not there, holds no feedback, or both verdicts and other numbers.
    """
    values = [(each.prompt, each.answer, each.value) for each in _given(experiment)]
    verdicts = [_verdict(value) for _, _, value in values]
    if None not in verdicts:
        return [{"prompt": prompt, "completion": answer, "label": sign == 1.0}
                for (prompt, answer, _), sign in zip(values, verdicts, strict=True)]
    if any(isinstance(value, bool | str) for _, _, value in values):
        raise InputError("feedback of two kinds, verdicts (true, up) and numbers; log one of them in an experiment of "
                         "its own")
    return [{"messages": [*_messages(prompt), {"role": "assistant", "content": answer}], "rating": float(value)}
            for prompt, answer, value in values]


def verdicts_as_labels(experiment: str) -> tuple[list[Label], list[dict[str, Any]]]:
    """Choices and rated answers, with who gave each verdict and when.

    An answer that a person liked is preferred to each that the same person disliked after the same prompt. Raises
    InputError where the experiment is not there or holds other feedback than verdicts.
    """
    given = _given(experiment)
    if any(_verdict(each.value) is None for each in given):
        raise InputError("the feedback holds numbers, which are no verdicts; take the experiment as it is, with "
                         "--preferences feedback:/EXPERIMENT of `genai run`")
    rated = [{"prompt": _messages(each.prompt), "when": each.when, "completion": assistant_says(each.answer),
              "label": _verdict(each.value) == 1.0, "model": each.model, "labeller": each.who} for each in given]
    disliked: dict[str, list[_Given]] = {}
    for each in given:
        if _verdict(each.value) != 1.0:
            disliked.setdefault(each.question, []).append(each)
    labels = [Label(_messages(liked.prompt), Candidate(liked.answer, liked.model),
                    Candidate(other.answer, other.model), "first", liked.who, max(liked.when, other.when))
              for liked in given if _verdict(liked.value) == 1.0
              for other in disliked.get(liked.question, []) if other.answer != liked.answer]
    return labels, rated


@dataclass(frozen=True)
class _Given:
    """What a person said of an answer."""

    prompt: Any
    """A text, or messages."""
    answer: str
    value: bool | int | float | str
    who: str
    when: str
    model: str
    """As the application named it in the tag or metadata `model` of the trace; empty where it did not."""

    @property
    def question(self) -> str:
        """The person and the prompt: answers to it that one person judged are compared with each other."""
        return json.dumps([self.who, _messages(self.prompt)], sort_keys=True)


def _given(experiment: str) -> list[_Given]:
    found = tracking.client().get_experiment_by_name(experiment)
    if found is None:
        raise InputError("MLflow has no such experiment")
    given: list[_Given] = []
    unread = 0
    for trace in _traces(found.experiment_id):
        prompt, answer = _text_of(trace.data.request, _ASKED), _text_of(trace.data.response, _SAID)
        values = [(each, value) for each in _by_people(trace) if (value := _value(each)) is not None]
        if not (prompt and answer):
            unread += len(values)
            continue
        model = str({**trace.info.trace_metadata, **trace.info.tags}.get("model", ""))
        for each, value in values:
            when = datetime.fromtimestamp(each.create_time_ms / 1000, UTC).isoformat(timespec="microseconds")
            given.append(_Given(prompt, answer, value, str(each.source.source_id or "default"), when, model))
    if unread:
        logger.warning("feedback:/%s: %d feedbacks left out: no text of a request or a response in their traces",
                       experiment, unread)
    if not given:
        raise InputError("no feedback in the experiment: its traces need assessments of people (mlflow.log_feedback) "
                         "that are true or false, up or down, or numbers")
    return given


def _traces(experiment_id: str) -> list[Any]:
    traces: list[Any] = []
    token = None
    while True:
        page = tracking.client().search_traces(locations=[experiment_id], max_results=_PAGE, page_token=token)
        traces += [trace for trace in page if trace.info.assessments]
        token = page.token
        if not token:
            return sorted(traces, key=lambda trace: (trace.info.request_time, trace.info.trace_id))


def _by_people(trace: Any) -> Iterator[Any]:
    from mlflow.entities import Feedback

    for assessment in sorted(trace.info.assessments, key=lambda one: (one.create_time_ms, one.assessment_id)):
        replaced = assessment.valid is False if isinstance(assessment, Feedback) else True
        if not replaced and assessment.source.source_type not in _JUDGES:
            yield assessment


def _value(feedback: Any) -> bool | int | float | str | None:
    """The value of a feedback; None where it is neither a verdict nor a number, such as a remark."""
    value = feedback.value
    if isinstance(value, str):
        return value if _verdict(value) is not None else None
    return value if isinstance(value, bool | int | float) else None


def _verdict(value: Any) -> float | None:
    if isinstance(value, str) and value.strip().lower() in _WORDS:
        return _WORDS[value.strip().lower()]
    return verdict(value)


def _text_of(logged: Any, names: tuple[str, ...]) -> Any:
    """The text or the messages in what a trace logged of its request or response; None where it is not clear which."""
    try:
        return _text_in(json.loads(logged) if isinstance(logged, str) else logged, names)
    except ValueError:
        return _text_in(logged, names)


def _text_in(value: Any, names: tuple[str, ...]) -> Any:
    """The same of the value that was logged as JSON: texts in it are texts, also where they look like JSON again."""
    if isinstance(value, dict) and isinstance(value.get("choices"), list) and value["choices"]:
        value = value["choices"][0]
    if isinstance(value, dict) and isinstance(value.get("messages"), list):
        value = value["messages"]
    if isinstance(value, list):
        plain = [{"role": entry.get("role"), "content": entry.get("content")} for entry in value
                 if isinstance(entry, dict)]
        return (plain or None) if names is _ASKED else _text_in(plain[-1] if plain else None, names)
    if isinstance(value, dict):
        found = next((value[name] for name in names if value.get(name)), None)
        texts = [text for text in value.values() if isinstance(text, str) and text.strip()]
        return _text_in(found, names) if found else (texts[0] if len(texts) == 1 else None)
    return value if isinstance(value, str) and value.strip() else None


def _messages(prompt: Any) -> list[dict[str, str]]:
    return prompt if isinstance(prompt, list) else [{"role": "user", "content": prompt}]
