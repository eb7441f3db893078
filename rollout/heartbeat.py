"""A sign of life of the driver, and what it waits for."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from features.control import ControlStore

_BEAT_S = 1.0
_ALIVE_S = 10.0
"""A driver that has not been heard of for so long is not there."""


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """What the driver last said."""

    pid: int
    at: float
    """Unix seconds."""
    note: str

    def alive(self, now: float) -> bool:
        """Whether the driver was there a moment ago."""
        return now - self.at < _ALIVE_S


def _name(model: str) -> str:
    return f"driver/{model}"


async def write_heartbeat(control: ControlStore, model: str, beat: Heartbeat) -> None:
    """Writes it if it says something new, or the last one is a second old.

    Raises:
        StoreError: the store cannot be written.
    """
    document = await control.read_document(_name(model))
    last = _parsed(document.value)
    if last is not None and last.pid == beat.pid and last.note == beat.note and beat.at - last.at < _BEAT_S:
        return
    await control.replace_document(_name(model), json.dumps(asdict(beat)).encode(), document.revision)


async def read_heartbeat(control: ControlStore, model: str) -> Heartbeat | None:
    """What the driver last said; None if there never was one.

    Raises:
        StoreUnavailable: the store does not answer.
    """
    return _parsed((await control.read_document(_name(model))).value)


def _parsed(value: bytes) -> Heartbeat | None:
    try:
        return Heartbeat(**json.loads(value))
    except (ValueError, TypeError):
        return None
