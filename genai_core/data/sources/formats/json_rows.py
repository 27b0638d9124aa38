"""Rows of a .json file, one at a time and in bounded memory: an array, an object with one list of rows, or one object.

The standard library reads a whole file or nothing. Its decoder is given as much text here as the next row needs.
"""

import io
import json
import re
from collections.abc import Iterator
from typing import IO, Any

from genai_core.data.sources.bad_rows import BadRow
from genai_core.errors import InputError

_CHUNK = 2**20
_ROWS = "a .json file holds an array of rows, an object with one list of rows, or one row a line"
_BAD_BYTES = re.compile("[\udc80-\udcff]")


def read_json(stream: IO[bytes], place: str, row_columns: frozenset[str], max_characters: int
              ) -> Iterator[tuple[int, Any]]:
    """The number of each row and the row, or BadRow in its place.

    A list in an object is one of rows unless it goes by one of `row_columns`. Raises InputError where the file is
    broken off or no JSON: what follows cannot be found then.
    """
    text = _Text(stream, place, max_characters)
    number = 0
    while sign := text.peek():
        if sign not in "[{":
            raise InputError(f"{place}: not JSON rows; {_ROWS}")
        for row in text.array() if sign == "[" else _of_object(text, place, row_columns, max_characters):
            number += 1
            yield number, row


def _of_object(text: "_Text", place: str, row_columns: frozenset[str], max_characters: int) -> Iterator[Any]:
    """The rows that an object lists; without such a list it is a row itself."""
    row: dict[str, Any] = {}
    listed = ""
    size = 0
    for key in text.members():
        if text.peek() == "[" and key not in row_columns and text.peek_second() == "{":
            if listed:
                raise InputError(f"{place}: two lists of rows, {listed!r} and {key!r}; keep one, or write two files")
            listed = key
            yield from text.array()
            continue
        before = text.consumed
        row[key] = text.value()
        size += text.consumed - before
        if size > max_characters:
            raise InputError(f"{place}: one object of more than {max_characters // 2**20} Mi characters; {_ROWS}")
    if not listed:
        yield row


class _Text:
    """The text of a file with a place to read on from."""

    def __init__(self, stream: IO[bytes], place: str, max_characters: int):
        self.stream = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape")
        self.place, self.max_characters = place, max_characters
        self.buffer, self.at, self.consumed, self.rows = "", 0, 0, 0
        self.decoder = json.JSONDecoder()

    def peek(self) -> str:
        """The next character that is no space; empty at the end."""
        while True:
            while self.at < len(self.buffer) and self.buffer[self.at] in " \t\r\n":
                self.at += 1
            if self.at < len(self.buffer) or not self._fill(_CHUNK):
                return self.buffer[self.at:self.at + 1]

    def peek_second(self) -> str:
        """The next but one, likewise; the array must begin within a chunk."""
        if len(self.buffer) - self.at < _CHUNK:
            self._fill(_CHUNK)
        return self.buffer[self.at + 1:self.at + _CHUNK].lstrip()[:1]

    def take(self, expected: str) -> str:
        sign = self.peek()
        if not sign:
            raise InputError(f"{self.place}, after row {self.rows}: the file is broken off; is it half a download?")
        if sign not in expected:
            raise self._not_json(f"{sign!r} where {' or '.join(expected)} is expected")
        self.at += 1
        return sign

    def array(self) -> Iterator[Any]:
        for _ in self._entries("[", "]"):
            start = self.consumed + self.at
            row = self.value()
            self.rows += 1
            raw = self.buffer[max(0, start - self.consumed):self.at] if start >= self.consumed else ""
            yield BadRow("not UTF-8 text; convert it, for example with iconv") if _BAD_BYTES.search(raw) else row

    def members(self) -> Iterator[str]:
        """Each key of an object, the value of which is to be read before the next."""
        for _ in self._entries("{", "}"):
            key = self.value()
            self.take(":")
            yield str(key)

    def _entries(self, opening: str, closing: str) -> Iterator[None]:
        """Stop before each entry of a list separated by commas; whoever iterates reads it before the next."""
        self.take(opening)
        if self.peek() == closing:
            self.take(closing)
            return
        while True:
            if not self.peek():
                self.take(closing)      # raises: the file ends here
            yield
            if self.take(f",{closing}") == closing:
                return

    def value(self) -> Any:
        self.peek()
        size = _CHUNK
        while True:
            ended = False
            try:
                value, end = self.decoder.raw_decode(self.buffer, self.at)
                if end - self.at > self.max_characters:
                    raise self._too_long()
                if end < len(self.buffer) or not self._fill(size):      # a number may go on in the next chunk
                    self.at = end
                    return value
                continue
            except json.JSONDecodeError as error:
                open_ended = error.msg.startswith("Unterminated") or error.pos >= len(self.buffer) - 16
                reason = error.msg
                ended = not open_ended
            except RecursionError:
                raise self._not_json("it is nested too deeply") from None
            except ValueError as error:      # a number of thousands of digits
                raise self._not_json(str(error)) from None
            if len(self.buffer) - self.at > self.max_characters:
                raise self._too_long()
            if ended:
                raise self._not_json(reason)
            if not self._fill(size):
                raise self._not_json(f"{reason}; the file may be broken off, as half a download is")
            size *= 2

    def _too_long(self) -> InputError:
        return InputError(f"{self.place}, row {self.rows + 1}: longer than {self.max_characters // 2**20} MiB")

    def _not_json(self, reason: str) -> InputError:
        return InputError(f"{self.place}, row {self.rows + 1}: not JSON ({reason})")

    def _fill(self, size: int) -> bool:
        more = self.stream.read(size)
        self.consumed += self.at
        self.buffer, self.at = self.buffer[self.at:] + more, 0
        return bool(more)
