"""Joining concurrent requests: one feature read and one call of Triton for all that wait.

No timer: a batch leaves when the one before it is back and a few turns of the event loop have brought nothing
more. Under light load that is a single request, which hardly waits; under heavy load batches grow by
themselves, and with many calls at once there are two: while the model works on one, this process answers
the other.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from gateway.errors import ModelUnavailable

Asked = TypeVar("Asked")
Answer = TypeVar("Answer")

_QUIET_TURNS = 30
"""Turns of the event loop without a further request after which a batch leaves: a tenth of a millisecond.

gRPC hands over one call per turn or less. Without this, batches under load held a third of the rows, and each
costs a millisecond of the gateway's time however many rows it has.
"""
_QUIET_TURNS_ALONE = 2
"""The same after a batch of one: calls that come one at a time gain nothing by waiting for each other."""
_ENOUGH = 32
"""With so many rows a batch leaves at once. A second one leaves only so: smaller ones cost more than the
model's time that they fill."""
_LOOK_S = 0.005
"""How often it is looked whether somebody's time is up. A timer for each call costs far more."""


class Waiting(Generic[Asked, Answer]):
    """A request in the queue, and the future that its caller awaits."""

    __slots__ = ("answer", "aside", "asked", "deadline")

    def __init__(self, asked: Asked, answer: asyncio.Future[Answer], deadline: float) -> None:
        self.asked = asked
        self.answer = answer
        self.deadline = deadline
        """On the event loop's clock, seconds."""
        self.aside = False
        """Whether it is out of its batch, until `put_first`: what befalls the batch is not its business."""

    def expire(self) -> None:
        """Gives its caller an error, unless there is an answer."""
        if not self.answer.done():
            self.answer.set_exception(ModelUnavailable("no answer within the time left for the model"))


class Coalescer(Generic[Asked, Answer]):
    """Batches calls of one coroutine function."""

    def __init__(
        self,
        answer_batch: Callable[[Sequence[Waiting[Asked, Answer]]], Awaitable[None]],
        *,
        max_batch: int,
        join: bool = True,
    ) -> None:
        """Makes a coalescer.

        Args:
            answer_batch: settles the future of every entry that it is given. What it raises is given to
                those that it left open.
            max_batch: most entries per call.
            join: False calls it once per request, at once.
        """
        self._answer_batch = answer_batch
        self._max_batch = max_batch
        self._enough = min(_ENOUGH, max_batch)
        self._join = join
        self._waiting: deque[Waiting[Asked, Answer]] = deque()
        self._running: dict[asyncio.Task[None], list[Waiting[Asked, Answer]]] = {}
        self._gathering = False
        self._rows_before = 0
        """Of the batch that left last."""
        self._looking = False
        # Kept, since to ask for it is a system call, the number of this process.
        self._loop = asyncio.get_running_loop()

    def submit(self, asked: Asked, timeout_s: float) -> asyncio.Future[Answer]:
        """The answer to `asked`, to be awaited: `ModelUnavailable` if there is none within `timeout_s`."""
        loop = self._loop
        entry: Waiting[Asked, Answer] = Waiting(asked, loop.create_future(), loop.time() + timeout_s)
        if not self._join:
            self._start([entry])
        else:
            self._waiting.append(entry)
            self._gather()
        self._look_later()
        return entry.answer

    def put_first(self, entry: Waiting[Asked, Answer]) -> None:
        """Takes back an entry that `answer_batch` was given and has set aside: it waited once already."""
        entry.aside = False
        self._look_later()
        for batch in self._running.values():  # the one that it has left may still be under way
            batch[:] = [other for other in batch if other is not entry]
        if not self._join:
            self._start([entry])
        else:
            self._waiting.appendleft(entry)
            self._gather()

    @property
    def backlog(self) -> int:
        """Requests that wait behind the batch in flight."""
        return len(self._waiting)

    @property
    def idle(self) -> bool:
        """Whether nothing waits and nothing is in flight."""
        return not (self._waiting or self._running or self._gathering)

    async def close(self) -> None:
        """Waits for the batches in flight, and for the one that gathers."""
        while self._running or self._gathering:
            if self._running:
                await asyncio.wait(self._running)
            await asyncio.sleep(0)

    def _gather(self) -> None:
        """Begins to gather the next batch, if there is anything to gather and none is under way."""
        if self._gathering or not self._waiting:
            return
        if not self._running:
            self._gathering = True
            self._loop.call_soon(self._turn, 0, 0)
        elif len(self._running) == 1 and len(self._waiting) >= self._enough:
            self._start_next()

    def _turn(self, before: int, quiet: int) -> None:
        """One turn of the event loop while a batch gathers: it leaves when some turns brought nothing."""
        now = len(self._waiting)
        quiet = 0 if now > before else quiet + 1
        alone = now == self._rows_before == 1
        if quiet < (_QUIET_TURNS_ALONE if alone else _QUIET_TURNS) and now < self._enough:
            self._loop.call_soon(self._turn, now, quiet)
            return
        self._gathering = False
        self._start_next()

    def _start_next(self) -> None:
        batch: list[Waiting[Asked, Answer]] = []
        while self._waiting and len(batch) < self._max_batch:
            entry = self._waiting.popleft()
            if not entry.answer.done():  # its caller may have given up
                batch.append(entry)
        if batch:
            self._start(batch)

    def _start(self, batch: list[Waiting[Asked, Answer]]) -> None:
        self._rows_before = len(batch)
        task = self._loop.create_task(self._run(batch))
        self._running[task] = batch
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        del self._running[task]
        self._gather()

    async def _run(self, batch: list[Waiting[Asked, Answer]]) -> None:
        try:
            await self._answer_batch(batch)
        except Exception as error:
            for entry in batch:
                if not (entry.aside or entry.answer.done()):
                    entry.answer.set_exception(error)

    def _look_later(self) -> None:
        if not self._looking:
            self._looking = True
            self._loop.call_later(_LOOK_S, self._look)

    def _look(self) -> None:
        """Expires those whose time is up, and looks again as long as there are any."""
        self._looking = False
        now = self._loop.time()
        for entries in (self._waiting, *self._running.values()):
            for entry in entries:
                if entry.deadline <= now:
                    entry.expire()
        if self._waiting or self._running:
            self._look_later()
