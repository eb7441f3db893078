"""What all gateways together have counted since some moment."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass

from features.control import ControlStore
from features.figures import FiguresError, Report, VersionFigures, decode

FRESH_S = 3.0
"""A gateway that has not reported for so long is gone, or cannot reach the store."""

_KEEP_S = 3600.0
"""Reports of gateways that are gone count for so long in windows that began before."""

log = logging.getLogger("riptide.rollout")


@dataclass(frozen=True, slots=True)
class Look:
    """The reports of all workers at one moment."""

    at: float
    """Unix seconds."""
    reports: Mapping[str, Report]

    @property
    def fresh(self) -> list[Report]:
        """The reports of the workers that are there now."""
        return [report for report in self.reports.values() if self.at - report.at <= FRESH_S]

    def since(self, before: Look) -> dict[int, VersionFigures]:
        """Version → what was counted between the two looks."""
        sums: dict[int, VersionFigures] = {}
        for source, report in self.reports.items():
            earlier = before.reports.get(source)
            for version, figures in report.versions.items():
                known = earlier.versions.get(version) if earlier is not None else None
                counted = figures - known if known is not None else figures
                sums[version] = sums[version] + counted if version in sums else counted
        return sums

    def refusal(self, version: int) -> str | None:
        """Why a gateway cannot call a version that Triton has ready; None if none says so."""
        return next((report.refused[version] for report in self.fresh if version in report.refused), None)

    def obeyed(self, revision: int) -> bool:
        """Whether every worker follows the record's `revision`, or a later one."""
        return all(report.revision >= revision for report in self.fresh)


async def look(control: ControlStore, now: float) -> Look:
    """The reports as they are. Those of another release, which cannot be read, are passed over.

    Raises:
        StoreUnavailable: the store does not answer.
    """
    reports, _ = await _read(control)
    return Look(now, reports)


async def drop_old_reports(control: ControlStore, now: float) -> None:
    """Forgets workers that have been gone for long, and reports that cannot be read, which it tells.

    A worker of another release writes its report again: it is told of again, too.
    """
    reports, unreadable = await _read(control)
    for source, problem in unreadable.items():
        log.warning("the report of gateway %s cannot be read: %s", source, problem)
    old = [source for source, report in reports.items() if now - report.at > _KEEP_S]
    await control.drop_reports([*old, *unreadable])


async def _read(control: ControlStore) -> tuple[dict[str, Report], dict[str, str]]:
    reports: dict[str, Report] = {}
    unreadable: dict[str, str] = {}
    for source, value in (await control.reports()).items():
        try:
            reports[source] = decode(value)
        except FiguresError as error:
            unreadable[source] = str(error)
    return reports, unreadable
