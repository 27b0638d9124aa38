"""What people think of answers, as content that `collect` reads: choices and labels as preferences, thumbs as ratings.

A line is appended in one write and synced, so that what was thanked for is there after a crash; only the owner may read
it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError

from genai_core.config.data import Content
from genai_core.data.sources.bad_rows import BadRow
from genai_core.data.sources.shapes.rows import recognise
from genai_core.errors import InputError
from genai_core.labelling.files import append_rows
from genai_core.labelling.labels import PREFERENCES, Candidate, Choice, Label, LabelFiles, Split, assistant_says, now
from genai_core.serving.errors import Refused

Text = Annotated[str, Field(min_length=1, max_length=200_000)]
Name = Annotated[str, Field(max_length=200)]
Labeller = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)]


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid")

    role: Literal["system", "user", "assistant"]
    content: Text


Prompt = Annotated[list[_Message], Field(min_length=1, max_length=200)]


class _Answer(BaseModel):
    model_config = ConfigDict(extra="forbid")

    text: Text
    model: Name


class ChoiceGiven(BaseModel):
    """One answer that is better than others to the same conversation."""

    model_config = ConfigDict(extra="forbid")

    kind: Literal["choice"]
    prompt: Prompt
    chosen: _Answer
    rejected: Annotated[list[_Answer], Field(min_length=1, max_length=8)]


class Thumb(BaseModel):
    """An answer that somebody liked, or did not."""

    model_config = ConfigDict(extra="forbid")

    kind: Literal["thumb"]
    prompt: Prompt
    answer: _Answer
    good: bool


class _Sampled(_Answer):
    seed: int | None = None


class LabelGiven(BaseModel):
    """A labeller's verdict on two answers, in the order in which they were shown."""

    model_config = ConfigDict(extra="forbid")

    kind: Literal["label"]
    prompt: Prompt
    first: _Sampled
    second: _Sampled
    verdict: Choice
    labeller: Labeller
    split: Split | None = None


class Undo(BaseModel):
    """A labeller's newest label on answers of two models is to be taken back."""

    model_config = ConfigDict(extra="forbid")

    kind: Literal["undo"]
    labeller: Labeller
    models: tuple[Name, Name]


FILES: dict[type[BaseModel], tuple[str, Content]] = {
    ChoiceGiven: (PREFERENCES, "preferences"), Thumb: ("ratings.jsonl", "ratings")}


def respond(folder: Path, body: bytes) -> dict[str, Any]:
    """Do what a body says: `kept` is the number of lines that were written, `undone` the label that was taken back.

    A label on a question that its labeller has judged before is not kept, and `reason` says so.

    Raises Refused for what is neither a choice, a thumb, a label nor an undo.
    """
    try:
        given = TypeAdapter(Annotated[ChoiceGiven | Thumb | LabelGiven | Undo, Field(discriminator="kind")]
                            ).validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"][1:])
        raise Refused(400, f"{where or 'the body'}: {first['msg']}", "invalid_value", where or None) from None
    if isinstance(given, Undo):
        with _writing("the labels"):
            undone = LabelFiles(folder).undo(given.labeller, tuple(sorted(given.models)))
        return {"kept": 0, "undone": asdict(undone) if undone else None}
    if given.prompt[-1].role != "user":
        raise Refused(400, "prompt: the last message is the user's", "invalid_value", "prompt")
    if isinstance(given, LabelGiven):
        return _keep_label(folder, given)
    rows = list(_rows(given))
    if not rows:
        raise Refused(400, "the answers are equal, so none is better", "invalid_value", "rejected")
    name, content = FILES[type(given)]
    with _writing(name):
        for row in rows:      # what the next training could not read would stop it
            recognise(row, content).read(row)
        append_rows(folder / name, rows)
    return {"kept": len(rows)}


def judged_by(folder: Path, labeller: str) -> list[dict[str, Any]]:
    """The prompts that a labeller has judged, each with the two models."""
    labeller = labeller.strip()
    with _writing("the labels"):
        labels = LabelFiles(folder).labels(labeller) if labeller else []
    return [{"prompt": label.prompt, "models": sorted((label.first.model, label.second.model))} for label in labels]


def _keep_label(folder: Path, given: LabelGiven) -> dict[str, Any]:
    first, second = (Candidate(answer.text, answer.model, answer.seed) for answer in (given.first, given.second))
    prompt = [message.model_dump() for message in given.prompt]
    with _writing("the labels"):
        label = Label(prompt, first, second, given.verdict, given.labeller, now(), given.split)
        if LabelFiles(folder).add_once(label):
            return {"kept": 1}
    return {"kept": 0, "reason": "judged in another session meanwhile; that label stays"}


def _rows(given: ChoiceGiven | Thumb) -> list[dict[str, Any]]:
    common = {"prompt": [message.model_dump() for message in given.prompt],
              "when": datetime.now(UTC).isoformat(timespec="seconds")}
    if isinstance(given, Thumb):
        return [{**common, "completion": assistant_says(given.answer.text), "label": given.good,
                 "model": given.answer.model}]
    others = {answer.text: answer.model for answer in given.rejected if answer.text != given.chosen.text}
    return [{**common, "chosen": assistant_says(given.chosen.text), "rejected": assistant_says(text),
             "chosen_model": given.chosen.model, "rejected_model": model} for text, model in others.items()]


@contextmanager
def _writing(name: str) -> Iterator[None]:
    """Raises Refused where nothing can be learned from a row, where a file cannot be written, and where it holds
    something else than it should."""
    try:
        yield
    except BadRow as reason:
        raise Refused(400, f"nothing to learn from: {reason}", "invalid_value") from None
    except OSError as error:
        raise Refused(507, f"{name} cannot be written ({error.strerror})", "storage_full") from None
    except InputError as error:
        raise Refused(500, str(error), "damaged") from None
