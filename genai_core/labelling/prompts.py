"""The prompts of a file: one a line of a text, or rows in the shapes in which people keep conversations."""

import io
from pathlib import Path

from genai_core.data.chat import Chat
from genai_core.data.sources.bad_rows import BadRow
from genai_core.data.sources.formats.files import read_rows
from genai_core.data.sources.shapes.preferences import read_prompt
from genai_core.data.sources.shapes.rows import CONVERSATION, QUESTION, ROW_KEYS, first, repaired
from genai_core.errors import InputError


def prompts_in(file: Path) -> list[Chat]:
    """The prompts of a file, each once. What an assistant answered last in a conversation is left out.

    Raises InputError, with the place, for a row without a prompt, and for a file that holds none.
    """
    if not file.is_file():
        raise InputError(f"--prompts {file}: there is no such file")
    found: list[Chat] = []
    if file.suffix.lower() in (".txt", ".md", ""):
        found = [[{"role": "user", "content": line.strip()}] for line in _lines(file) if line.strip()]
    else:
        for place, row in read_rows(file, ROW_KEYS):
            try:
                if isinstance(row, BadRow):
                    raise row
                found.append(_prompt_of(row))
            except BadRow as reason:
                raise InputError(f"--prompts {file}, {place}: {reason}") from None
    if not found:
        raise InputError(f"--prompts {file}: no prompt in it; write one a line, or rows with a column prompt")
    return list({repr(prompt): prompt for prompt in found}.values())


def _lines(file: Path) -> list[str]:
    """The lines of a text, a byte order mark left out. A line ends with a line feed or a carriage return, and not with
    what else Unicode breaks lines at, such as U+2028, which stands within a prompt."""
    try:
        content = file.read_bytes()
        return io.StringIO(content.decode("utf-8-sig"), newline=None).read().split("\n")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InputError(f"--prompts {file}, line {line}: not UTF-8 (byte 0x{content[error.start]:02x}); save the file "
                         "as UTF-8") from None
    except OSError as error:
        raise InputError(f"--prompts {file}: cannot be read ({error.strerror})") from None


def _prompt_of(row: object) -> Chat:
    given = first(row, (*QUESTION, "instruction", *CONVERSATION)) if isinstance(row, dict) else row
    if given is None:
        raise BadRow("no prompt: a column prompt, question, instruction or messages is needed")
    if isinstance(given, list) and len(given) > 1 and isinstance(given[-1], dict) \
            and given[-1].get("role", given[-1].get("from")) in ("assistant", "gpt", "bot", "model"):
        given = given[:-1]
    # half a surrogate pair could neither be shown nor kept; `collect` replaces it too
    return repaired(read_prompt(given, row.get("system") if isinstance(row, dict) else None))
