"""Load on Riptide, and whether it keeps its service level.

    locust -f loadtest/ --headless -u 50 -t 60s

Fifty users who look at pages, click, and pause (`--think-s`): a closed loop. `--rate-per-user R` makes it an
open one, in which each asks for R pages a second, whatever becomes of them. At the end stands what was
measured, by version and by what became of a page, when something went wrong, and the verdict:

- PASS, exit code 0: the service level (`slo.toml`, or the file that `--slo` names) is kept;
- FAIL, 1: it is not; a line for each bound that is broken;
- INVALID, 3: the load generator had no time left, or lost calls, so the figures are its own.

What cannot be started ends with 2 and a sentence.

Locust's tables count a degraded page, and a call without an answer, in rows of their own.
"""

from __future__ import annotations

import json
import logging
import math
import sys
import time
from pathlib import Path
from typing import Any

import gevent  # type: ignore[import-untyped]
from locust import User, events
from locust.argument_parser import LocustArgumentParser
from locust.env import Environment
from locust.exception import StopTest
from locust.runners import MasterRunner, WorkerRunner

from loadtest._caller import address_of, use_data
from loadtest._connections import look_for
from loadtest._report import INVALID, Report, as_json, as_text, make_report
from loadtest._shape import Shape
from loadtest._tally import METER, Tally
from loadtest.shapes import SHAPES
from loadtest.slo import DEFAULT, ServiceLevel, read_service_level

MIX = {
    "browsing": (70, "known users who look, and click now and then"),
    "anonymous": (15, "visitors of whom nothing is known"),
    "heavy": (5, "the most active users: long pages, many events"),
    "bulk": (5, "programs that want pages of a hundred, with reasons"),
    "similar": (5, "users who go from an item to what is like it"),
    "plain": (0, "known users who ask for a page, and do nothing with it"),
}
"""Option, which names a class of users → how many of them among a hundred by default, and what they do."""

_LOCAL = "here"
_LAST_REPORTS_S = 10.0
_FINISH, _FINISHED = "riptide_finish", "riptide_finished"
"""Messages of the master to its workers, and back, when a run ends."""


class Run:
    """The run of this process: what its workers have sent, and its report once it is over."""

    def __init__(self) -> None:
        self.sent = Tally()
        self.report: Report | None = None
        self.level = ServiceLevel()
        self.all_there = False
        self.is_told_at_once = False
        self.finished: set[str] = set()
        self.defects: list[str] = []


RUN = Run()


def add_options(parser: LocustArgumentParser) -> None:
    """Adds what Locust does not have; numbers stand in its web form, too."""
    for name, (weight, what) in MIX.items():
        parser.add_argument(
            f"--{name}", type=int, default=weight, metavar="N", help=f"part of the users: {what}"
        )
    parser.add_argument(
        "--think-s",
        type=float,
        default=0.5,
        metavar="S",
        help="mean pause of a browsing user between pages, seconds; a closed loop",
    )
    parser.add_argument(
        "--rate-per-user",
        type=float,
        default=0.0,
        metavar="R",
        help="an open loop: pages a second that each user asks for, at random moments; 0: a closed loop",
    )
    parser.add_argument(
        "--shape",
        choices=list(SHAPES),
        default="steady",
        include_in_web_ui=False,
        help="how the number of users changes, up to -u, during -t",
    )
    parser.add_argument(
        "--data",
        default="",
        include_in_web_ui=False,
        help="prepared data to take user ids from; the newest in var/data",
    )
    parser.add_argument(
        "--slo", default=str(DEFAULT), include_in_web_ui=False, help="the service level, a TOML file"
    )
    parser.add_argument(
        "--report", default="", include_in_web_ui=False, help="a file to write the figures to, as JSON"
    )


def check_first(environment: Environment, **_: object) -> None:
    """Ends Locust with a line and status 2 if something is wrong, before any user starts; sets the shape."""
    options: Any = environment.parsed_options
    runner = environment.runner
    try:
        RUN.level = read_service_level(Path(options.slo))
        if options.report:
            _try_to_write(Path(options.report))
        weights_of(environment)
        # A master that has forked its workers looks, too: they could only end, and it would wait for them.
        if not isinstance(runner, MasterRunner) or options.processes:
            use_data(options.data)
            # A worker elsewhere is told by its master whom to call.
            if environment.host or options.processes or not isinstance(runner, WorkerRunner):
                is_alone = not isinstance(runner, MasterRunner | WorkerRunner)
                look_for(address_of(environment), for_calls=is_alone)
        share = SHAPES[options.shape]
        if share is not None and not isinstance(runner, WorkerRunner):
            if not options.run_time or not options.num_users:
                raise ValueError(
                    f"--shape {options.shape}: say with -u how many users there are, and with -t for how long"
                )
            environment.shape_class = Shape(share, options)
            environment.shape_class.runner = runner
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        raise SystemExit(2) from error
    if isinstance(runner, MasterRunner):
        runner.register_message(_FINISHED, receive_last)
    elif isinstance(runner, WorkerRunner):
        runner.register_message(_FINISH, finish)


def _try_to_write(path: Path) -> None:
    try:
        with path.open("a"):
            pass
    except OSError as error:
        raise ValueError(f"--report: {path} cannot be written: {error.strerror}") from error


