"""The arguments of `python -m rollout`."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from inference.model_config import PROFILES
from rollout.state import Bounds, Plan

_USAGE = "python -m rollout {} [OPTION ...]; --help lists them"
_UNITS_S = {"s": 1.0, "m": 60.0, "h": 3600.0, "": 1.0}
_BOUNDS, _PLAN = Bounds(), Plan()
OPTIONS = {
    "step_s": "--step-time",
    "grace_s": "--grace",
    "shadow_percent": "--shadow",
    "error_rate": "--max-error-rate",
    "cold_rate": "--max-cold-rate",
    "latency_ratio": "--max-latency-ratio",
    "overlap": "--min-overlap",
    "drift": "--max-drift",
    "min_calls": "--min-calls",
    "steps": "--steps",
    "name": "--name",
}
"""Fields of a plan and the options that fill them."""


def parser() -> argparse.ArgumentParser:
    """The parser; its result has `command`."""
    top = argparse.ArgumentParser(prog="python -m rollout", description="Versions of the served model.")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    one = commands.add_parser("publish", help="make an export a version in the model repository")
    one.add_argument(
        "--export", type=Path, help="the export folder; without it, the newest below var/exports"
    )
    one.add_argument("--version", type=number, help="the version number; without it, the next one")
    one.add_argument("--profile", choices=sorted(PROFILES), default="cpu", help="what Triton runs it on")
    one.add_argument("--if-new", action="store_true", help="do nothing if it is the newest version already")
    one.add_argument(
        "--serve", action="store_true", help="make it the stable version at once, without a rollout"
    )
    commands.add_parser("versions", help="list the published versions")
    one = commands.add_parser("prune", help="delete old versions that are not in use")
    one.add_argument("--keep", type=number, help="newest versions that stay (or RIPTIDE_KEEP_VERSIONS)")
    commands.add_parser("drive", help="the driver: moves rollouts on, serves operators; until SIGTERM")

    one = commands.add_parser(
        "start", help="roll a version out, and follow it until it is over", usage=_USAGE.format("start")
    )
    one.add_argument(
        "--steps",
        type=_steps,
        default=_PLAN.steps,
        metavar="PERCENTS",
        help="shares of the users, one after the other (1,5,25,100)",
    )
    one.add_argument("--grace", type=_seconds, default=_PLAN.grace_s, help="the version before stays so long")
    _add_candidate(one)
    one = commands.add_parser("status", help="where the rollout stands")
    one.add_argument("--json", action="store_true", help="the whole record")
    one = commands.add_parser("set", help="give the candidate a share of the users, and hold there")
    one.add_argument("percent", type=_percent)
    _add_meant(one)
    _add_meant(commands.add_parser("promote", help="make the candidate the stable version now"))
    one = commands.add_parser("rollback", help="all traffic back to the version before")
    one.add_argument("--reason", default="an operator rolled it back")
    _add_meant(one)
    commands.add_parser("discard", help="unload a candidate that was rolled back")
    commands.add_parser("watch", help="the figures of each version, until Ctrl-C")

    one = commands.add_parser(
        "experiment",
        help="split the users between the stable version and another",
        usage=_USAGE.format("experiment"),
    )
    one.add_argument("--name", required=True, help="small letters, digits and -")
    one.add_argument("--percent", type=_percent, default=50.0, help="share of the users in the treatment arm")
    _add_candidate(one)
    commands.add_parser("end-experiment", help="all users meet the stable version again")
    one = commands.add_parser("report", help="what an experiment has shown")
    one.add_argument("--name", required=True)
    return top


def _add_meant(one: argparse.ArgumentParser) -> None:
    one.add_argument("--version", type=number, help="the version that is meant; refused if it is another one")


def _add_candidate(one: argparse.ArgumentParser) -> None:
    one.add_argument("--version", type=number, help="the version; without it, the newest one")
    one.add_argument(
        "--shadow", type=_percent, default=_PLAN.shadow_percent, help="share of the requests answered unseen"
    )
    one.add_argument("--step-time", type=_seconds, default=_PLAN.step_s, help="least time at each step (60s)")
    one.add_argument("--detach", action="store_true", help="do not follow it")
    one.add_argument(
        "--max-error-rate", type=float, default=_BOUNDS.error_rate, help="beyond the stable one's"
    )
    one.add_argument("--max-cold-rate", type=float, default=_BOUNDS.cold_rate, help="beyond the stable one's")
    one.add_argument("--max-latency-ratio", type=float, default=_BOUNDS.latency_ratio, help="of the p99s")
    one.add_argument("--min-overlap", type=float, default=_BOUNDS.overlap, help="of the top 10, from 0 to 1")
    one.add_argument(
        "--max-drift", type=float, default=_BOUNDS.drift, help="of the order: 1 is chance, 2 reversed"
    )
    one.add_argument("--min-calls", type=number, default=_BOUNDS.min_calls, help="before it may pass a step")


def plan_of(arguments: argparse.Namespace) -> Plan:
    """The plan that `start` or `experiment` was given.

    Raises:
        ValidationError: a value is out of its bounds.
    """
    given = {"shadow_percent": arguments.shadow, "step_s": arguments.step_time}
    if arguments.command == "start":
        given |= {"steps": arguments.steps, "grace_s": arguments.grace}
    bounds = Bounds(
        error_rate=arguments.max_error_rate,
        cold_rate=arguments.max_cold_rate,
        latency_ratio=arguments.max_latency_ratio,
        overlap=arguments.min_overlap,
        drift=arguments.max_drift,
        min_calls=arguments.min_calls,
    )
    return Plan(**given, bounds=bounds)


def number(text: str) -> int:
    """A whole number from 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1, not {text!r}")
    return int(text)


def _percent(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 100:
        raise argparse.ArgumentTypeError(f"must be a number from 0 to 100, not {text!r}")
    return value


def _steps(text: str) -> tuple[float, ...]:
    return tuple(_percent(part) for part in text.split(","))


def _seconds(text: str) -> float:
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([smh]?)", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"must be a time such as 30s, 5m or 1h, not {text!r}")
    return float(match[1]) * _UNITS_S[match[2]]
