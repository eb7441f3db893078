"""One `Recommend` request, whole: which version → its answer → page, and what happens when one fails."""

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
from gateway.page import PageItem, PageRequest, fallback_page, model_page
from gateway.routing import Choice, Router
from gateway.vectors import Asked
from gateway.versions import ServingVersion

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
        started = time.perf_counter()
        if scored.keys is None:
            page = self._fallback(request, cohort, Degraded.COLD_START, scored.stages, scored.record)
        else:
            version = scored.version
            items = model_page(version.catalog, scored.keys, scored.scores, scored.reason_keys)
            degraded = Degraded.STALE_VECTOR if scored.stale else Degraded.NO
            page = Page(items, version.version, cohort, degraded, scored.stages)
            # Cohorts with a slash are the arms of an experiment. Whichever version answered: were users left
            # out while the version of their arm fails, the rest would not compare with the other arm's.
            if "/" in cohort:
                self.exposures.note(request.user_id, cohort)
        page.stages.page = _ms_since(started)
        return page

    async def _scored(self, request: PageRequest, choice: Choice, end: float) -> Scored:
        """The answer of the version chosen, or of the stable one if that is another one and the first fails.

        What an operator has pinned is never answered by another version.
        """
        first, cohort = choice.version, choice.cohort
        if first is None:
            raise ModelUnavailable("no version is ready in Triton")
        left_s = end - time.perf_counter()
        if cohort != PINNED and first is not self.router.serving and self.router.serving is not None:
            left_s *= _FIRST_SHARE
        try:
            return await self._ask(first, request, cohort, left_s)
        except ModelUnavailable:
            # Looked up only now: a stable version that has just gone is another one by now.
            stable = self.router.serving if cohort != PINNED else None
            left_s = end - time.perf_counter()
            if stable is None or stable.version == first.version or left_s <= 0:
                if cohort != PINNED:
                    self.figures.degraded(first.version)
                raise
        try:
            return await self._ask(stable, request, cohort, left_s)
        except ModelUnavailable:
            self.figures.degraded(stable.version)
            raise

    async def _ask(
        self, version: ServingVersion, request: PageRequest, cohort: str, timeout_s: float
    ) -> Scored:
        number, submitted = version.version, time.perf_counter()
        try:
            scored = await self.batches.of(number).submit(Asked(request, cohort, submitted), timeout_s)
        except StoreUnavailable:
            raise
        except Exception as error:
            if cohort != PINNED:
                self.figures.failed(number)
            if isinstance(error, ModelUnavailable):
                raise
            # A defect of ours, of one request in the batch perhaps: its neighbours get a page all the same.
            log.exception("a batch failed")
            raise ModelUnavailable(f"version {number}: {error!r}") from error
        if cohort == PINNED:
            return scored
        if scored.keys is not None:
            self.figures.answered(number, _ms_since(submitted))
        elif len(scored.record.keys):
            self.figures.cold(number)
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
