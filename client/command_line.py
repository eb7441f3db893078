"""What the command line of the client understands."""

from __future__ import annotations

import argparse
import math

from client.riptide.v1 import recommender_pb2 as pb

_PREFIX = "EVENT_TYPE_"


def event_type(name: str) -> int:
    """`click` → EVENT_TYPE_CLICK."""
    names = [key.removeprefix(_PREFIX).lower() for key, value in pb.EventType.items() if value]
    if name.lower() not in names:
        raise argparse.ArgumentTypeError(f"{name!r} is not one of {', '.join(names)}")
    return pb.EventType.Value(_PREFIX + name.upper())


def seconds(text: str) -> float:
    """A finite number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0")
    return value


def parser(default_address: str) -> argparse.ArgumentParser:
    """The parser; the options of every command may stand before or after the command's name."""
    root = argparse.ArgumentParser(prog="python -m client", description="Calls a Riptide gateway.")
    _add_global(root, address=default_address, timeout_s=2.0, json=False)
    shared = argparse.ArgumentParser(add_help=False)
    # SUPPRESS: what is not given after the command must not overwrite what was given before it.
    _add_global(shared, address=argparse.SUPPRESS, timeout_s=argparse.SUPPRESS, json=argparse.SUPPRESS)
    commands = root.add_subparsers(dest="command", required=True)

    page = argparse.ArgumentParser(add_help=False)
    page.add_argument("--limit", type=int, default=10, help="items wanted, 1 to 100")
    page.add_argument(
        "--category", nargs="+", action="extend", default=[], metavar="NAME", help="only items of these"
    )
    page.add_argument(
        "--exclude", nargs="+", action="extend", default=[], metavar="ID", help="not these items"
    )

    recommend = commands.add_parser("recommend", parents=[shared, page], help="the best items for a user")
    recommend.add_argument("--user", required=True, metavar="ID")
    recommend.add_argument("--include-seen", action="store_true", help="also items the user has had")
    recommend.add_argument(
        "--explain", action="store_true", help="show which item of the history speaks for each"
    )
    recommend.add_argument("--surface", default="", metavar="NAME", help="where the page is shown")
    recommend.add_argument(
        "--diversity", type=float, default=0.0, metavar="D", help="0, relevance alone, to 1"
    )
    recommend.add_argument("--time", type=int, default=0, help="unix seconds; now if not given")

    similar = commands.add_parser("similar", parents=[shared, page], help="the nearest items of an item")
    similar.add_argument("--item", required=True, metavar="ID")

    record = commands.add_parser("record", parents=[shared], help="store what a user did")
    record.add_argument("--user", required=True, metavar="ID")
    record.add_argument("--item", required=True, nargs="+", action="extend", metavar="ID")
    record.add_argument("--type", required=True, type=event_type, help="view, click, play, purchase, ...")
    record.add_argument("--weight", type=float, help="how strong the signal is, 0 to 1e6; 1 if not given")
    record.add_argument("--time", type=int, default=0, help="unix seconds; now if not given")

    describe = commands.add_parser("describe", parents=[shared], help="all that is stored of a user")
    describe.add_argument("--user", required=True, metavar="ID")

    forget = commands.add_parser("forget", parents=[shared], help="delete all that is stored of a user")
    forget.add_argument("--user", required=True, metavar="ID")
    return root


def _add_global(target: argparse.ArgumentParser, *, address: str, timeout_s: object, json: object) -> None:
    target.add_argument("--address", default=address, metavar="HOST:PORT", help="the gateway")
    target.add_argument(
        "--timeout", dest="timeout_s", type=seconds, default=timeout_s, metavar="S", help="seconds"
    )
    target.add_argument("--json", action="store_true", default=json, help="print the answer as protobuf JSON")
