"""The request path of a worker, put together from fakes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, cast

from client.riptide.v1 import recommender_pb2 as pb
from features.catalog import Catalog
from features.figures import VersionFigures
from features.store import FeatureStore
from gateway.answers import Answers
from gateway.batches import Batches
from gateway.exposures import Exposures
from gateway.figures import Figures
from gateway.metrics import Metrics
from gateway.page import Page, PageRequest
from gateway.recommend import Recommend
from gateway.refresher import Refresher
from gateway.routing import Router
from gateway.scorer import Scorer
from gateway.shadow import Shadow
from gateway.vectors import Vectors
from gateway.wire import Lines
from tests.unit.gateway.fakes import FakeRouter, FakeScorer, FakeStore, serving_version


def shown(page: Page) -> Sequence[pb.RecommendedItem]:
    """The lines of a page, as their caller reads them."""
    return pb.RecommendResponse.FromString(page.wire).items


def ids(page: Page) -> list[str]:
    """The ids of its items, best first."""
    return [item.item_id for item in shown(page)]


def stages(page: Page) -> pb.StageTimes:
    """What it says of where its time went."""
    return pb.RecommendResponse.FromString(page.wire).stages_ms


class RequestPath:
    """A request path of fakes, with the versions 7 (stable) and 8."""

    def __init__(
        self, catalog: Catalog, fake_store: FakeStore | None = None, fake_scorer: FakeScorer | None = None
    ) -> None:
        self.store, self.scorer = fake_store or FakeStore(), fake_scorer or FakeScorer()
        self.router = FakeRouter(serving_version(7, catalog), serving_version(8, catalog))
        self.figures, self.exposures = Figures(), Exposures(self.store.control)
        router, store, scorer = (
            cast(Router, self.router),
            cast(FeatureStore, self.store),
            cast(Scorer, self.scorer),
        )
        self.metrics = Metrics()
        self.shadow = Shadow(router, scorer, self.figures, self.metrics, timeout_s=5)
        self.refresher = Refresher(store, router, scorer, self.metrics)
        self.batches = Batches(
            store,
            router,
            scorer,
            self.metrics,
            self.figures,
            Answers(store),
            self.shadow,
            Vectors(self.refresher, self.metrics),
            Lines(),
            max_batch=64,
            join=True,
        )
        self.recommend = Recommend(router, self.batches, self.figures, self.exposures)
        self.saw = self.store.saw

    async def page(
        self, user: str, limit: int = 3, timeout_s: float = 5, pinned: int | None = None, **fields: Any
    ) -> Page:
        return await self.recommend.page(
            PageRequest(user, limit, came=time.perf_counter(), **fields), timeout_s, pinned
        )

    def counted(self, version: int) -> tuple[int, int, int]:
        """Calls, errors and degraded ones of a version."""
        figures = self.figures.flush().get(version, VersionFigures())
        return figures.calls, figures.errors, figures.degraded
