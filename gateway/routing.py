"""Which version a call goes to.

The rollout record in the online store says it: the stable version, what share of the users meets another one,
and which users those are. The version is pinned on every call: left unpinned, Triton answers with the highest
one that is ready, and a canary would get everything. Without a record the highest ready version is stable.
While none can be called, the catalogue of the one served last (at start: of the record's stable one, or the
newest published) feeds the fallback pages.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import NamedTuple

import grpc

from features.catalog import Catalog, CatalogError
from features.control import ControlStore, Document
from features.settings import Settings
from features.store import StoreUnavailable
from features.traffic import PINNED, STABLE, Traffic, TrafficError, document_name, parse_traffic
from gateway.versions import ServingVersion, Versions

_LOOK_INTERVAL_S = 0.25
_READ_TIMEOUT_S = 2.0

log = logging.getLogger("riptide.gateway.routing")


class RoutingError(Exception):
    """Nothing can be shown to anybody: no version is published, or no catalogue can be read."""


class Choice(NamedTuple):
    """Where a call goes."""

    version: ServingVersion | None
    """None: no version can be called."""
    cohort: str
    """Why this version, as the .proto lists it. It is the user's cohort also if another version stands in."""


class Router:
    """Knows the versions and the record, and chooses. `look_for_good` runs beside the server."""

    def __init__(self, settings: Settings, channel: grpc.aio.Channel, control: ControlStore) -> None:
        """Opens the newest catalogue that can be read.

        Raises:
            RoutingError: no version is published, or no catalogue can be read.
        """
        self._versions = Versions(settings, channel)
        self._control = control
        self._document = Document(0, b"")
        self._traffic: Traffic | None = None
        self._problem = ""
        self.revision = 0
        """Of the record that is obeyed; 0: there is none, or it has not been seen yet."""
        self.serving: ServingVersion | None = None
        """The stable version, or what stands in for it; None while no version may get all calls."""
        self.shadowed: tuple[ServingVersion, float] | None = None
        """The candidate that answers requests of the stable version unseen, and what share of them, in %."""
        self._everyone: Choice | None = Choice(None, STABLE)
        """Where calls go that need no look at their user; None while users are told apart."""
        self.catalog_version, self.catalog = self._newest_catalog()
        self.catalog_consumes = self._versions.consumes(self.catalog_version)
        # `catalog` is for titles, filters and fallback pages, `catalog_version` is whose it is: that of the
        # serving version, or of the one before that went. `catalog_consumes` is what that version `consumes`.

    @property
    def name(self) -> str:
        """The model's name in Triton."""
        return self._versions.name

    @property
    def ready(self) -> Mapping[int, ServingVersion]:
        """The versions that can be called."""
        return self._versions.ready

    @property
    def catalogs(self) -> Sequence[Catalog]:
        """`catalog`, then those of the other versions that can be called: users see their items, too."""
        others = (version.catalog for version in self.ready.values() if version is not self.serving)
        return self.catalog, *others

    @property
    def refused(self) -> Mapping[int, str]:
        """Versions that are ready in Triton and cannot be called, and why."""
        return self._versions.refused

    @property
    def shares(self) -> tuple[int, int, float]:
        """The stable version, the one beside it (0: none), and the share of the users that this one has, in
        %, as the record wants it; without a record the version that is served stands for the stable one."""
        traffic = self._traffic
        if traffic is None:
            return self.catalog_version, 0, 0.0
        if (experiment := traffic.experiment) is not None:
            return experiment.control, experiment.treatment, experiment.percent
        return traffic.stable, traffic.candidate or 0, traffic.percent

    @property
    def answering(self) -> frozenset[tuple[int, str]]:
        """Versions and cohorts that pages can name, but for what operators pin: also those of the version
        that stands in for the stable one, or whose fallback pages are shown.
        """
        meant = self._traffic.answering if self._traffic is not None else frozenset()
        cohorts = {cohort for _, cohort in meant} or {STABLE}
        return meant | {(self.catalog_version, cohort) for cohort in cohorts}

    def choose(self, user_id: str, pinned: int | None = None) -> Choice:
        """Where a call of this user goes, or one for which an operator has `pinned` a version."""
        if pinned is not None:
            return Choice(self.ready.get(pinned), PINNED)
        if self._everyone is not None:
            return self._everyone
        assert self._traffic is not None, "only a record tells users apart"
        meant, cohort = self._traffic.choose(user_id)
        return Choice(self.ready.get(meant) or self.serving, cohort)

    def gone(self, version: ServingVersion, reason: str) -> None:
        """Notes what a call was told: the version is no longer there. The next look may find it again."""
        self._versions.drop(version, reason)
        self._settle()

    async def look_for_good(self) -> None:
        """Looks again and again until cancelled. A Triton that hangs keeps no record from being obeyed."""
        async with asyncio.TaskGroup() as both:
            both.create_task(_again_and_again(self.look_at_record))
            both.create_task(_again_and_again(self.look_at_triton))

    async def look(self) -> None:
        """Reads the record, and asks Triton what is ready."""
        await self.look_at_record()
        await self.look_at_triton()

    async def look_at_triton(self) -> None:
        """Asks Triton which versions are ready."""
        await self._versions.look()
        self._settle()

    async def look_at_record(self) -> None:
        """Reads the rollout record. One that cannot be read leaves the one before in force."""
        try:
            async with asyncio.timeout(_READ_TIMEOUT_S):
                document = await self._control.read_document(document_name(self.name))
            changed = document != self._document
            traffic = parse_traffic(document.value) if changed and document.revision else None
        except (StoreUnavailable, TimeoutError, TrafficError) as error:
            problem = str(error) or "no answer in time"
            if problem != self._problem:  # else it would be said four times a second
                log.error("the rollout record is not read, and stays as it was: %s", problem)
            self._problem = problem
            return
        self._problem = ""
        if not changed:
            return
        self._document, self._traffic, self.revision = document, traffic, document.revision
        log.info("revision %d of the rollout record: %s", self.revision, traffic)
        self._settle()
        if self.serving is None and traffic is not None:
            self._show(traffic.stable)

    def _settle(self) -> None:
        """Brings what `choose` needs up to date with the record and the versions."""
        traffic, ready = self._traffic, self.ready
        serving, candidate, split = None, None, False
        on_trial: set[int | None] = set()
        if traffic is not None:
            serving = ready.get(traffic.stable)
            candidate = ready.get(traffic.candidate) if traffic.candidate is not None else None
            on_trial = {traffic.candidate}
            split = traffic.candidate is not None and traffic.percent > 0
            if traffic.experiment is not None:
                on_trial.add(traffic.experiment.treatment)
                split = True
        if serving is None:
            # What is on trial must not get everybody because the stable version is not there.
            serving = ready.get(max(ready.keys() - on_trial, default=0))
        self._everyone = None if split else Choice(serving, STABLE)
        shadow_percent = traffic.shadow_percent if traffic is not None else 0.0
        self.shadowed = (candidate, shadow_percent) if candidate is not None and shadow_percent > 0 else None
        if serving is not self.serving:
            self.serving = serving
            if serving is None:
                log.warning("model unavailable: no version may be called for everybody")
            else:
                log.info("serving %s version %d", self.name, serving.version)
        if serving is not None:
            # The catalogue before is not closed: requests in flight still read it. It goes with them.
            self.catalog_version, self.catalog = serving.version, serving.catalog
            self.catalog_consumes = serving.consumes

    def _show(self, version: int) -> None:
        try:
            self.catalog_version, self.catalog = version, self._versions.catalog(version)
            self.catalog_consumes = self._versions.consumes(version)
        except CatalogError as error:
            log.error("fallback pages are those of version %d: %s", self.catalog_version, error)

    def _newest_catalog(self) -> tuple[int, Catalog]:
        problem = f"{self._versions.folder}: no published version; run make publish"
        for version in self._versions.published():
            try:
                return version, self._versions.catalog(version)
            except CatalogError as error:
                problem = str(error)
        raise RoutingError(problem)


async def _again_and_again(look: Callable[[], Awaitable[None]]) -> None:
    while True:
        await look()
        await asyncio.sleep(_LOOK_INTERVAL_S)
