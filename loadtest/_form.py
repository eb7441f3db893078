"""The shape in Locust's web form.

Locust decides whether a run has a shape before it tells anybody that the run begins, by what was set when it
was started itself. So the form is read as it comes in, before Locust reads it.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable

from flask import Response, jsonify, request
from flask_login import current_user  # type: ignore[import-untyped]
from locust.env import Environment
from locust.runners import STATE_RUNNING, STATE_SPAWNING
from locust.util.timespan import parse_timespan
from locust.web import WebUI

from loadtest._options import check_shape
from loadtest.shapes import SHAPES


def take_shapes_from(web_ui: WebUI, environment: Environment, set_shape: Callable[[], None]) -> None:
    """Calls `set_shape`, which gives the environment the shape that its options name, for each run that the
    form begins.
    """

    def before() -> Response | None:
        form = request.form
        # The form that changes the number of users in mid-run has no shape in it.
        if request.method != "POST" or not request.path.endswith("/swarm") or "shape" not in form:
            return None
        if web_ui.web_login and not current_user.is_authenticated:
            return None
        if environment.runner is None or environment.runner.state in (STATE_RUNNING, STATE_SPAWNING):
            return None
        try:
            wanted = Namespace(
                shape=form["shape"],
                # Of what is left empty Locust would keep what was given for the run before.
                run_time=parse_timespan(form["run_time"]) if form.get("run_time") else None,
                num_users=int(form.get("user_count") or 0),
            )
            check_shape(wanted)
            if SHAPES[wanted.shape] is not None and web_ui.userclass_picker_is_active:
                raise ValueError("--class-picker: Locust leaves no room for a shape beside it")
        except ValueError as error:
            return jsonify({"success": False, "message": str(error), "host": environment.host})
        vars(environment.parsed_options).update(vars(wanted))
        set_shape()
        return None

    assert web_ui.app is not None, "it has one from its beginning"
    web_ui.app.before_request(before)
