"""Showing a rollout as it goes on."""

from __future__ import annotations

import asyncio
import time
from collections import deque

from rich.console import Console, Group
from rich.live import Live

from features.control import ControlStore
from rollout.heartbeat import read_heartbeat
from rollout.operate import Operator
from rollout.state import Phase, Rollout
from rollout.tables import entry_line, figures_table, status_lines
from rollout.window import Look, look

_POLL_S = 0.25
_WATCH_S = 1.0
_SPAN_S = 10.0
_OVER = frozenset({Phase.IDLE, Phase.ROLLED_BACK, Phase.EXPERIMENT})


async def follow(
    operator: Operator, control: ControlStore, model: str, begun: Rollout, console: Console
) -> Rollout:
    """Prints what happens to a rollout that was just begun until it is over; returns it as it is then."""
    printed = begun.history[-1].time
    console.print(entry_line(begun.history[-1]), soft_wrap=True)
    missed = False
    while True:
        rollout = await operator.get()
        for entry in rollout.history:
            if entry.time > printed:
                console.print(entry_line(entry), soft_wrap=True)
                printed = entry.time
        if rollout.phase in _OVER:
            return rollout
        beat = await read_heartbeat(control, model)
        if (beat is None or not beat.alive(time.time())) and not missed:
            missed = True
            console.print("no driver runs: it goes on when one does (python -m rollout drive)")
        await asyncio.sleep(_POLL_S)


async def watch(operator: Operator, control: ControlStore, model: str, console: Console) -> None:
    """A table of the versions' figures, drawn anew each second, until cancelled."""
    first = await look(control, time.time())
    looks: deque[Look] = deque([first], maxlen=int(_SPAN_S / _WATCH_S) + 1)
    with Live(console=console, auto_refresh=False) as live:
        while True:
            rollout = await operator.get()
            beat = await read_heartbeat(control, model)
            now = await look(control, time.time())
            before = looks[0]
            looks.append(now)
            span_s = max(now.at - before.at, _WATCH_S)
            table = figures_table(now.since(before), now.since(first), rollout, span_s)
            live.update(Group(table, status_lines(rollout, beat)), refresh=True)
            await asyncio.sleep(_WATCH_S)
