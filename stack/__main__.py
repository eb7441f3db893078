"""`python -m stack run|up|down|status`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from features.settings import Settings, load_settings
from stack import background
from stack.errors import StackError
from stack.steps import read_plan

_CONFIG = Path("training/configs/movielens-small.toml")


def main(argv: Sequence[str] | None, settings: Settings) -> int:
    """Runs one command; returns the exit status."""
    arguments = _parser().parse_args(argv)
    try:
        match arguments.command:
            case "run":
                # Here, so that `status` and `down` do not wait for what only this needs: gRPC and Arrow.
                from stack.foreground import run

                plan = read_plan(settings, arguments.config, arguments.seed)
                end = "make down ends it" if arguments.background else "Ctrl-C ends it"
                run(settings, plan, Console(highlight=False), how_to_end=end)
                return 0
            case "up":
                plan = read_plan(settings, arguments.config, arguments.seed)
                return background.up(settings, ["--config", str(plan.config), "--seed", str(plan.seed)])
            case "down":
                return background.down(settings)
            case _:
                return background.status(settings)
    except StackError as error:
        print(error, file=sys.stderr)
        return error.status
    except KeyboardInterrupt:  # before the stack has begun, or while `up` or `down` waits for another
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m stack", description="All of Riptide on this machine.")
    what = argparse.ArgumentParser(add_help=False)
    what.add_argument("--config", type=Path, default=_CONFIG, help="training configuration")
    what.add_argument("--seed", type=int, default=1, help="seed of the training")
    commands = parser.add_subparsers(dest="command", required=True)
    run_command = commands.add_parser("run", parents=[what], help="bring it up; stay until Ctrl-C")
    run_command.add_argument("--background", action="store_true", help=argparse.SUPPRESS)
    commands.add_parser("up", parents=[what], help="bring it up in the background; return when it is ready")
    commands.add_parser("down", help="end what up started, after the calls in flight")
    commands.add_parser("status", help="whether it is up, and where")
    return parser


if __name__ == "__main__":
    sys.exit(main(None, load_settings()))
