"""The online store from the command line.

`python -m features backfill --data FOLDER` loads users from prepared data; `python -m features users` says
who is in it: a JSON list of pairs, user id and number of events, of those who have any.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from pathlib import Path

from features.backfill import Backfilled, BackfillError, backfill_once
from features.settings import Settings, load_settings
from features.state_folder import make_state_folder
from features.store import FeatureStore, StoreError, StoreUnavailable, open_store

_MOST_USERS = 20_000
_AT_ONCE = 50
"""Records; a long history is some twenty kilobytes, and a read of a shared store is to be over soon."""


async def _backfill(settings: Settings, data: Path) -> Backfilled | None:
    store = open_store(settings)
    try:
        return await backfill_once(store, data, history_cap=settings.store_history_cap)
    finally:
        await store.close()


async def users_with_events(store: FeatureStore, most: int) -> list[tuple[str, int]]:
    """Some users of the store, `most` at most, with how many events they have; without those who have none.

    Raises:
        StoreUnavailable: it cannot be read.
    """
    sampled = await store.sample_users(most)
    found = []
    for start in range(0, len(sampled), _AT_ONCE):
        some = sampled[start : start + _AT_ONCE]
        records = await store.read(some)
        found += [(user, len(record.keys)) for user, record in zip(some, records, strict=True)]
    return [(user, events) for user, events in found if events]


async def _users(settings: Settings) -> list[tuple[str, int]]:
    folder = settings.store_folder
    if folder is not None and not folder.is_dir():
        raise StoreUnavailable(f"{folder}: there is no store; make up makes one")  # opening it would
    store = open_store(settings)
    try:
        users = await users_with_events(store, _MOST_USERS)
    finally:
        await store.close()
    if not users:
        raise StoreUnavailable(f"{settings.store_name}: nobody in the store has an event")
    return users


def main() -> int:
    """Runs the command; 0 if done, 2 if the data cannot be read, 1 if the store cannot be used."""
    parser = argparse.ArgumentParser(prog="python -m features", description="The online store.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")
    command = commands.add_parser("backfill", help="load users into the online store from prepared data")
    command.add_argument(
        "--data", type=Path, required=True, help="folder written by python -m training prepare"
    )
    commands.add_parser("users", help=f"who is in the online store, as JSON; {_MOST_USERS:,} at most")
    arguments = parser.parse_args()
    settings = load_settings()
    if arguments.command == "users":
        try:
            print(json.dumps(asyncio.run(_users(settings))))
        except StoreError as error:
            print(error, file=sys.stderr)
            return 1
        return 0
    try:
        make_state_folder(settings.state_dir)
    except OSError as error:
        print(
            f"{settings.state_dir}: cannot be made ({error.strerror}); see RIPTIDE_STATE_DIR", file=sys.stderr
        )
        return 1
    try:
        done = asyncio.run(_backfill(settings, arguments.data))
    except (BackfillError, StoreError) as error:
        print(error, file=sys.stderr)
        return 2 if isinstance(error, BackfillError) else 1
    if done is None:
        print(f"online store: loaded with {arguments.data} already")
        return 0
    print(
        f"online store: {done.users} users, {done.recorded} events loaded, "
        f"{done.already_stored} already there, {done.forgotten_users} forgotten users left out"
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
