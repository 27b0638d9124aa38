"""Preferences in the forms of TRL, LLaMA-Factory and HH-RLHF: a prompt and two answers, or two whole conversations."""

from typing import Any

from genai_core.data.sources.bad_rows import BadRow
from genai_core.data.sources.shapes.messages import Messages, is_messages, read_messages, said, transcript

_PROMPTS = ("prompt", "conversations", "conversation", "messages", "question", "query", "instruction")


def read_preference(row: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The prompt, the preferred answer and the other. Without a prompt it is what both answers begin with."""
    chosen, rejected = _answer_of(row.get("chosen"), "chosen"), _answer_of(row.get("rejected"), "rejected")
    named = next((column for column in _PROMPTS if row.get(column) is not None), None)
    if named is None:
        prompt, chosen, rejected = _parted(chosen, rejected)
        if prompt[-1]["role"] == "system":
            raise BadRow("chosen and rejected answer different prompts: a preference compares two answers to one")
        prompt = read_messages(prompt, system=row.get("system"), tools=row.get("tools"), last="user")
    else:
        asked = row[named]
        detail = row.get("input")
        if named == "instruction" and isinstance(detail, str) and detail.strip():
            asked = f"{asked}\n{detail}"
        prompt = read_prompt(asked, row.get("system"), row.get("tools"))
        chosen, rejected = _without(prompt, chosen), _without(prompt, rejected)
    if chosen == rejected:
        raise BadRow("chosen and rejected are equal, so nothing is preferred")
    for column, answer in (("chosen", chosen), ("rejected", rejected)):
        if answer and answer[0]["role"] != "assistant" and answer[-1]["role"] == "assistant":
            than = "the other answer" if named is None else f"`{named}`"
            raise BadRow(f"`{column}` answers another prompt than {than}: a preference compares two answers to one")
        if not answer or answer[0]["role"] != "assistant" or answer[-1]["role"] != "assistant":
            raise BadRow(f"`{column}` holds no answer of the assistant after the prompt")
    return "preferences", {"prompt": prompt, "chosen": chosen, "rejected": rejected}


def read_prompt(value: Any, system: Any = None, tools: Any = None) -> Messages:
    """A prompt as messages, of which the user's is the last: from messages, a transcript or a text."""
    if isinstance(value, str) and not is_messages(value):
        value = transcript(value) if value.startswith("\n\nHuman:") else said("user", value)
        if value and value[-1] == {"role": "assistant", "content": ""}:      # HH-RLHF ends its prompts so
            value = value[:-1]
    return read_messages(value, system=system, tools=tools, last="user")


def _answer_of(value: Any, column: str) -> Messages:
    if is_messages(value):
        return read_messages([value] if isinstance(value, dict) else value)
    if not isinstance(value, str) or not value.strip():
        raise BadRow(f"no text or messages in column {column!r}")
    if value.lstrip().startswith("Human:") and (turns := transcript(value)):
        return read_messages(turns)
    return said("assistant", value)


def _without(prompt: Messages, answer: Messages) -> Messages:
    """The answer without the prompt, which UltraFeedback and others repeat before it."""
    for begin in (prompt, [message for message in prompt if message["role"] != "system"]):
        if answer[:len(begin)] == begin:
            return answer[len(begin):]
    return answer


def _parted(chosen: Messages, rejected: Messages) -> tuple[Messages, Messages, Messages]:
    """What both begin with, and what follows in each: whole messages, or of two texts whole words."""
    if len(chosen) == len(rejected) == 1:
        return _parted_texts(chosen[0]["content"], rejected[0]["content"])
    if chosen == rejected:
        raise BadRow("chosen and rejected are equal, so nothing is preferred")
    common = 0
    while common < min(len(chosen), len(rejected)) and chosen[common] == rejected[common]:
        common += 1
    if not common:
        raise BadRow("no prompt: there is no column `prompt`, and chosen and rejected begin with different messages")
    return chosen[:common], chosen[common:], rejected[common:]


def _parted_texts(chosen: str, rejected: str) -> tuple[Messages, Messages, Messages]:
    if chosen == rejected:
        raise BadRow("chosen and rejected are equal, so nothing is preferred")
    common = next((place for place, (one, other) in enumerate(zip(chosen, rejected, strict=False)) if one != other),
                  min(len(chosen), len(rejected)))
    while common and not chosen[common - 1].isspace():
        common -= 1
    prompt = chosen[:common].strip()
    if not prompt:
        raise BadRow("no prompt: there is no column `prompt`, and chosen and rejected do not begin with the same words")
    return said("user", prompt), said("assistant", chosen[common:]), said("assistant", rejected[common:])
