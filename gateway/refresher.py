"""Computing user vectors off the request path, after events and for reads that found one outdated.

One batch is with the encoder at a time, as large as it answers in a few milliseconds; who comes in which
order is the queue's to say (`encoder_queue`).

Nothing here can make a page wrong. A vector is stored with the revision of the record that it was computed
from, and the store keeps the newer one (`features.record.with_answer`); reads judge it by themselves
(`freshness`).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Iterable

import numpy as np

from features.record import CachedAnswer, UserRecord
from features.store import FeatureStore, StoreError
from gateway.encoder_queue import Due, EncoderQueue
from gateway.errors import ModelUnavailable, VersionGone
from gateway.freshness import cached
from gateway.metrics import Metrics
from gateway.model_inputs import ENCODER_INPUTS, Row, knows, model_inputs
from gateway.page import PageRequest
from gateway.routing import Router
from gateway.scorer import Scorer
from gateway.versions import ServingVersion

_MOST_ROWS = 64
_AIM_S = 0.02
"""How long one call of the encoder should take: a read that comes meanwhile waits for it."""
_CALL_TIMEOUT_S = 5.0
_STORE_TIMEOUT_S = 2.0
_AGAIN_S = 0.5
"""Pause after a failure."""
_GONE_S = 1.0
"""How long an encoder that was not there is taken to be away."""
_TRY_AGAIN_S = 1.1
_MOST_TIMES = 4.0
_NO_PAGE = np.empty(0, np.int64)
_ANYTHING = PageRequest("", 1)
"""A vector is the same whatever is asked for."""

log = logging.getLogger("riptide.gateway.refresher")


class Refresher:
    """The refreshing of one worker; `run_for_good` runs beside the server."""

    def __init__(self, store: FeatureStore, router: Router, scorer: Scorer, metrics: Metrics) -> None:
        self._store = store
        self._router = router
        self._scorer = scorer
        self._metrics = metrics
        self._queue = EncoderQueue(metrics.refresh_dropped)
        self._encoding = False
        self._row_s: dict[int, float] = {}  # version → what a row has taken, of late
        self._gone: dict[int, float] = {}  # version → when it was found to have no encoder
        self._trying: set[int] = set()  # versions whose encoder is tried again in a moment

    @property
    def backlog(self) -> int:
        """Users who wait, those without an encoder included."""
        return len(self._queue) + self._queue.parked

    @property
    def oldest_s(self) -> float:
        """How long the one of them has waited who came first; 0 if nobody waits."""
        since = self._queue.oldest
        return 0.0 if since is None else time.monotonic() - since

    @property
    def idle(self) -> bool:
        """Whether nobody waits, is being encoded, or was so a moment ago."""
        return not (len(self._queue) or self._encoding or self._queue.resting)

    def note(self, user_ids: Iterable[str]) -> None:
        """Notes that the vectors of users are outdated by now."""
        self._queue.note(user_ids)

    def forget(self, user_id: str) -> None:
        """Leaves a user out who is being forgotten."""
        self._queue.forget(user_id)

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
        reader = self._queue.wait(user_id, version.version)
        try:
            async with asyncio.timeout(timeout_s):
                return await reader
        except TimeoutError as error:
            raise ModelUnavailable("not encoded within the time left") from error

    def wait_s(self, version: ServingVersion) -> float:
        """About how long a read would wait for `encoded`: for those before it, and for itself."""
        return self._row_s.get(version.version, 0.0) * (self._queue.ahead + 2)

    def encodes(self, version: ServingVersion) -> bool:
        """Whether the version has an encoder, as far as is known."""
        found_gone = self._gone.get(version.version)
        return found_gone is None or time.monotonic() - found_gone > _GONE_S

    async def run_for_good(self) -> None:
        """Encodes until cancelled."""
        while True:
            await self._queue.filled.wait()
            # Where nothing has to be waited for, a long queue would else be gone through in one go.
            await asyncio.sleep(0)
            self._queue.keep_parked(self._router.ready)
            self._encoding = True
            batch, versions = self._next_batch()
            try:
                if not batch and len(self._queue):  # no version can be called
                    await asyncio.sleep(_AGAIN_S)
                    continue
                await self._refresh(batch, versions)
            except Exception as error:
                passing = isinstance(error, StoreError | TimeoutError)
                for due in batch.values():
                    due.settle(ModelUnavailable(f"not encoded: {error!r}"))
                if passing:  # a defect would come again and again
                    self._queue.put_back({user_id: due.since for user_id, due in batch.items()})
                    log.warning("user vectors wait for the store: %s", str(error) or "no answer in time")
                else:
                    log.exception("user vectors were not refreshed")
                await asyncio.sleep(_AGAIN_S)
            finally:
                self._encoding = False

    def _next_batch(self) -> tuple[dict[str, Due], dict[str, ServingVersion]]:
        """Who is encoded next, and by which version: as many of each as it encodes in `_AIM_S`."""
        versions: dict[str, ServingVersion] = {}
        rows: Counter[int] = Counter()

        def has_room(user_id: str, due: Due) -> bool:
            wanted = self._router.ready.get(due.version) if due.version is not None else None
            version = wanted or self._router.choose(user_id).version
            if version is None or rows[version.version] >= self._room(version.version):
                return False
            rows[version.version] += 1
            versions[user_id] = version
            return True

        return self._queue.take(has_room), versions

    def _room(self, version: int) -> int:
        """How many rows the version encodes in `_AIM_S`; of one that has shown nothing yet, one."""
        row_s = self._row_s.get(version)
        return 1 if row_s is None else min(_MOST_ROWS, max(1, int(_AIM_S / row_s)))

    async def _refresh(self, batch: dict[str, Due], versions: dict[str, ServingVersion]) -> None:
        async with asyncio.timeout(_STORE_TIMEOUT_S):
            records = await self._store.read(list(batch))
        read_at = time.time()
        by_version: dict[int, dict[str, UserRecord]] = {}
        for (user_id, due), record in zip(batch.items(), records, strict=True):
            version = versions[user_id]
            if not knows(version, record):
                due.settle(ModelUnavailable("there is nothing to encode"))
            elif (current := cached(record, version, int(read_at * 1e9)).within(0.0)) is not None:
                due.settle(current)
            elif self.encodes(version):
                by_version.setdefault(version.version, {})[user_id] = record
            else:
                self._without_encoder(user_id, due, version.version)
        for number, of_users in by_version.items():
            version = versions[next(iter(of_users))]
            try:
                answers = await self._encode(version, of_users, int(read_at))
            except ModelUnavailable as error:
                # Also one that fails or hangs: as long as it does, it is as good as none.
                self._find_gone(number, error)
                for user_id in of_users:
                    self._without_encoder(user_id, batch[user_id], number)
                continue
            self._gone.pop(number, None)
            self._queue.unpark(number)
            for user_id in of_users:
                nothing = ModelUnavailable("the encoder's answer is not finite")
                batch[user_id].settle(answers.get(user_id, nothing))
            async with asyncio.timeout(_STORE_TIMEOUT_S):
                await self._store.put_answers(answers)
            now = time.monotonic()
            for user_id in answers:
                self._queue.rest(user_id)
            self._metrics.refreshed([now - batch[user_id].since for user_id in answers])

    async def _encode(
        self, version: ServingVersion, records: dict[str, UserRecord], read_at: int
    ) -> dict[str, CachedAnswer]:
        rows = [Row(record, None, _ANYTHING) for record in records.values()]
        began = time.perf_counter()
        inputs = model_inputs(version, rows, read_at, ENCODER_INPUTS)
        vectors = await self._scorer.encode(version, inputs, timeout_s=_CALL_TIMEOUT_S)
        self._learn(version.version, (time.perf_counter() - began) / len(rows))
        finite = [bool(np.isfinite(vector).all()) for vector in vectors]
        if not all(finite):
            log.error("version %d: %d user vectors are not finite", version.version, finite.count(False))
        return {
            user_id: CachedAnswer(version.version, record.revision, read_at, vector, _NO_PAGE, False)
            for (user_id, record), vector, is_finite in zip(records.items(), vectors, finite, strict=True)
            if is_finite
        }

    def _learn(self, version: int, row_s: float) -> None:
        before = self._row_s.get(version, row_s)
        # One call that was held up says little of the next ones.
        self._row_s[version] = 0.8 * before + 0.2 * min(row_s, _MOST_TIMES * before)
        there_are = {version, *self._router.ready}
        self._row_s = {number: taken for number, taken in self._row_s.items() if number in there_are}
        self._queue.takes(max(self._row_s.values()))

    def _find_gone(self, version: int, error: Exception) -> None:
        if version not in self._gone:
            log.warning("version %d is encoded with its requests: %s", version, error)
        self._gone = {number: at for number, at in self._gone.items() if number in self._router.ready}
        self._gone[version] = time.monotonic()
        # One is tried again then, when `encodes` says yes; if there is an encoder, the others follow.
        if version not in self._trying:
            self._trying.add(version)
            asyncio.get_running_loop().call_later(_TRY_AGAIN_S, self._try_again, version)

    def _try_again(self, version: int) -> None:
        # Again and again: whoever is taken may need no encoding any more, and then proves nothing.
        if self._queue.keeps(version):
            self._queue.unpark(version, 1)
            asyncio.get_running_loop().call_later(_TRY_AGAIN_S, self._try_again, version)
        else:
            self._trying.discard(version)

    def _without_encoder(self, user_id: str, due: Due, version: int) -> None:
        due.settle(VersionGone(f"version {version} has no encoder"))
        self._queue.park(user_id, due, version)
