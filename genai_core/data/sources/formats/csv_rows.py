"""Rows of .csv and .tsv files. A quotation mark that is never closed costs its row, not all that follow it."""

import csv
import re
from collections.abc import Iterator
from typing import Any

from genai_core.data.sources.bad_rows import BadRow
from genai_core.errors import InputError

_BAD_BYTES = re.compile("[\udc80-\udcff]")


def read_csv(lines: Iterator[bytes | BadRow], place: str, delimiter: str, max_bytes: int) -> Iterator[tuple[int, Any]]:
    """The line on which each row begins and the row, or BadRow in its place. The first row names the columns."""
    csv.field_size_limit(max_bytes)
    source = _Lines(lines)
    header: list[str] | None = None
    reader = csv.reader(source, delimiter=delimiter, strict=True)
    while True:
        source.begin()
        start = source.number + 1
        try:
            fields = next(reader)
        except StopIteration:
            return
        except BadRow as error:
            reader = csv.reader(source, delimiter=delimiter, strict=True)
            source.back_to_second()      # of a row that swallowed lines, up to this one
            yield start, error
            continue
        except csv.Error as error:
            reason = f"not csv ({error}); is a quotation mark left open or not doubled?"
            if header is None:
                raise InputError(f"{place}, line {start}: {reason}") from None
            source.back_to_second()
            reader = csv.reader(source, delimiter=delimiter, strict=True)
            yield start, BadRow(reason)
            continue
        if source.bad_byte is not None:
            number, byte = source.bad_byte
            yield number, BadRow(f"not UTF-8 text at byte {byte}; convert it, for example with iconv")
        elif header is None:
            header = fields
            twice = [name for name in header if header.count(name) > 1]
            if twice:
                raise InputError(f"{place}: two columns are called {twice[0]!r}")
        elif fields and len(fields) != len(header):
            yield start, BadRow(f"{len(fields)} fields where the first line names {len(header)} columns")
        elif fields:
            yield start, dict(zip(header, fields, strict=True))


class _Lines:
    """Lines as text, which can be given back."""

    def __init__(self, lines: Iterator[bytes | BadRow]):
        self.lines = lines
        self.number = 0
        self.taken: list[bytes | BadRow] = []
        self.waiting: list[bytes | BadRow] = []      # the next one last
        self.bad_byte: tuple[int, int] | None = None

    def begin(self) -> None:
        """What follows is another row."""
        self.taken, self.bad_byte = [], None

    def back_to_second(self) -> None:
        """Read on after the first line of this row."""
        given_back = self.taken[1:]
        self.waiting += reversed(given_back)
        self.number -= len(given_back)
        self.begin()

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self.waiting.pop() if self.waiting else next(self.lines)
        self.number += 1
        self.taken.append(line)
        if isinstance(line, BadRow):
            raise line if len(self.taken) == 1 else BadRow("not csv: a quotation mark is left open")
        text = line.decode("utf-8-sig", "surrogateescape")
        if self.bad_byte is None and (found := _BAD_BYTES.search(text)):
            self.bad_byte = self.number, len(text[:found.start()].encode())
        return text
