"""Load on Riptide, and whether it keeps its service level.

    locust -f loadtest/ --headless -u 50 -t 60s

Fifty users who look at pages, click, and pause (`--think-s`): a closed loop. `--rate-per-user R` makes it an
open one, in which each asks for R pages a second, whatever becomes of them. At the end stands what was
measured, by version and by what became of a page, when something went wrong, and the verdict:

- PASS, exit code 0: the service level (`slo.toml`, or the file that `--slo` names) is kept;
- FAIL, 1: it is not; a line for each bound that is broken;
- INVALID, 3: the load generator had no time left, so the figures are its own.

Locust's tables count a degraded page, and a call without an answer, in rows of their own.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from locust import events
from locust.argument_parser import LocustArgumentParser
from locust.env import Environment
from locust.runners import MasterRunner, WorkerRunner

from loadtest._caller import address_of, visitors
from loadtest._connections import connect
from loadtest._report import Report, as_json, as_text, make_report
from loadtest._shape import Shape
from loadtest._tally import METER, Tally
from loadtest.shapes import SHAPES
from loadtest.slo import DEFAULT, read_service_level

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


class Run:
    """The run of this process: what its workers have sent, and its report once it is over."""

    def __init__(self) -> None:
        self.sent = Tally()
        self.report: Report | None = None
        self.counts_from_all_there = False


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
    """Ends Locust with one line if something is wrong, before any user is started; sets the shape."""
    options: Any = environment.parsed_options
    runner = environment.runner
    try:
        read_service_level(Path(options.slo))
        if options.report and not Path(options.report).resolve().parent.is_dir():
            raise ValueError(f"--report: {Path(options.report).parent} is no folder")
        if not isinstance(runner, MasterRunner):
            visitors(options.data)
            connect(address_of(environment))
        share = SHAPES[options.shape]
        if share is not None and not isinstance(runner, WorkerRunner):
            if not options.run_time or not options.num_users:
                raise ValueError(
                    f"--shape {options.shape}: -u and -t say how many users there are, and for how long"
                )
            environment.shape_class = Shape(share, options)
            environment.shape_class.runner = runner
        if share is not None:
            # Each step of a shape ends with all users spawned: figures are those of the whole run.
            environment.reset_stats = False
        RUN.counts_from_all_there = environment.reset_stats
        set_mix(environment)
    except (OSError, ValueError) as error:
        raise SystemExit(str(error)) from error


def set_mix(environment: Environment) -> None:
    """How many of each kind of user there are.

    Raises:
        ValueError: a number is negative, or all are 0.
    """
    options = vars(environment.parsed_options)
    for name in ("think_s", "rate_per_user", *MIX):
        if not (options[name] >= 0 and math.isfinite(options[name])):
            raise ValueError(f"--{name.replace('_', '-')}: {options[name]} is no number from 0")
    for kind in environment.user_classes:
        kind.weight = options[kind.__name__.lower()]
    if not any(kind.weight for kind in environment.user_classes):
        raise ValueError(f"--{', --'.join(MIX)}: one of those who are to call has to be over 0")


def begin(environment: Environment, **_: object) -> None:
    """Forgets the run before; the web form may have another mix."""
    set_mix(environment)
    RUN.sent, RUN.report = Tally(), None
    METER.start()


def all_there(**_: object) -> None:
    """The figures are those of all users, as those of Locust's tables."""
    if RUN.counts_from_all_there:
        RUN.sent = Tally()
        METER.start()


def end(environment: Environment, **_: object) -> None:
    """What comes after the run takes none of its time."""
    METER.stop()


def send(client_id: str, data: dict[str, Any]) -> None:
    """Of a worker: what it has counted since the last time, to the master."""
    data["riptide"] = METER.take(client_id).to_message()


def receive(client_id: str, data: dict[str, Any]) -> None:
    """Of the master: adds what a worker has counted."""
    RUN.sent.update(Tally.of_message(data["riptide"]))


def report_of(environment: Environment) -> Report:
    """The figures of the run so far."""
    options: Any = environment.parsed_options
    if not isinstance(environment.runner, MasterRunner):
        RUN.sent.update(METER.take(_LOCAL))
    users_there = options.num_users or getattr(environment.runner, "target_user_count", 0)
    return make_report(
        RUN.sent,
        read_service_level(Path(options.slo)),
        users=users_there,
        rate_per_user=options.rate_per_user,
        share=SHAPES[options.shape],
    )


def judge(environment: Environment, **_: object) -> None:
    """Sets the exit code, and writes the figures if a file was named."""
    options: Any = environment.parsed_options
    if isinstance(environment.runner, WorkerRunner):
        return
    RUN.report = report_of(environment)
    environment.process_exit_code = RUN.report.code
    if options.report:
        Path(options.report).write_text(json.dumps(as_json(RUN.report), indent=1) + "\n", encoding="utf-8")


def summarise(**_: object) -> None:
    """Prints the summary, after Locust's tables."""
    if RUN.report is not None:
        print(as_text(RUN.report), flush=True)


def show_in_web_mode(environment: Environment, **_: object) -> None:
    """A run that was started from the web page ends long before Locust does."""
    if environment.web_ui is not None and not isinstance(environment.runner, WorkerRunner):
        print(as_text(report_of(environment)), flush=True)


events.init_command_line_parser.add_listener(add_options)
events.init.add_listener(check_first)
events.test_start.add_listener(begin)
events.spawning_complete.add_listener(all_there)
events.test_stopping.add_listener(end)
events.report_to_master.add_listener(send)
events.worker_report.add_listener(receive)
events.test_stop.add_listener(show_in_web_mode)
events.quitting.add_listener(judge)
events.quit.add_listener(summarise)
