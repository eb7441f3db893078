"""`python -m features backfill --data FOLDER`: loads users into the online store from prepared data."""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

from features.backfill import Backfilled, BackfillError, backfill_once
from features.settings import Settings, load_settings
from features.state_folder import make_state_folder
from features.store import StoreError, open_store


async def _backfill(settings: Settings, data: Path) -> Backfilled | None:
    store = open_store(settings)
    try:
        return await backfill_once(store, data, history_cap=settings.store_history_cap)
    finally:
        await store.close()


def main() -> int:
    """Runs the command; 0 if done, 2 if the data cannot be read, 1 if the store cannot be written."""
    parser = argparse.ArgumentParser(prog="python -m features", description="The online store.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    command = commands.add_parser("backfill", help="load users into the online store from prepared data")
    command.add_argument(
        "--data", type=Path, required=True, help="folder written by python -m training prepare"
    )
    arguments = parser.parse_args()
    settings = load_settings()
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
