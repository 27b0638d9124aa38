"""The tasks of a chat model, declared: what it is fine-tuned on, what it is asked, and how its answers are judged."""

from string import Formatter
from typing import Any, Literal

from pydantic import Field, model_validator

from genai_core.config.base import Config

Content = Literal["documents", "labelled", "pairs", "problems", "chats", "preferences", "ratings"]
Metric = Literal["accuracy", "multiple_choice", "exact_match", "number", "chrf", "bits_per_byte"]

TEMPLATE_FIELDS: dict[str, tuple[str, ...]] = {
    "documents": ("opening", "continuation"), "labelled": ("text", "label"), "pairs": ("source", "target"),
    "problems": ("prompt", "answer"), "chats": (), "preferences": (), "ratings": ()}
"""Names that a template may have in braces: the question's, and after it the answer's. Conversations are taken as they
stand."""
METRICS: dict[str, tuple[Metric, ...]] = {
    "documents": (), "labelled": ("accuracy",), "pairs": ("chrf",), "problems": ("multiple_choice", "exact_match"),
    "chats": ("bits_per_byte", "chrf"), "preferences": ("bits_per_byte",), "ratings": ("bits_per_byte",)}
"""How the answers to each kind of content are judged where a task does not say. Problems with choices are then judged
by `multiple_choice` alone, and those without by `exact_match`."""


class Lesson(Config):
    """How records become chats: what the user asks, what the assistant answers, and how much of it is learned."""

    content: Content
    """Kind of the records. `documents` are continued from their opening; of `preferences` the chosen answer counts, of
    `ratings` the conversations that are rated above the mean of their source and split."""
    sources: tuple[str, ...] = ()
    """Names of `collect.sources`, or parts of one such as `reviews/imdb`; empty for all that have such records."""
    prompt: str = ""
    """What the user says, with {text}, {source}, {prompt} or {opening} for what the record has; empty for that alone.
    Conversations are taken as they stand."""
    answer: str = ""
    """What the assistant says, with {label}, {target}, {answer} or {continuation}; empty for that alone."""
    first_words: int | None = Field(default=None, ge=1)
    """The first words of the record's text to ask about; empty for all."""
    last_words: int | None = Field(default=None, ge=1)
    """The last words of the record's text to ask about; empty for all."""
    min_words: int = Field(default=0, ge=0)
    """Records with fewer words are left out."""
    opening_words: int = Field(default=5, ge=1, le=200)
    """Of documents: words that the opening has."""
    continuation_words: int = Field(default=36, ge=5)
    """Of documents: most words of the continuation, which ends with a sentence."""
    examples: int | None = Field(default=None, ge=0)
    """Chats in one pass of fine-tuning, repeated or sampled to this number; empty for all there are, 0 for none."""
    loss: Literal["token", "root", "example"] = "root"
    """What an answer of n tokens weighs: n by `token`, 1 by `example`, and √n by `root`."""

    @model_validator(mode="after")
    def templates_name_what_there_is(self) -> "Lesson":
        fields = TEMPLATE_FIELDS[self.content]
        for name, allowed in (("prompt", fields[:1]), ("answer", fields[1:])):
            template = getattr(self, name)
            require_fields(name, template, allowed, self.content)
        return self


class Task(Lesson):
    """A lesson, and how it is tested on held-out records."""

    plain_prompt: str = ""
    """The question for a base model, which has seen no chats and answers with what comes next; empty for a plain
    wording."""
    metrics: tuple[Metric, ...] = ()
    """`accuracy` by likelihood of the labels, `multiple_choice` by that of each problem's choices, `exact_match` of
    letters and digits, `number`, of the last number in the answer, `chrf`, or `bits_per_byte` of the answer; empty for
    what suits the content."""
    labels: tuple[str, ...] = ()
    """Labels to choose from; empty for those of the training records."""
    questions: int = Field(default=1000, ge=1)
    """Most held-out records that are asked about."""
    answer_tokens: int = Field(default=32, ge=1)
    """Most tokens of an answer."""

    @model_validator(mode="after")
    def can_be_judged(self) -> "Task":
        require_fields("plain_prompt", self.plain_prompt, TEMPLATE_FIELDS[self.content][:1], self.content)
        if "accuracy" in self.metrics and self.content != "labelled":
            raise ValueError(f"metrics: accuracy is of labelled records, these are {self.content}")
        if "multiple_choice" in self.metrics and self.content != "problems":
            raise ValueError(f"metrics: multiple_choice is of problems with choices, these are {self.content}")
        return self

    @property
    def judged_by(self) -> tuple[Metric, ...]:
        return self.metrics or METRICS[self.content]

    @property
    def lesson(self) -> Lesson:
        """What fine-tuning depends on."""
        return Lesson(**{name: getattr(self, name) for name in Lesson.model_fields})


class Mixture(Config):
    """What a chat model is fine-tuned on."""

    lessons: dict[str, Lesson]
    """Each by the name of its task."""


def require_fields(name: str, template: str, allowed: tuple[str, ...], content: str) -> None:
    """Raises ValueError for a template that names what a record of `content` does not have."""
    if template and not allowed:
        raise ValueError(f"{name}: {content} are taken as they stand, so there is nothing to word")
    try:
        named = [field for _, field, _, _ in Formatter().parse(template) if field is not None]
    except ValueError as error:
        raise ValueError(f"{name}: {template!r} is no template ({error}); a brace of the text itself is written twice"
                         ) from None
    if unknown := [field for field in named if field not in allowed]:
        raise ValueError(f"{name}: {{{unknown[0]}}} is not known of {content}; there is "
                         f"{', '.join(f'{{{field}}}' for field in allowed)}")
    if template and not named:
        raise ValueError(f"{name}: {template!r} does not say {{{allowed[0]}}}, so every record would be worded alike")


def worded(template: str, fields: dict[str, Any], default: str) -> str:
    """A template with its fields filled in; `default` names the one that stands alone where there is no template."""
    return template.format(**fields) if template else str(fields[default])
