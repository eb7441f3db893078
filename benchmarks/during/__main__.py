"""`python -m benchmarks.during rollout|triton|store`: load while that happens, and what callers see of it.

On what `make up` has started: Locust's open loop, and in the middle of it a rollout, the death of Triton, or
a store that is slow for some seconds, three times. The report of the load test says what happened when, and
has the figures between those marks. It is kept with them in `var/during/`.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from benchmarks.during.level import judged_outside, set_apart
from benchmarks.during.load import JUDGED, Load, running_load
from benchmarks.during.rollout import RolledOut
from benchmarks.during.store import SlowStore
from benchmarks.during.triton import TritonKilled
from benchmarks.errors import BenchmarkError, translated
from benchmarks.locust_command import why_refused
from benchmarks.processes import serves_model
from features.settings import Settings, load_settings
from features.state_folder import make_state_folder
from loadtest.slo import DEFAULT

_OURS = ("--marks", "--slo", "--host", "-H")


class Scenario(Protocol):
    """Something that happens under load."""

    promises_no_failure: bool
    """Not even as few failed calls as the service level allows."""
    degrades: bool
    """Between its marks pages may be degraded, all of them."""

    def prepare(self) -> None:
        """Before there is load.

        Raises:
            BenchmarkError: it cannot happen here.
        """

    def happen(self, load: Load) -> list[str]:
        """Does it, and marks when; what did not go as it should. However it ends, nothing stays changed by
        halves.

        Raises:
            BenchmarkError: it cannot be done.
        """


SCENARIOS: dict[str, Callable[[Settings], Scenario]] = {
    "rollout": RolledOut,
    "triton": TritonKilled,
    "store": SlowStore,
}


def run(
    scenario: Scenario,
    folder: Path,
    *,
    rate: float,
    seconds: float,
    slo: Path = DEFAULT,
    more: Sequence[str] = (),
) -> int:
    """Load, with `seconds` of it before and after what happens; the exit status.

    `slo` is the service level, `more` are other options for Locust.

    Raises:
        BenchmarkError: it cannot be done.
    """
    marks, report, most_degraded = folder / "marks", folder / "report.json", None
    if scenario.degrades:
        rest = folder / "slo.toml"
        most_degraded, slo = set_apart(slo, rest), rest
    # Locust is at work in another folder.
    with running_load(rate, marks, report, [*more, "--slo", str(slo.absolute())]) as load:
        load.wait(seconds)
        wrong = scenario.happen(load)
        load.wait(seconds)
        status = load.end()
    if status not in JUDGED:
        raise BenchmarkError(f"the load test ended with status {status}; what it said stands above")
    measured = json.loads(report.read_text(encoding="utf-8"))
    if most_degraded is not None:
        said, is_kept = judged_outside(measured, most_degraded)
        if is_kept:
            print(said)
        else:
            wrong.append(said)
    if scenario.promises_no_failure and (failed := measured["failed"]):
        wrong.append(f"{failed} calls failed, and none was to")
    for sentence in wrong:
        print(f"FAIL: {sentence}")
    print(f"kept in {folder}")
    return status or int(bool(wrong))


def interruptible() -> None:
    """Whoever ends this process gets what Ctrl-C gets: what was done is undone."""
    for number in (signal.SIGTERM, signal.SIGINT):  # a shell starts what is in its background without SIGINT
        signal.signal(number, signal.default_int_handler)


def _arguments() -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.during",
        description=(__doc__ or "").splitlines()[0],
        epilog="What else is given goes to locust: --processes 2, --anonymous 0, …",
        allow_abbrev=False,
    )
    parser.add_argument("scenario", choices=SCENARIOS, help="what happens")
    parser.add_argument("--rate", type=float, default=50.0, help="pages a second")
    parser.add_argument("--seconds", type=float, default=10.0, help="of load before it, and after it")
    parser.add_argument("--slo", type=Path, default=DEFAULT, help="the service level, a TOML file")
    arguments, more = parser.parse_known_args()
    for name, least, most in (("rate", 1, 1e5), ("seconds", 1, 3600)):
        if not least <= getattr(arguments, name) <= most:
            parser.error(f"--{name}: must be from {least:g} to {most:g}")
    if refusal := why_refused(more, *_OURS):
        parser.error(refusal)
    return arguments, more


def main() -> int:
    """Does it; exit codes as those of the load test, 2 if it cannot be done."""
    arguments, more = _arguments()
    settings = load_settings()
    interruptible()
    try:
        with translated():
            host = settings.gateway_host
            if not serves_model(settings.http_port, host):
                raise BenchmarkError(
                    f"no gateway with a model answers at {host}:{settings.http_port}: make up, or wait for it"
                )
            make_state_folder(settings.state_dir)
            folder = settings.state_dir.absolute() / "during" / arguments.scenario
            folder.mkdir(parents=True, exist_ok=True)
            scenario = SCENARIOS[arguments.scenario](settings)
            scenario.prepare()
            # What is called is what things happen to, whatever LOCUST_HOST says.
            more += ["-H", settings.gateway_target]
            return run(
                scenario,
                folder,
                rate=arguments.rate,
                seconds=arguments.seconds,
                slo=arguments.slo,
                more=more,
            )
    except BenchmarkError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    raise SystemExit(main())
