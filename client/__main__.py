"""`python -m client`: one call from the command line.

Ends with 0; with 2 if the request is refused; with 1 if there is no answer.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence

from google.protobuf.json_format import MessageToJson
from google.protobuf.message import Message
from rich.console import Console

from client.client import Client
from client.command_line import parser
from client.errors import RecommenderError, RequestRefused, Unreachable
from client.riptide.v1 import recommender_pb2 as pb
from client.tables import for_people
from features.settings import load_settings


async def call(arguments: argparse.Namespace) -> Message:
    """The answer to what the command line asked."""
    async with Client(arguments.address, timeout_s=arguments.timeout_s) as client:
        match arguments.command:
            case "recommend":
                return await client.recommend(
                    arguments.user,
                    limit=arguments.limit,
                    categories=arguments.category,
                    exclude_item_ids=arguments.exclude,
                    include_seen=arguments.include_seen,
                    explain=arguments.explain,
                    surface=arguments.surface,
                    diversity=arguments.diversity,
                    time=arguments.time,
                )
            case "similar":
                return await client.similar_items(
                    arguments.item,
                    limit=arguments.limit,
                    categories=arguments.category,
                    exclude_item_ids=arguments.exclude,
                )
            case "record":
                return await client.record_events(
                    pb.Event(
                        user_id=arguments.user,
                        item_id=item_id,
                        type=arguments.type,
                        time=arguments.time,
                        weight=arguments.weight,
                    )
                    for item_id in arguments.item
                )
            case "describe":
                return await client.describe_user(arguments.user)
            case _:
                return await client.forget_user(arguments.user)


def main(argv: Sequence[str] | None = None, *, default_address: str) -> int:
    """Runs one command; returns the exit status."""
    arguments = parser(default_address).parse_args(argv)
    try:
        answer = asyncio.run(call(arguments))
    except RequestRefused as error:
        print(error.sentence, file=sys.stderr)
        return 2
    except Unreachable as error:
        print(
            f"no gateway answers at {arguments.address} (make up starts one): {error.sentence}",
            file=sys.stderr,
        )
        return 1
    except RecommenderError as error:
        print(f"{arguments.address}: {error.status.name}: {error.sentence}", file=sys.stderr)
        return 1
    except (UnicodeEncodeError, ValueError) as error:
        # protobuf's own word on what a field cannot hold, such as a limit of 2^40.
        print(f"the request cannot be sent: {error}", file=sys.stderr)
        return 2
    if arguments.json:
        print(MessageToJson(answer, ensure_ascii=False))
    else:
        Console(highlight=False).print(for_people(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main(default_address=load_settings().gateway_target))
