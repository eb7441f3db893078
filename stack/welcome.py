"""The first real call, and what a newcomer sees of it."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

import pyarrow.parquet
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from client.client import Client
from client.errors import RecommenderError
from client.riptide.v1 import recommender_pb2 as pb
from client.tables import degraded_name, event_name, origin_line, stages_line
from features.settings import Settings
from stack.errors import StackError

_LATEST = 10
# The first call of all may find cold caches.
_TIMEOUT_S = 10.0


async def welcome(settings: Settings, data: Path, console: Console) -> None:
    """Calls DescribeUser and Recommend for the first user of the data, and prints both answers.

    Raises:
        StackError: a call failed, or the user has a history and the page is not the model's.
    """
    user_id = first_user(data)
    async with Client(settings.gateway_target, timeout_s=_TIMEOUT_S) as client:
        try:
            user = await client.describe_user(user_id)
            page = await client.recommend(user_id, limit=_LATEST, explain=True)
        except RecommenderError as error:
            raise StackError(f"the first call failed: {error.status.name}: {error.sentence}") from error
    for part in (side_by_side(user, page), "", origin_line(page), stages_line(page.stages_ms), ""):
        console.print(part)
    console.print(next_steps(settings, user_id), markup=False, soft_wrap=True)
    if page.degraded and user.events:
        raise StackError(
            f"the first page did not come from the model ({degraded_name(page.degraded)}); "
            f"the gateway's log is {settings.state_dir / 'log' / 'gateway.log'}"
        )


def first_user(data: Path) -> str:
    """The first user id of a prepared-data folder."""
    file = pyarrow.parquet.ParquetFile(data / "events.parquet")
    batch = next(file.iter_batches(batch_size=1, columns=["user_id"]))
    return str(batch.column(0)[0].as_py())


def side_by_side(user: pb.DescribeUserResponse, page: pb.RecommendResponse) -> Table:
    """What the user had last, newest first, beside what is recommended now."""
    had = Table("", f"the latest of user {escape(user.user_id)}", box=None, pad_edge=False)
    for event in reversed(user.events[-_LATEST:]):
        had.add_row(event_name(event.type), _line(event.title or event.item_id))
    wanted = Table("", "recommended now", "because of", box=None, pad_edge=False)
    for item in page.items:
        reason = _line(item.reason.title or item.reason.item_id, "dim")
        wanted.add_row(str(item.rank), _line(item.title or item.item_id, "bold"), reason)
    for table in (had, wanted):
        table.columns[0].no_wrap = True  # so that a narrow terminal cuts titles, not ranks
    both = Table.grid(padding=(0, 4))
    both.add_row(had, wanted)
    return both


def _line(title: str, style: str = "") -> Text:
    """Cut rather than wrapped, so that the two sides stay level."""
    return Text(title, style, no_wrap=True, overflow="ellipsis")


def next_steps(settings: Settings, user_id: str) -> str:
    """How to call it, one line each."""
    python = Path(os.path.relpath(sys.executable))
    host = settings.gateway_host
    console = [f"console  http://{host}:{settings.http_port}/console/"] if settings.offers_console else []
    return "\n".join(
        [
            f"call     {python} -m client recommend --user {shlex.quote(user_id)} --limit 10 --explain",
            f"load     {python.with_name('locust')} -f loadtest/ --headless -u 50 -t 30s",
            f"metrics  http://{host}:{settings.http_port}/metrics",
            *console,
        ]
    )
