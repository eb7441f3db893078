"""What the load test takes beside Locust's own options."""

from __future__ import annotations

import math
from typing import Any

from locust import User
from locust.argument_parser import LocustArgumentParser
from locust.env import Environment

from loadtest.shapes import SHAPES
from loadtest.slo import DEFAULT

MIX = {
    "browsing": (70, "known users who look, and click now and then"),
    "anonymous": (15, "visitors of whom nothing is known"),
    "heavy": (5, "the most active users: long pages, many events"),
    "bulk": (5, "programs that want pages of a hundred, with reasons"),
    "similar": (5, "users who go from an item to what is like it"),
    "plain": (0, "known users who ask for a page, and do nothing with it"),
}
"""Option, which names a class of users → how many of them among a hundred by default, and what they do."""


def add_options(parser: LocustArgumentParser) -> None:
    """Adds them; what changes from run to run stands in the web form, too."""
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
        help="how the number of users changes, up to -u, during -t",
    )
    files = {
        "--data": "prepared data to take user ids from; without it, the users are those of the store",
        "--slo": "the service level, a TOML file",
        "--report": "a file to write the figures to, as JSON",
        "--marks": "a file to which others append what happens meanwhile: Unix time, a blank, a sentence",
    }
    for name, what in files.items():
        # Whoever can open the web page must not choose files of this machine.
        parser.add_argument(
            name, default=str(DEFAULT) if name == "--slo" else "", include_in_web_ui=False, help=what
        )


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


def check_shape(options: Any) -> None:
    """Whether a shape can be followed.

    Raises:
        ValueError: there is none of this name, or it is not known how many users there are, or for how long.
    """
    if options.shape not in SHAPES:
        raise ValueError(f"--shape {options.shape}: there is no such shape; there are {', '.join(SHAPES)}")
    if SHAPES[options.shape] is not None and not (options.run_time and options.num_users):
        raise ValueError(
            f"--shape {options.shape}: say with -u how many users there are, and with -t for how long"
        )
