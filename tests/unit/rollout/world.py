"""A repository on disk, a stand-in for Triton and one for the gateways: what a driver is tried out in."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from features.figures import Histogram, Report, VersionFigures
from features.settings import Settings
from features.traffic import document_name, parse_traffic
from inference.control import READY
from inference.errors import LoadFailed, NoAnswer
from rollout.configuration import read_versions
from rollout.driver import Driver
from rollout.operate import Operator
from rollout.records import Records
from rollout.state import Bounds, Phase, Plan, Rollout
from tests.unit.fake_control import FakeControl
from tests.unit.rollout.published import write_version

CONFIG = 'name: "recommender"\nversion_policy { specific { versions: 1 } }\n'
PLAN = Plan(steps=(20, 100), step_s=1e-6, grace_s=0, shadow_percent=20, bounds=Bounds(min_calls=20))
SLOW_MS, USUAL_MS = 50.0, 2.0


class FakeTriton:
    """Loads what config.pbtxt lists, unless a version is broken."""

    def __init__(self, model_folder: Path) -> None:
        self.model_folder = model_folder
        self.stub = None
        self.running = True
        self.has = {1}
        self.broken: set[int] = set()
        self.deadly: set[int] = set()
        """Versions whose load takes Triton along."""
        self.loads = self.deaths = 0

    async def load(self, versions: Sequence[int] | None = None, *, timeout_s: float = 0) -> None:
        self._answers()
        self.loads += 1
        listed = set(read_versions(self.model_folder) if versions is None else versions)
        if listed & self.deadly:
            self.running, self.has, self.deaths = False, set(), self.deaths + 1
            raise NoAnswer("Triton does not answer: UNAVAILABLE Socket closed")
        if broken := listed & self.broken:  # all or nothing
            raise LoadFailed(f"Triton cannot load recommender: version {min(broken)} is corrupt")
        self.has = listed

    async def states(self) -> dict[int, tuple[str, str]]:
        self._answers()
        return dict.fromkeys(self.has, (READY, ""))

    def restart(self) -> None:
        """As the launcher does: the stable version first, then each other that can be loaded."""
        self.running, self.has = True, set(read_versions(self.model_folder)) - self.broken - self.deadly

    def _answers(self) -> None:
        if not self.running:
            raise NoAnswer("Triton does not answer: UNAVAILABLE")


@dataclass
class FakeGateway:
    """Calls what the record says, a hundred users between two reports, and reports it."""

    control: FakeControl
    triton: FakeTriton
    behaves: dict[int, str] = field(default_factory=dict)
    """Version → `fails`, `slow` or `different`, if it does not behave."""
    counted: dict[int, VersionFigures] = field(default_factory=dict)
    unanswered: Counter[int] = field(default_factory=Counter)
    """Version → calls that it was to answer when Triton did not have it, while Triton ran."""
    revision: int = 0
    deaf: bool = False
    lacks: frozenset[int] = frozenset()
    """Versions that it cannot call."""

    async def serve(self) -> None:
        document = self.control.documents.get(document_name("recommender"))
        if document is not None and not self.deaf:
            self.revision = document.revision
            self.traffic = parse_traffic(document.value)
        if self.revision:
            for user in range(100):
                version, cohort = self.traffic.choose(str(user))
                self._call(version)
                if cohort == "stable" and user % 5 == 0 and self.traffic.shadow_percent:
                    assert self.traffic.candidate is not None
                    self._shadow(self.traffic.candidate)
        ready = frozenset(self.triton.has) - self.lacks
        report = Report(time.time(), self.revision, ready, {}, self.counted)
        await self.control.put_report("gateway", report.encode())

    def _call(self, version: int) -> None:
        if self.triton.running and version not in self.triton.has:
            self.unanswered[version] += 1
        fails = not self.triton.running or self.behaves.get(version) == "fails"
        took = self._took(version)
        if self.behaves.get(version) == "foreign":
            self._add(version, VersionFigures(cold=1))
            return
        self._add(
            version,
            VersionFigures(
                calls=1,
                errors=int(fails),
                batches=1,
                failed_batches=int(fails),
                latency=took,
                model_cached=took,
            ),
        )

    def _shadow(self, version: int) -> None:
        different = self.behaves.get(version) == "different"
        fails = not self.triton.running or self.behaves.get(version) == "fails"
        self._add(
            version,
            VersionFigures(
                shadow_calls=1,
                shadow_errors=int(fails),
                shadow_batches=1,
                failed_shadow_batches=int(fails),
                pairs=int(not fails),
                overlap_sum=0.0 if different or fails else 0.8,
                ranked=int(not fails),
                correlation_sum=0.0 if fails else 0.7,
            ),
        )

    def _took(self, version: int) -> Histogram:
        took = Histogram()
        took.add([SLOW_MS if self.behaves.get(version) == "slow" else USUAL_MS])
        return took

    def _add(self, version: int, figures: VersionFigures) -> None:
        self.counted[version] = self.counted.get(version, VersionFigures()) + figures


class World:
    """All of it, and a way to let time go on."""

    def __init__(self, folder: Path) -> None:
        self.settings = Settings(
            state_dir=folder / "var", model_repository=folder, triton_address="127.0.0.1:1", keep_versions=2
        )
        self.model_folder = folder / "recommender"
        for version in (1, 2):
            write_version(self.model_folder, version)
        (self.model_folder / "config.pbtxt").write_text(CONFIG)
        self.control = FakeControl()
        self.triton = FakeTriton(self.model_folder)
        self.gateway = FakeGateway(self.control, self.triton)
        self.records = Records(self.control, "recommender")
        self.operator = Operator(self.settings, self.records)
        self.driver = self.new_driver()

    def new_driver(self) -> Driver:
        return Driver(self.settings, self.control, self.triton)  # type: ignore[arg-type]  # a stand-in

    async def turn(self) -> Rollout:
        """Gateways serve and the driver ticks, once; the record then."""
        await self.gateway.serve()
        with contextlib.suppress(NoAnswer):
            await self.driver.tick()
        return await self.operator.get()

    async def until(self, *phases: Phase, turns: int = 200) -> Rollout:
        for _ in range(turns):
            rollout = await self.turn()
            if rollout.phase in phases:
                return rollout
        raise AssertionError(f"still {rollout.phase} after {turns} turns: {rollout.history}")

    async def over(self) -> Rollout:
        """The record once the rollout is over, and Triton has what it is to have."""
        await self.until(Phase.IDLE, Phase.ROLLED_BACK)
        for _ in range(3):
            rollout = await self.turn()
        assert self.triton.has == set(rollout.loaded) == set(read_versions(self.model_folder))
        assert read_versions(self.model_folder)[0] == rollout.stable
        return rollout
