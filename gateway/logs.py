"""Structured logs: one JSON object per line on standard error."""

from __future__ import annotations

import json
import logging
import sys
import time
from time import monotonic
from typing import Any

_PAUSE_S = 1.0
_CALL_BY_CALL = (
    "riptide.gateway.calls",
    "riptide.gateway.recommend",
    "riptide.gateway.answers",
    "riptide.gateway.shadow",
    "riptide.gateway.exposures",
    "riptide.features.lmdb_store",
)
"""Loggers whose lines come with calls, hence thousands a second when all of them fail."""
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonLines(logging.Formatter):
    """time (UTC), level, logger, message, what was given as `extra`, and the traceback if there is one."""

    def format(self, record: logging.LogRecord) -> str:
        """One line of JSON."""
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, Any] = {
            "time": f"{stamp}.{int(record.msecs):03d}Z",
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        line.update((name, value) for name, value in vars(record).items() if name not in _STANDARD)
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


class Sparing(logging.Filter):
    """Lets one line a second of a kind through; it says as `left_out` how many there were since the last.

    A kind is a level, a message before its arguments are put in, `method`, `code`, `reason` and `error` if it
    has them, and the line of code that raised its exception. The metrics count every call, written or not.
    """

    def __init__(self) -> None:
        super().__init__()
        self._kinds: dict[tuple[object, ...], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether `record` is to be written."""
        fields = vars(record)
        kind = (
            record.levelno,
            record.msg,
            _raised_at(record),
            *(fields.get(name) for name in ("method", "code", "reason", "error")),
        )
        now = monotonic()
        written, left_out = self._kinds.get(kind, (-_PAUSE_S, 0))
        if now - written < _PAUSE_S:
            self._kinds[kind] = written, left_out + 1
            return False
        self._kinds[kind] = now, 0
        if left_out:
            record.left_out = left_out
        return True


def _raised_at(record: logging.LogRecord) -> tuple[object, ...]:
    if not record.exc_info:
        return ()
    kind, _, trace = record.exc_info
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return (kind, trace and (trace.tb_frame.f_code.co_filename, trace.tb_lineno))


def configure(level: str, *, every_call: bool = False) -> None:
    """Sends all logs of the process to standard error as JSON lines.

    What is written call by call is written sparingly, unless `every_call`: in an outage it would fill the
    disk, which the user store is on as well.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    if not every_call:
        for name in _CALL_BY_CALL:
            logging.getLogger(name).addFilter(Sparing())
