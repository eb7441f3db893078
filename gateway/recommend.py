"""One `Recommend` request, whole: which version → its page, and what happens when one fails."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass

from features.record import EMPTY_RECORD, UserRecord
from features.store import StoreUnavailable
from features.traffic import PINNED
from gateway.batches import Batches, Unknown
from gateway.errors import ModelUnavailable
from gateway.exposures import Exposures
from gateway.figures import Figures
from gateway.page import Degraded, Page, PageRequest, Stages, fallback_page
from gateway.routing import Router
from gateway.vectors import Asked
from gateway.versions import ServingVersion
from gateway.wire import response

_FALLBACK_SHARE = 0.2
_FIRST_SHARE = 0.6
"""What part of the time a version gets that is not the stable one: the rest is for that one if it fails."""

log = logging.getLogger("riptide.gateway.recommend")


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
        version, cohort = self.router.choose(request.user_id, pinned)
        try:
            if version is None:
                raise ModelUnavailable("no version is ready in Triton")
            found = await self._found(request, version, cohort, began, timeout_s)
        except StoreUnavailable as error:
            log.warning("fallback page: %s", error)
            stages = Stages(features=_ms_since(began))
            return self._fallback(request, cohort, Degraded.STORE_UNAVAILABLE, stages)
        except ModelUnavailable as error:
            log.debug("fallback page: %s", error)
            return await self._without_model(request, cohort, timeout_s, Stages(model=_ms_since(began)))
        if isinstance(found, Unknown):
            return self._fallback(request, cohort, Degraded.COLD_START, found.stages, found.record)
        # Cohorts with a slash are the arms of an experiment. Whichever version answered: were users left
        # out while the version of their arm fails, the rest would not compare with the other arm's.
        if "/" in cohort:
            self.exposures.note(request.user_id, cohort)
        return found

    async def _found(
        self, request: PageRequest, version: ServingVersion, cohort: str, began: float, timeout_s: float
    ) -> Page | Unknown:
        """The answer of the version chosen, or of the stable one if that is another one and the first fails.

        What an operator has pinned is never answered by another version.
        """
        left_s, router = timeout_s, self.router
        if version is not router.serving and cohort != PINNED and router.serving is not None:
            left_s *= _FIRST_SHARE
        first = version
        while True:
            asked = Asked(request, cohort, time.perf_counter())
            try:
                found = await self.batches.of(version.version).submit(asked, left_s)
            except StoreUnavailable:
                raise
            except Exception as error:
                if cohort != PINNED:
                    self.figures.failed(version.version)
                if not isinstance(error, ModelUnavailable):
                    # A defect of ours. The caller gets a page all the same.
                    log.exception("a call failed")
                # Looked up only now: a stable version that has just gone is another one by now.
                stable = router.serving if cohort != PINNED and version is first else None
                left_s = began + timeout_s - time.perf_counter()
                if stable is None or stable.version == first.version or left_s <= 0:
                    if cohort != PINNED:
                        self.figures.degraded(version.version)
                    if isinstance(error, ModelUnavailable):
                        raise
                    raise ModelUnavailable(f"version {version.version}: {error!r}") from error
                version = stable
                continue
            if isinstance(found, Unknown) and len(found.record.keys) and cohort != PINNED:
                self.figures.cold(version.version)
            return found

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
        router, started = self.router, time.perf_counter()
        items = fallback_page(request, router.catalog, record, router.catalog_consumes)
        lines, version = self.batches.lines.of(router.catalog).wire(items), router.catalog_version
        stages = stages._replace(page=_ms_since(started), total=_ms_since(request.came))
        if request.trace is not None:
            request.trace.past("page", started, time.perf_counter())
        wire = response(router.name, version, cohort, why, request.request_id, stages, lines)
        return Page(wire, version, cohort, why)


def _ms_since(began: float) -> float:
    return (time.perf_counter() - began) * 1000