def weights_of(environment: Environment) -> dict[type[User], int]:
    """How many of each kind of user there are.

    Raises:
        ValueError: a number is none from 0, or all are 0.
    """
    options = vars(environment.parsed_options)
    for name in ("think_s", "rate_per_user", *MIX):
        if not (options[name] >= 0 and math.isfinite(options[name])):
            raise ValueError(f"--{name.replace('_', '-')}: {options[name]} is no number from 0")
    weights = {kind: int(options[kind.__name__.lower()]) for kind in environment.user_classes}
    if options.get("user_classes"):  # named on the command line: they are wanted
        weights = {kind: weight or 1 for kind, weight in weights.items()}
    if not any(weights.values()):
        raise ValueError(f"--{', --'.join(MIX)}: one of those who are to call has to be over 0")
    return weights


def begin(environment: Environment, **_: object) -> None:
    """Forgets the run before; the web form, or the master, may have other options.

    Raises:
        StopTest: a number is wrong.
    """
    options: Any = environment.parsed_options
    try:
        for kind, weight in weights_of(environment).items():
            kind.weight = weight
    except ValueError as error:
        logging.error("%s", error)
        raise StopTest(str(error)) from error
    if SHAPES[options.shape] is not None:
        # Each step of a shape ends with all users spawned: figures are those of the whole run.
        environment.reset_stats = False
    RUN.sent, RUN.report, RUN.defects = Tally(), None, []
    RUN.all_there = not environment.reset_stats
    METER.start()


def all_there(**_: object) -> None:
    """The figures are those of all users, as those of Locust's tables: they begin when all are there."""
    if not RUN.all_there:
        RUN.all_there = True
        RUN.sent = Tally()
        METER.start()


def end(environment: Environment, **_: object) -> None:
    """The run is over. A master waits for what its workers have counted to the last."""
    METER.stop()
    runner = environment.runner
    if not isinstance(runner, MasterRunner):
        return
    RUN.finished.clear()
    there = {client.id for client in runner.clients.all if client.state in ("ready", "spawning", "running")}
    if lost := len(runner.clients.all) - len(there):
        RUN.defects.append(f"{lost} of the load generator's workers went missing")
    runner.send_message(_FINISH)
    deadline = time.monotonic() + _LAST_REPORTS_S
    while there - RUN.finished and time.monotonic() < deadline:
        gevent.sleep(0.02)
    if missing := len(there - RUN.finished):
        RUN.defects.append(f"{missing} of the load generator's workers did not say what they measured last")


def finish(environment: Environment, **_: object) -> None:
    """Of a worker: the run is over, and this is the rest of it."""
    METER.stop()
    runner: Any = environment.runner
    runner.send_message(_FINISHED, METER.take(runner.client_id).to_message())


def receive_last(msg: Any, **_: object) -> None:
    """Of the master: the rest of a worker's run."""
    RUN.sent.update(Tally.of_message(msg.data))
    RUN.finished.add(msg.node_id)


def send(client_id: str, data: dict[str, Any]) -> None:
    """Of a worker: what it has counted since the last time, to the master."""
    data["riptide"] = METER.take(client_id).to_message()


def receive(client_id: str, data: dict[str, Any]) -> None:
    """Of the master: adds what a worker has counted."""
    RUN.sent.update(Tally.of_message(data["riptide"]))


def report_of(environment: Environment) -> Report:
    """The figures of the run that has ended."""
    options: Any = environment.parsed_options
    runner: Any = environment.runner
    if not isinstance(runner, MasterRunner):
        RUN.sent.update(METER.take(_LOCAL))
    raised = [
        f"a user of the load test failed, {error['count']} times: {error['msg']}"
        for error in runner.exceptions.values()
    ]
    return make_report(
        RUN.sent,
        RUN.level,
        users=options.num_users or runner.target_user_count,
        rate_per_user=options.rate_per_user,
        share=SHAPES[options.shape],
        defects=RUN.defects + raised,
    )


def conclude(environment: Environment, **_: object) -> None:
    """Makes the report, and writes it if a file was named; of a run from the web page, prints it."""
    options: Any = environment.parsed_options
    if isinstance(environment.runner, WorkerRunner):
        return
    RUN.report = report_of(environment)
    if options.report:
        Path(options.report).write_text(json.dumps(as_json(RUN.report), indent=1) + "\n", encoding="utf-8")
    RUN.is_told_at_once = environment.web_ui is not None
    if RUN.is_told_at_once:
        print(as_text(RUN.report), flush=True)


def judge(environment: Environment, **_: object) -> None:
    """Sets the exit code."""
    if RUN.report is not None:
        environment.process_exit_code = RUN.report.code
    elif environment.web_ui is None and not isinstance(environment.runner, WorkerRunner):
        environment.process_exit_code = INVALID


def summarise(**_: object) -> None:
    """Prints the summary, after Locust's tables."""
    if RUN.report is not None and not RUN.is_told_at_once:
        print(as_text(RUN.report), flush=True)


events.init_command_line_parser.add_listener(add_options)
events.init.add_listener(check_first)
events.test_start.add_listener(begin)
events.spawning_complete.add_listener(all_there)
events.test_stopping.add_listener(end)
events.report_to_master.add_listener(send)
events.worker_report.add_listener(receive)
events.test_stop.add_listener(conclude)
events.quitting.add_listener(judge)
events.quit.add_listener(summarise)
