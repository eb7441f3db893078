"""The users who wait to be encoded, each once however many events come.

Every second place belongs to the one that has waited longest. The others belong to those whom reads wait for,
and else to the newest, who look at pages. So nobody waits for more than twice what all who wait take. With
the newest alone, users who keep coming would draw lots for an encoder that does not follow.

The queue is as long as what the encoder does in `LONGEST_S`. Out of a full one falls of whom nothing came for
longest; the next read brings them back. A user who was just encoded rests for a moment, so that a burst of
events costs two encodings and not one for each.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice

from features.record import CachedAnswer

LONGEST_S = 30.0
_MOST_DUE = 10_000
_FEWEST_DUE = 64
_REST_S = 0.25


@dataclass(slots=True)
class Due:
    """A user who waits."""

    since: float
    """When the first event came that is to be covered, on the clock of `time.monotonic`."""
    readers: list[asyncio.Future[CachedAnswer]] = field(default_factory=list)
    """Reads that wait for it."""
    version: int | None = None
    """That a read wants it of; None: that of the user's cohort."""

    def settle(self, outcome: CachedAnswer | Exception) -> None:
        """Tells the reads what came of it."""
        for reader in self.readers:
            if reader.done():
                continue
            if isinstance(outcome, Exception):
                reader.set_exception(outcome)
            else:
                reader.set_result(outcome)


class EncoderQueue:
    """The queue of one worker."""

    def __init__(self, dropped: Callable[[], None]) -> None:
        """`dropped` is called for each user who falls out."""
        self._dropped = dropped
        self._most = _MOST_DUE
        self._due: dict[str, Due] = {}  # the one that has waited longest first
        self._order: dict[str, None] = {}  # the same users, of whom something came last at the end
        self._longest_next = False
        self._awaited: dict[str, Due] = {}  # the one that has waited longest first
        self._resting: dict[str, float | None] = {}  # user → since when they are due again, or None
        self._parked: dict[int, dict[str, float]] = {}  # version without an encoder → user → since
        self.filled = asyncio.Event()
        """Set when somebody has come; who takes the last one clears it."""

    def __len__(self) -> int:
        return len(self._due) + len(self._awaited)

    @property
    def ahead(self) -> int:
        """Users who are encoded before one whom a read would wait for from now on."""
        return 2 * len(self._awaited) + self._longest_next if self._due else len(self._awaited)

    @property
    def parked(self) -> int:
        """Users who are kept until there is an encoder of their version."""
        return sum(map(len, self._parked.values()))

    @property
    def oldest(self) -> float | None:
        """When the first of all came who wait, on the clock of `time.monotonic`; None if nobody does."""
        waiting = (due.since for users in (self._due, self._awaited) for due in users.values())
        return min(
            (*waiting, *(since for users in self._parked.values() for since in users.values())), default=None
        )

    @property
    def resting(self) -> int:
        """Users who were just encoded."""
        return len(self._resting)

    def note(self, user_ids: Iterable[str]) -> None:
        """Puts users in whose vectors are outdated by now."""
        now = time.monotonic()
        for user_id in user_ids:
            if user_id in self._resting:
                if self._resting[user_id] is None:
                    self._resting[user_id] = now
            else:
                self.push(user_id, now)

    def takes(self, row_s: float) -> None:
        """Notes how many seconds a user takes to be encoded."""
        self._most = min(_MOST_DUE, max(_FEWEST_DUE, int(LONGEST_S / row_s)))
        self._drop()

    def push(self, user_id: str, since: float) -> None:
        """Puts a user in, as the newest."""
        if user_id in self._awaited:
            return
        self._order.pop(user_id, None)
        self._order[user_id] = None
        if user_id not in self._due:
            self._due[user_id] = Due(since)
            self._drop()
        self.filled.set()

    def wait(self, user_id: str, version: int) -> asyncio.Future[CachedAnswer]:
        """What a read of a user may wait for, whom it needs encoded by this version."""
        due = self._awaited.get(user_id)
        if due is None:
            due = self._remove(user_id) if user_id in self._due else Due(time.monotonic())
            self._awaited[user_id] = due
        due.version = version
        reader: asyncio.Future[CachedAnswer] = asyncio.get_running_loop().create_future()
        due.readers.append(reader)
        self.filled.set()
        return reader

    def take(self, wanted: Callable[[str, Due], bool]) -> dict[str, Due]:
        """Takes out those who are next, until `wanted` refuses one."""
        taken: dict[str, Due] = {}
        while self._awaited or self._due:
            longest = bool(self._due) and self._longest_next
            if self._awaited and not longest:
                user_id = next(iter(self._awaited))
            else:
                user_id = next(iter(self._due)) if longest else next(reversed(self._order))
            due = self._awaited.get(user_id) or self._due[user_id]
            if not wanted(user_id, due):
                return taken
            taken[user_id] = self._remove(user_id)
            self._longest_next = not longest
        self._longest_next = False
        self.filled.clear()
        return taken

    def rest(self, user_id: str) -> None:
        """Keeps a user out for a moment, who was just encoded."""
        if user_id not in self._resting:
            self._resting[user_id] = None
            asyncio.get_running_loop().call_later(_REST_S, self._rested, user_id)

    def put_back(self, users: Mapping[str, float]) -> None:
        """Puts users in again, user → since: they were next, and so they are."""
        old = {
            user_id: Due(since)
            for user_id, since in users.items()
            if user_id not in self._awaited and user_id not in self._due
        }
        self._due = dict(sorted({**self._due, **old}.items(), key=lambda waiting: waiting[1].since))
        self._order |= dict.fromkeys(old)
        self._drop()
        if self._due:
            self.filled.set()

    def park(self, user_id: str, due: Due, version: int) -> None:
        """Keeps a user until there is an encoder of the version."""
        parked = self._parked.setdefault(version, {})
        parked[user_id] = due.since
        if len(parked) > _MOST_DUE:
            del parked[next(iter(parked))]
            self._dropped()

    def unpark(self, version: int, most: int | None = None) -> None:
        """Puts those in, or the `most` newest of them, who were kept for the version."""
        parked = self._parked.pop(version, {})
        taken = dict(list(parked.items())[-(len(parked) if most is None else most) :])
        if left := {user_id: since for user_id, since in parked.items() if user_id not in taken}:
            self._parked[version] = left
        self.put_back(taken)

    def keeps(self, version: int) -> bool:
        """Whether users are kept for the version."""
        return version in self._parked

    def keep_parked(self, versions: Collection[int]) -> None:
        """Puts in who was kept for a version that is none of these, and may belong to another one by now."""
        for version in [version for version in self._parked if version not in versions]:
            self.unpark(version)

    def forget(self, user_id: str) -> None:
        """Leaves a user out, but for reads that wait for them already."""
        if user_id in self._due:
            self._remove(user_id)
        if user_id in self._resting:
            self._resting[user_id] = None
        for parked in self._parked.values():
            parked.pop(user_id, None)

    def _remove(self, user_id: str) -> Due:
        if user_id in self._awaited:
            return self._awaited.pop(user_id)
        del self._order[user_id]
        return self._due.pop(user_id)

    def _drop(self) -> None:
        """Leaves those out who are too many."""
        for user_id in list(islice(self._order, max(0, len(self._due) - self._most))):
            self._remove(user_id)
            self._dropped()

    def _rested(self, user_id: str) -> None:
        since = self._resting.pop(user_id)
        if since is not None:
            self.push(user_id, since)
