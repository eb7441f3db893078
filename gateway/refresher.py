"""Computing user vectors off the request path, after events and for reads that found one outdated.

Users wait in a queue, each once however many events come, and the newest are served first: they are the ones
who look at pages. What reads wait for goes before them. The queue is bounded: when events come faster than
the encoder follows, the users who have waited longest fall out, and their next read brings them back.

One batch is with the encoder at a time, as large as it answers in a few milliseconds. A user who was just
encoded rests for a moment, so that a burst of events costs two encodings and not one for each.

Nothing here can make a page wrong. A vector is stored with the revision of the record that it was computed
from, and the store keeps the newer one (`features.record.with_answer`); reads judge it by themselves
(`freshness`).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from features.record import CachedAnswer, UserRecord
from features.store import FeatureStore, StoreError
from gateway.errors import ModelUnavailable, VersionGone
from gateway.freshness import cached
from gateway.metrics import Metrics
from gateway.model_inputs import ENCODER_INPUTS, Row, knows, model_inputs
from gateway.routing import Router
from gateway.scorer import Scorer
from gateway.versions import ServingVersion

_MOST_DUE = 10_000
_MOST_ROWS = 64
_AIM_S = 0.02
"""How long one call of the encoder should take: a read that comes meanwhile waits for it."""
_REST_S = 0.25
_CALL_TIMEOUT_S = 5.0
_STORE_TIMEOUT_S = 2.0
_AGAIN_S = 0.5
"""Pause after a failure."""
_GONE_S = 1.0
"""How long an encoder that was not there is taken to be away."""
_NO_PAGE = np.empty(0, np.int64)

log = logging.getLogger("riptide.gateway.refresher")


@dataclass(slots=True)
class _Due:
    """A user who waits to be encoded."""

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


class Refresher:
    """The refreshing of one worker; `run_for_good` runs beside the server."""

    def __init__(self, store: FeatureStore, router: Router, scorer: Scorer, metrics: Metrics) -> None:
        self._store = store
        self._router = router
        self._scorer = scorer
        self._metrics = metrics
        self._due: dict[str, _Due] = {}  # the newest last
        self._awaited: dict[str, _Due] = {}  # the one that has waited longest first
        self._resting: dict[str, float | None] = {}  # until when it is due again, or None
        self._encoding = False
        self._work = asyncio.Event()
        self._row_s: dict[int, float] = {}  # version → what a row has taken, of late
        self._gone: dict[int, float] = {}  # version → when it was found to have no encoder

    @property
    def backlog(self) -> int:
        """Users who wait."""
        return len(self._due) + len(self._awaited)

    @property
    def idle(self) -> bool:
        """Whether nobody waits and nobody is being encoded."""
        return not (self.backlog or self._encoding)

    def note(self, user_ids: Iterable[str]) -> None:
        """Notes that the vectors of users are outdated by now."""
        now = time.monotonic()
        for user_id in user_ids:
            if user_id in self._resting:
                if self._resting[user_id] is None:
                    self._resting[user_id] = now
            elif user_id not in self._awaited:
                self._push(user_id, now)

    async def encoded(self, user_id: str, version: ServingVersion, timeout_s: float) -> CachedAnswer:
        """A vector of the user for the version. It covers all that was stored of them when this was called.

        It is stored too, but a read need not find it there: the vector of a newer version, for another
        gateway, may have taken its place.

        Raises:
            VersionGone: the version has no encoder.
            ModelUnavailable: not within `timeout_s`, or it failed.
        """
        if not self.encodes(version):
            raise VersionGone(f"version {version.version} has no encoder")
        due = self._awaited.get(user_id)
        if due is None:
            due = self._due.pop(user_id) if user_id in self._due else _Due(time.monotonic())
            self._awaited[user_id] = due
        reader: asyncio.Future[CachedAnswer] = asyncio.get_running_loop().create_future()
        due.readers.append(reader)
        due.version = version.version
        self._work.set()
        try:
            async with asyncio.timeout(timeout_s):
                return await reader
        except TimeoutError as error:
            raise ModelUnavailable("not encoded within the time left") from error

    def wait_s(self, version: ServingVersion) -> float:
        """About how long a read would wait for `encoded`: for those before it, and for itself."""
        return self._row_s.get(version.version, 0.0) * (len(self._awaited) + 2)

    def encodes(self, version: ServingVersion) -> bool:
        """Whether the version has an encoder, as far as is known."""
        found_gone = self._gone.get(version.version)
        return found_gone is None or time.monotonic() - found_gone > _GONE_S

    def forget(self, user_id: str) -> None:
        """Leaves a user out who is being forgotten."""
        self._due.pop(user_id, None)
        if user_id in self._resting:
            self._resting[user_id] = None

    async def run_for_good(self) -> None:
        """Encodes until cancelled."""
        while True:
            await self._work.wait()
            if not self.backlog:
                self._work.clear()
                continue
            batch = self._next_batch()
            self._encoding = True
            try:
                await self._refresh(batch)
            except Exception as error:
                # Those who wait are told, and the others are noted again when they are next read.
                for due in batch.values():
                    due.settle(ModelUnavailable(f"not encoded: {error!r}"))
                if isinstance(error, ModelUnavailable | StoreError | TimeoutError):
                    log.warning("user vectors were not refreshed: %s", str(error) or "no answer in time")
                else:
                    log.exception("user vectors were not refreshed")
                await asyncio.sleep(_AGAIN_S)
            finally:
                self._encoding = False

    def _push(self, user_id: str, since: float) -> None:
        due = self._due.pop(user_id) if user_id in self._due else _Due(since)
        if len(self._due) >= _MOST_DUE:
            del self._due[next(iter(self._due))]
            self._metrics.refresh_dropped()
        self._due[user_id] = due
        self._work.set()

    def _next_batch(self) -> dict[str, _Due]:
        """Those whom reads wait for, then the newest."""
        batch: dict[str, _Due] = {}
        while len(batch) < _MOST_ROWS and self._awaited:
            user_id = next(iter(self._awaited))
            batch[user_id] = self._awaited.pop(user_id)
        while len(batch) < _MOST_ROWS and self._due:
            user_id, due = self._due.popitem()
            batch[user_id] = due
        return batch

    def _room(self, version: int) -> int:
        """How many rows the version encodes in `_AIM_S`; of one that has shown nothing yet, one."""
        row_s = self._row_s.get(version)
        return 1 if row_s is None else min(_MOST_ROWS, max(1, int(_AIM_S / row_s)))

    def _put_back(self, user_id: str, due: _Due) -> None:
        """Returns a user for whom the batch had no room to where they were: before those who came since."""
        if due.readers:
            self._awaited = {user_id: due, **self._awaited}
        else:
            self._due = {**self._due, user_id: due} if user_id not in self._due else self._due

    def _rest(self, user_id: str) -> None:
        if user_id not in self._resting:
            self._resting[user_id] = None
            asyncio.get_running_loop().call_later(_REST_S, self._rested, user_id)

    def _rested(self, user_id: str) -> None:
        since = self._resting.pop(user_id)
        if since is not None and user_id not in self._awaited:
            self._push(user_id, since)

    async def _refresh(self, batch: dict[str, _Due]) -> None:
        async with asyncio.timeout(_STORE_TIMEOUT_S):
            records = await self._store.read(list(batch))
        read_at = time.time()
        by_version: dict[int, tuple[ServingVersion, dict[str, UserRecord]]] = {}
        left_over: list[str] = []
        for user_id, record in zip(batch, records, strict=True):
            version = self._version_of(user_id, batch[user_id])
            if version is None or not knows(version, record):
                batch[user_id].settle(ModelUnavailable("nothing to encode, or nothing to do it with"))
            elif (current := cached(record, version, int(read_at * 1e9)).within(0.0)) is not None:
                batch[user_id].settle(current)
            else:
                of_users = by_version.setdefault(version.version, (version, {}))[1]
                if len(of_users) < self._room(version.version):
                    of_users[user_id] = record
                else:
                    left_over.append(user_id)
        for user_id in reversed(left_over):
            self._put_back(user_id, batch[user_id])
        for version, of_users in by_version.values():
            try:
                answers = await self._encode(version, of_users, int(read_at))
            except ModelUnavailable as error:
                # Also one that fails or hangs: as long as it does, it is as good as none.
                self._find_gone(version.version, error)
                for user_id in of_users:
                    batch[user_id].settle(error)
                continue
            async with asyncio.timeout(_STORE_TIMEOUT_S):
                await self._store.put_answers(answers)
            now = time.monotonic()
            for user_id in of_users:
                batch[user_id].settle(answers[user_id])
                self._rest(user_id)
            self._metrics.refreshed([now - batch[user_id].since for user_id in of_users])

    def _version_of(self, user_id: str, due: _Due) -> ServingVersion | None:
        wanted = self._router.ready.get(due.version) if due.version is not None else None
        return wanted or self._router.choose(user_id).version

    async def _encode(
        self, version: ServingVersion, records: dict[str, UserRecord], read_at: int
    ) -> dict[str, CachedAnswer]:
        rows = [Row(record, None, (), (), include_seen=True) for record in records.values()]
        began = time.perf_counter()
        inputs = model_inputs(version, rows, ENCODER_INPUTS)
        vectors = await self._scorer.encode(version, inputs, timeout_s=_CALL_TIMEOUT_S)
        self._learn(version.version, (time.perf_counter() - began) / len(rows))
        return {
            user_id: CachedAnswer(version.version, record.revision, read_at, vector, _NO_PAGE, False)
            for (user_id, record), vector in zip(records.items(), vectors, strict=True)
        }

    def _learn(self, version: int, row_s: float) -> None:
        before = self._row_s.get(version, row_s)
        self._row_s[version] = 0.8 * before + 0.2 * row_s

    def _find_gone(self, version: int, error: Exception) -> None:
        if version not in self._gone:
            log.warning("version %d is encoded with its requests: %s", version, error)
        self._gone = {number: at for number, at in self._gone.items() if number in self._router.ready}
        self._gone[version] = time.monotonic()
