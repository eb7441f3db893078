"""One `Recommend` request, whole: which version → its page, and what happens when one fails."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from features.record import EMPTY_RECORD, UserRecord
from features.store import StoreUnavailable
from features.traffic import PINNED
from gateway.batches import Batches, Scored, Stages
from gateway.errors import ModelUnavailable
from gateway.exposures import Exposures
from gateway.figures import Figures
from gateway.page import PageItem, PageRequest, fallback_page
from gateway.routing import Choice, Router
from gateway.vectors import Asked

_FALLBACK_SHARE = 0.2
_FIRST_SHARE = 0.6
"""What part of the time a version gets that is not the stable one: the rest is for that one if it fails."""

log = logging.getLogger("riptide.gateway.recommend")


class Degraded(Enum):
    """Why a page is not the full answer of the model. The names are those of the .proto."""

    NO = "UNSPECIFIED"
    COLD_START = "COLD_START"
    MODEL_UNAVAILABLE = "MODEL_UNAVAILABLE"
    STORE_UNAVAILABLE = "STORE_UNAVAILABLE"
    STALE_VECTOR = "STALE_VECTOR"


class Page(NamedTuple):
    """What `Recommend` answers."""

    items: list[PageItem]
    version: int
    """That answered, or whose catalogue the fallback came from."""
    cohort: str
    """That the call belongs to, also if the stable version has answered in the place of another one."""
    degraded: Degraded
    stages: Stages
    wire: bytes | None = None
    """`items`, serialized, if they are already."""


@dataclass(frozen=True, eq=False)
class Recommend:
    """The request path of one worker."""

    router: Router
    batches: Batches
    figures: Figures
    exposures: Exposures

    async def page(self, request: PageRequest, timeout_s: float, pinned: int | None = None) -> Page:
        """The page for a request: always one, whatever fails.

        Args:
            request: checked against the serving version's catalogue.
            timeout_s: the most that may be spent waiting for the store and the model.
            pinned: the version that an operator asks for.
        """
        began = time.perf_counter()
        choice = self.router.choose(request.user_id, pinned)
        cohort = choice.cohort
        try:
            scored = await self._scored(request, choice, began + timeout_s)
        except StoreUnavailable as error:
            log.warning("fallback page: %s", error)
            stages = Stages(features=_ms_since(began))
            return self._fallback(request, cohort, Degraded.STORE_UNAVAILABLE, stages)
        except ModelUnavailable as error:
            log.debug("fallback page: %s", error)
            return await self._without_model(request, cohort, timeout_s, Stages(model=_ms_since(began)))
        if scored.items is None:
            started = time.perf_counter()
            page = self._fallback(request, cohort, Degraded.COLD_START, scored.stages, scored.record)
            page.stages.page = _ms_since(started)
            return page
        # Cohorts with a slash are the arms of an experiment. Whichever version answered: were users left
        # out while the version of their arm fails, the rest would not compare with the other arm's.
        if "/" in cohort:
            self.exposures.note(request.user_id, cohort)
        degraded = Degraded.STALE_VECTOR if scored.stale else Degraded.NO
        return Page(scored.items, scored.version.version, cohort, degraded, scored.stages, scored.wire)

    async def _scored(self, request: PageRequest, choice: Choice, end: float) -> Scored:
        """The answer of the version chosen, or of the stable one if that is another one and the first fails.

        What an operator has pinned is never answered by another version.
        """
        version, cohort = choice
        if version is None:
            raise ModelUnavailable("no version is ready in Triton")
        left_s = end - time.perf_counter()
        if cohort != PINNED and version is not self.router.serving and self.router.serving is not None:
            left_s *= _FIRST_SHARE
        first = version
        while True:
            asked = Asked(request, cohort, time.perf_counter())
            try:
                scored = await self.batches.of(version.version).submit(asked, left_s)
            except StoreUnavailable:
                raise
            except Exception as error:
                if cohort != PINNED:
                    self.figures.failed(version.version)
                if not isinstance(error, ModelUnavailable):
                    # A defect of ours. The caller gets a page all the same.
                    log.exception("a call failed")
                # Looked up only now: a stable version that has just gone is another one by now.
                stable = self.router.serving if cohort != PINNED and version is first else None
                left_s = end - time.perf_counter()
                if stable is None or stable.version == first.version or left_s <= 0:
                    if cohort != PINNED:
                        self.figures.degraded(version.version)
                    if isinstance(error, ModelUnavailable):
                        raise
                    raise ModelUnavailable(f"version {version.version}: {error!r}") from error
                version = stable
                continue
            if scored.items is None and len(scored.record.keys) and cohort != PINNED:
                self.figures.cold(version.version)
            return scored

    async def _without_model(
        self, request: PageRequest, cohort: str, timeout_s: float, stages: Stages
    ) -> Page:
        try:
            # What was left to the model is spent; a fraction of it again still leaves the caller's deadline.
            [record] = await self.batches.read([request.user_id], timeout_s * _FALLBACK_SHARE)
        except StoreUnavailable:
            return self._fallback(request, cohort, Degraded.STORE_UNAVAILABLE, stages)
        return self._fallback(request, cohort, Degraded.MODEL_UNAVAILABLE, stages, record)

    def _fallback(
        self,
        request: PageRequest,
        cohort: str,
        why: Degraded,
        stages: Stages,
        record: UserRecord = EMPTY_RECORD,
    ) -> Page:
        router = self.router
        items = fallback_page(request, router.catalog, record, router.catalog_consumes)
        return Page(items, router.catalog_version, cohort, why, stages)


def _ms_since(began: float) -> float:
    return (time.perf_counter() - began) * 1000
