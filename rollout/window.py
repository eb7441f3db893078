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
"""Reports of gateways that are gone count in windows that began before; none is as long as this."""

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
    """The reports as they are.

    Raises:
        StoreUnavailable: the store does not answer.
    """
    reports: dict[str, Report] = {}
    for source, value in (await control.reports()).items():
        try:
            reports[source] = decode(value)
        except FiguresError as error:
            log.warning("the report of gateway %s is passed over: %s", source, error)
    return Look(now, reports)


async def drop_old_reports(control: ControlStore, seen: Look) -> None:
    """Forgets workers that have been gone for long."""
    await control.drop_reports(
        [source for source, report in seen.reports.items() if seen.at - report.at > _KEEP_S]
    )
