"""No order of events, refreshes, pages, rollouts and forgetting shows a page of a vector not to be used.

Two gateways share a store. Refreshes are held between their read of the store and their write, so that
everything else happens in between. A vector tells by itself which version and which history it is of
(`fakes.encoding`).
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from numpy.typing import NDArray

from features.record import CachedAnswer, Event
from features.schema import EventType
from gateway.encoder_queue import Due
from gateway.page import Degraded
from gateway.scorer import Scores
from gateway.versions import ServingVersion
from tests.unit.gateway.conftest import numbered_catalog
from tests.unit.gateway.fakes import FakeScorer, FakeStore, encoding
from tests.unit.gateway.request_path import RequestPath

USERS = ("u", "v")
WINDOW = 4
"""Events that a version reads."""


class _Scorer(FakeScorer):
    """Answers `encoding` vectors in requests too, and remembers what was sent and answered."""

    def __init__(self) -> None:
        super().__init__()
        self.held: list[asyncio.Event] = []
        self.holds = False

    async def encode(
        self, version: ServingVersion, inputs: dict[str, NDArray[Any]], *, timeout_s: float
    ) -> NDArray[np.float32]:
        if self.holds:
            gate = asyncio.Event()
            self.held.append(gate)
            await gate.wait()
        return await super().encode(version, inputs, timeout_s=timeout_s)

    async def score(self, version: ServingVersion, inputs: dict[str, NDArray[Any]], **asked: Any) -> Scores:
        scores = await super().score(version, inputs, **asked)
        if scores.user_vector is None:
            return scores
        histories = [[key for key in row if key] for row in inputs["history_keys"].tolist()]
        vectors = np.stack([encoding(version.version, history) for history in histories])
        fresh = inputs["user_vector_fresh"] != 0
        return replace(scores, user_vector=np.where(fresh, inputs["user_vector"], vectors))


class Freshness(RuleBasedStateMachine):
    """Users with few items, two versions, two gateways, of which one may be strict and one bounded."""

    @initialize(policies=st.tuples(*[st.sampled_from([0.0, 1000.0])] * 2))
    def begin(self, policies: tuple[float, float]) -> None:
        self.runner = asyncio.Runner()
        self.folder = TemporaryDirectory()
        self.store = FakeStore()
        self.store.keeps = True
        self.gateways: list[RequestPath] = []
        self.policies = policies
        self.clock = 0
        # What each user's history was at each revision, and the newest answer that was ever kept.
        self.histories: dict[tuple[str, int], list[int]] = {}
        self.newest: dict[str, tuple[int, int, int]] = {}
        self.pending: list[tuple[_Scorer, asyncio.Event, asyncio.Task[None]]] = []
        self.runner.run(self._begin())

    async def _begin(self) -> None:
        catalog = numbered_catalog(Path(self.folder.name) / "catalog.lmdb")
        for max_lag_s in self.policies:
            path = RequestPath(catalog, self.store, _Scorer())
            path.router.ready = {
                number: replace(version, max_lag_s=max_lag_s) for number, version in path.router.ready.items()
            }
            path.router.serving = path.router.ready[7]
            self.gateways.append(path)

    @rule(user=st.sampled_from(USERS), item=st.integers(0, 9), gateway=st.integers(0, 1))
    def record_event(self, user: str, item: int, gateway: int) -> None:
        self.clock += 1
        self.runner.run(self.store.append([Event(user, str(item), EventType.CLICK, self.clock)]))
        record = self.store.records[user]
        self.histories[user, record.revision] = record.keys[-WINDOW:].tolist()

    @rule(user=st.sampled_from(USERS))
    def forget(self, user: str) -> None:
        self.runner.run(self.store.forget(user))
        self.newest.pop(user, None)

    @rule(user=st.sampled_from(USERS), gateway=st.integers(0, 1))
    def begin_refresh(self, user: str, gateway: int) -> None:
        self.runner.run(self._begin_refresh(user, gateway))

    async def _begin_refresh(self, user: str, gateway: int) -> None:
        path = self.gateways[gateway]
        scorer = path.scorer
        assert isinstance(scorer, _Scorer)
        scorer.holds = True
        before = len(scorer.held)
        version = path.router.serving
        assert version is not None
        task = asyncio.create_task(path.refresher._refresh({user: Due(0.0)}, {user: version}))
        for _ in range(5):
            await asyncio.sleep(0)
        scorer.holds = False
        if len(scorer.held) > before:
            self.pending.append((scorer, scorer.held[-1], task))
        else:
            await task  # there was nothing to encode

    @rule(data=st.data())
    def end_a_refresh(self, data: st.DataObject) -> None:
        if self.pending:
            place = data.draw(st.integers(0, len(self.pending) - 1))
            _, gate, task = self.pending.pop(place)
            gate.set()
            self.runner.run(self._finish(task))

    async def _finish(self, task: asyncio.Task[None]) -> None:
        await task

    @rule(gateway=st.integers(0, 1), version=st.sampled_from([7, 8]))
    def roll_out(self, gateway: int, version: int) -> None:
        """One gateway hears of it; the other one may later."""
        router = self.gateways[gateway].router
        router.serving = router.ready[version]

    @rule(user=st.sampled_from(USERS), gateway=st.integers(0, 1))
    def recommend(self, user: str, gateway: int) -> None:
        path = self.gateways[gateway]
        if user not in self.store.records:
            return
        self.runner.run(self._recommend(path, user, self.policies[gateway]))

    async def _recommend(self, path: RequestPath, user: str, max_lag_s: float) -> None:
        record = self.store.records[user]
        serving = path.router.serving
        assert serving is not None
        refreshing = asyncio.create_task(path.refresher.run_for_good())
        page = await path.page(user)
        await path.batches.answers.close()
        refreshing.cancel()
        await asyncio.gather(refreshing, return_exceptions=True)
        assert page.degraded is Degraded.NO
        [inputs] = path.scorer.calls[-1:]
        version = path.scorer.versions[-1]
        assert version == serving.version
        whole = record.keys[-WINDOW:].tolist()
        assert [key for key in inputs["history_keys"][0].tolist() if key] == whole
        # Whatever the vector knows, what the user has had is not shown again.
        assert set(record.keys.tolist()) <= set(inputs["exclude_keys"][0].tolist())
        if inputs["user_vector_fresh"][0, 0]:
            vector = inputs["user_vector"][0].tolist()
            of_this_version = [
                encoding(version, history).tolist()
                for (of, _), history in self.histories.items()
                if of == user
            ]
            assert vector in of_this_version
            if max_lag_s == 0.0:
                assert vector == encoding(version, whole).tolist()

    @invariant()
    def what_is_kept_is_what_it_says(self) -> None:
        for user, record in getattr(self, "store", FakeStore()).records.items():
            answer = record.answer
            if answer is None:
                continue
            history = self.histories[user, answer.revision]
            assert answer.vector.tolist() == encoding(answer.version, history).tolist()
            assert (answer.behind_since == 0) == (answer.revision == record.revision)
            assert record.born <= answer.revision <= record.revision
            assert _order(answer) >= self.newest.get(user, (0, 0, 0))
            self.newest[user] = _order(answer)

    def teardown(self) -> None:
        if not hasattr(self, "runner"):
            return
        for _, gate, task in self.pending:
            gate.set()
            self.runner.run(self._finish(task))
        self.runner.close()
        self.folder.cleanup()


def _order(answer: CachedAnswer) -> tuple[int, int, int]:
    return answer.revision, answer.computed_at, answer.version


TestFreshness = Freshness.TestCase
TestFreshness.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
