"""CSV text, record by record, with the exact line of each.

Lines are *physical* lines, counted from 1, the header included. A record whose quoted text holds line breaks
has the number of the line it starts on. Blank lines count as lines but are no records. After a quote that is
never closed, or has text behind it, only the line that the record starts on is broken, and reading goes on
with the next line: a stray quote must not swallow the rest of the file. A line with a cell too long for
Python's reader is broken, too.
"""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Iterator
from typing import TextIO

from training.data_config import FileConfig

BROKEN_QUOTE = "unclosed or misplaced quote"
TOO_LONG = f"a cell is longer than {csv.field_size_limit():,} characters"


class _Lines:
    """The physical lines of a file; those of a record that turned out broken can be read again."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._again: deque[str] = deque()
        self.taken = 0
        self.record: list[str] = []

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = self._again.popleft() if self._again else next(self._stream)
        self.taken += 1
        self.record.append(line)
        return line

    def put_back_all_but_first(self) -> None:
        rest = self.record[1:]
        self._again.extendleft(reversed(rest))
        self.taken -= len(rest)
        del self.record[1:]


def records(stream: TextIO, config: FileConfig) -> Iterator[tuple[int, list[str] | str, str]]:
    """(line, cells, raw text) of every record. Of a broken one there is the reason instead of the cells."""
    lines = _Lines(stream)
    reader = csv.reader(
        lines,
        delimiter=config.delimiter,
        quotechar=config.quote or None,
        quoting=csv.QUOTE_MINIMAL if config.quote else csv.QUOTE_NONE,
        strict=True,
    )
    while True:
        lines.record.clear()
        line = lines.taken + 1
        fields: list[str] | str
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            lines.put_back_all_but_first()
            # A quote that is never closed makes a cell of many lines, which gets too long as well.
            too_long = "field larger" in str(error) and len(lines.record[0]) > csv.field_size_limit()
            fields = TOO_LONG if too_long else BROKEN_QUOTE
        if fields != []:
            yield line, fields, lines.record[0] if len(lines.record) == 1 else "".join(lines.record)
