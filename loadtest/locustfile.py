"""Load on Riptide, and whether it keeps its service level.

    locust -f loadtest/ --headless -u 50 -t 60s

Fifty users who look at pages, click, and pause (`--think-s`): a closed loop. `--rate-per-user R` makes it an
open one, in which each asks for R pages a second, whatever becomes of them. At the end stands what was
measured, by version and by what became of a page, when something went wrong, and the verdict:

- PASS, exit code 0: the service level (`slo.toml`, or the file that `--slo` names) is kept;
- FAIL, 1: it is not; a line for each bound that is broken;
- INVALID, 3: the load generator had no time left, or lost calls, so the figures are its own.

What cannot be started ends with 2 and a sentence. What others say happens meanwhile (`--marks`) stands in the
report, and cuts its figures.

Locust's tables count a degraded page, and a call without an answer, in rows of their own.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from pathlib import Path
from typing import Any

import gevent  # type: ignore[import-untyped]
from locust import events
from locust.env import Environment
from locust.exception import StopTest
from locust.runners import MasterRunner, WorkerRunner

from loadtest._caller import address_of, use_users_of
from loadtest._connections import look_for
from loadtest._form import take_shapes_from
from loadtest._marks import check, read_marks
from loadtest._options import add_options, check_shape, weights_of
from loadtest._parts import is_past_knee, parts, parts_over
from loadtest._report import INVALID, Report, make_report
from loadtest._shape import Shape
from loadtest._tally import METER, Tally
from loadtest._text import as_json, as_text
from loadtest.shapes import SHAPES, ramp
from loadtest.slo import ServiceLevel, read_service_level

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
        self.is_on = False
        self.marks: Path | None = None
        self.resets_stats = False
        """Whether figures begin when all users are there, unless there is a shape."""
        self.steps_judged = 0
        self.ended_at_knee = False


RUN = Run()


def check_first(environment: Environment, **_: object) -> None:
    """Ends Locust with a line and status 2 if something is wrong, before any user starts; sets the shape."""
    options: Any = environment.parsed_options
    runner = environment.runner
    try:
        RUN.level = read_service_level(Path(options.slo))
        if options.report:
            _try_to_write(Path(options.report))
        if not isinstance(runner, WorkerRunner):
            check_shape(options)
            if options.marks:
                RUN.marks = Path(options.marks)
                check(RUN.marks)
        weights_of(environment)
        # A master that has forked its workers looks, too: they could only end, and it would wait for them.
        if not isinstance(runner, MasterRunner) or options.processes:
            use_users_of(options.data)
            # A worker elsewhere is told by its master whom to call.
            if environment.host or options.processes or not isinstance(runner, WorkerRunner):
                is_alone = not isinstance(runner, MasterRunner | WorkerRunner)
                look_for(address_of(environment), for_calls=is_alone)
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        raise SystemExit(2) from error
    RUN.resets_stats = environment.reset_stats
    if not isinstance(runner, WorkerRunner):
        set_shape(environment)
    if environment.web_ui is not None:
        take_shapes_from(environment.web_ui, environment, lambda: set_shape(environment))
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


def set_shape(environment: Environment) -> None:
    """Gives the environment the shape that its options name, for the runs that follow."""
    options: Any = environment.parsed_options
    share = SHAPES[options.shape]
    if share is None:
        environment.shape_class = None
        return
    environment.shape_class = Shape(share, options, lambda: is_over_early(environment))
    environment.shape_class.runner = environment.runner


def is_over_early(environment: Environment) -> bool:
    """Whether a ramp has shown what it is for: the service level is broken in two steps in a row."""
    options: Any = environment.parsed_options
    if SHAPES[options.shape] is not ramp:
        return False
    measured = RUN.sent if isinstance(environment.runner, MasterRunner) else METER.tally
    over = parts_over(measured, time.time(), options.run_time)
    # Each once: to add up all seconds of a long run takes a while, in which nobody calls.
    if over > RUN.steps_judged:
        RUN.steps_judged = over
        so_far = parts(measured, options.num_users, ramp, options.run_time)
        RUN.ended_at_knee = is_past_knee(so_far[:over], RUN.level)
    return RUN.ended_at_knee


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
    # Each step of a shape ends with all users spawned: figures are those of the whole run.
    environment.reset_stats = RUN.resets_stats and SHAPES[options.shape] is None
    RUN.report, RUN.defects = None, []
    RUN.steps_judged, RUN.ended_at_knee = 0, False
    RUN.is_on = True
    RUN.all_there = not environment.reset_stats
    begin_figures()


def all_there(**_: object) -> None:
    """The figures are those of all users, as those of Locust's tables: they begin when all are there."""
    if not RUN.all_there:
        RUN.all_there = True
        begin_figures()


def begin_figures() -> None:
    """Forgets what was measured until now; who waits for the file of marks finds it from now on."""
    RUN.sent = Tally()
    METER.start()
    if RUN.marks is not None and RUN.all_there:
        RUN.marks.touch()


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
    marks, not_read = read_marks(RUN.marks, time.time()) if RUN.marks is not None else ([], [])
    return make_report(
        RUN.sent,
        RUN.level,
        users=options.num_users or runner.target_user_count,
        rate_per_user=options.rate_per_user,
        share=SHAPES[options.shape],
        planned_s=options.run_time,
        ended_at_knee=RUN.ended_at_knee,
        marks=marks,
        marks_not_read=not_read,
        defects=RUN.defects + raised,
    )


def conclude(environment: Environment, **_: object) -> None:
    """Makes the report, and writes it if a file was named; of a run from the web page, prints it."""
    options: Any = environment.parsed_options
    if isinstance(environment.runner, WorkerRunner) or not RUN.is_on:
        return
    RUN.is_on = False
    RUN.report = report_of(environment)
    if options.report:
        Path(options.report).write_text(json.dumps(as_json(RUN.report), indent=1) + "\n", encoding="utf-8")
    RUN.is_told_at_once = environment.web_ui is not None
    if RUN.is_told_at_once:
        print(as_text(RUN.report), flush=True)


def judge(environment: Environment, **_: object) -> None:
    """Sets the exit code. A run that somebody ends is judged by what it has measured until then."""
    runner: Any = environment.runner
    if RUN.is_on and environment.web_ui is None and not isinstance(runner, MasterRunner | WorkerRunner):
        # A master does that by itself; one process only after this.
        runner.stop()
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
