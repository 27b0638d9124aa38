"""Conversations in the ways that people store them, as the system, the user and the assistant of our tables.

Tools have no role of their own here. What they can do goes into the system message after the line `Tools:`; a call is
what the assistant says, as its JSON; what a tool answers is said by the user. Consecutive turns that this makes of one
speaker are joined.
"""

import json
import re
from typing import Any

from genai_core.data.sources.bad_rows import BadRow

Messages = list[dict[str, str]]

_ROLES = {"system": "system", "developer": "system",
          "user": "user", "human": "user", "prompter": "user",
          "assistant": "assistant", "gpt": "assistant", "chatgpt": "assistant", "bot": "assistant",
          "model": "assistant"}
_TOOL_ROLES = {"function_call": "assistant", "tool_call": "assistant", "observation": "user", "tool": "user",
               "function": "user", "function_response": "user", "tool_response": "user"}
_TRANSCRIPT = re.compile(r"\n\n(Human|Assistant): ?")


def read_messages(value: Any, *, system: Any = None, tools: Any = None, last: str | None = "assistant") -> Messages:
    """The messages of OpenAI's and TRL's form (role, content) and of ShareGPT's (from, value).

    `last` is the role that must speak last, None for any. Raises BadRow for other roles, messages without a text, and
    a system message in the middle.
    """
    value = _parsed(value)
    if isinstance(value, dict) and all(isinstance(column, list) for column in value.values()):
        value = [dict(zip(value, row, strict=False)) for row in zip(*value.values(), strict=False)]
    if not isinstance(value, list) or not value:
        raise BadRow("no list of messages; chats need [{'role': 'user', 'content': ...}, ...] or "
                     "[{'from': 'human', 'value': ...}, ...]")
    messages: Messages = []
    joins = False
    for entry in value:
        named = _role_of(entry)
        message = {"role": (_ROLES | _TOOL_ROLES)[named], "content": _content_of(entry)}
        is_tool = named in _TOOL_ROLES or bool(entry.get("tool_calls"))
        if messages and messages[-1]["role"] == message["role"] and (is_tool or joins):
            messages[-1] = {"role": message["role"], "content": f"{messages[-1]['content']}\n{message['content']}"}
        elif message["role"] == "system" and not message["content"].strip():
            continue
        else:
            messages.append(message)
        joins = is_tool
    messages = _with_system(messages, system, tools)
    if any(message["role"] == "system" for message in messages[1:]):
        raise BadRow("a system message that is not the first")
    if any(not message["content"].strip() for message in messages):
        raise BadRow("a message without a text")
    if last and (not messages or messages[-1]["role"] != last):
        because = ", so there is nothing to learn" if last == "assistant" else ""
        raise BadRow(f"the last message is not the {last}'s{because}")
    return messages


def said(role: str, text: Any) -> Messages:
    """One message."""
    return read_messages([{"role": role, "content": text}], last=None)


def transcript(text: str) -> Messages | None:
    """The messages of a text in which `Human:` and `Assistant:` take turns, as in HH-RLHF; None if it is no such text.
    """
    start, *turns = _TRANSCRIPT.split(text if text.startswith("\n\n") else f"\n\n{text}")
    if start.strip() or len(turns) < 2:
        return None
    roles = {"Human": "user", "Assistant": "assistant"}
    return [{"role": roles[speaker], "content": words.strip()}
            for speaker, words in zip(turns[::2], turns[1::2], strict=True)]


def is_shared_gpt(value: Any) -> bool:
    value = _parsed(value)
    first = value[0] if isinstance(value, list) and value else value
    return isinstance(first, dict) and "from" in first


def is_messages(value: Any) -> bool:
    """Whether this is a list of messages, or its JSON, or one message: and not a text."""
    value = _parsed(value)
    first = value[0] if isinstance(value, list) and value else value
    return isinstance(first, dict) and ("role" in first or "from" in first)


def _parsed(value: Any) -> Any:
    """A cell of a table may hold messages as JSON."""
    if isinstance(value, str) and value.lstrip().startswith(("[", "{")):
        try:
            return json.loads(value)
        except (json.JSONDecodeError, RecursionError):
            return value
    return value


def _role_of(entry: Any) -> str:
    role = entry.get("role", entry.get("from")) if isinstance(entry, dict) else None
    if not isinstance(role, str) or role.lower() not in _ROLES | _TOOL_ROLES:
        shown = f", not {role!r:.40}" if role is not None else ""
        raise BadRow(f"a message needs a role (system, user, assistant; human, gpt; function_call, observation, tool)"
                     f"{shown}, and a text as content")
    return role.lower()


def _content_of(entry: dict[str, Any]) -> str:
    content = entry.get("content", entry.get("value"))
    calls = entry.get("tool_calls")
    if isinstance(content, list):      # parts, as OpenAI has them
        parts = [part.get("text", part.get("value")) if isinstance(part, dict) and part.get("type") == "text" else None
                 for part in content]
        if any(not isinstance(part, str) for part in parts):
            raise BadRow("a message with parts that are no text (an image, a sound), which nothing here learns")
        content = "".join(map(str, parts))
    if isinstance(content, dict):      # a call as an object
        content = _json(content)
    if isinstance(calls, list) and calls:
        call = _json([called.get("function", called) if isinstance(called, dict) else called for called in calls])
        return f"{content}\n{call}" if content else call
    if not isinstance(content, str):
        raise BadRow("a message without a text as content")
    return content


def _with_system(messages: Messages, system: Any, tools: Any) -> Messages:
    own = messages[0]["content"] if messages and messages[0]["role"] == "system" else ""
    parts = [part for part in (own, system if isinstance(system, str) and not own else "") if part.strip()]
    listed = tools if isinstance(tools, str) or not tools else _json(tools)
    if listed and listed.strip() not in ("[]", "{}", "null", ""):
        parts.append(f"Tools:\n{listed}")
    rest = messages[1:] if own else messages
    return [{"role": "system", "content": "\n\n".join(parts)}, *rest] if parts else rest


def _json(value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, default=str)
    except (RecursionError, ValueError, TypeError):
        raise BadRow("a tool or its call that is nested too deeply") from None
