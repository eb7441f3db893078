"""Whose pages a load test asks for."""

from __future__ import annotations

import itertools
import json
import os
import random
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pyarrow.compute
import pyarrow.parquet

# A Zipf law: the user of rank r calls r ** -_SKEW times as often as the most active one.
_SKEW = 0.8
_STORE_S = 60.0
_ROOT = str(Path(__file__).parents[1])


class Visitors:
    """Real user ids, drawn the more often the more active they were."""

    def __init__(self, events: Mapping[str, int]) -> None:
        """`events`: user id → how many they have.

        Raises:
            ValueError: there are no users.
        """
        if not events:
            raise ValueError("no users")
        self.ids = sorted(events, key=lambda user: (-events[user], user))
        self._cumulative = list(itertools.accumulate(rank**-_SKEW for rank in range(1, len(self.ids) + 1)))

    def draw(self) -> str:
        """One id."""
        return random.choices(self.ids, cum_weights=self._cumulative)[0]

    def draw_active(self) -> str:
        """One id of the most active hundredth."""
        return random.choice(self.ids[: max(1, len(self.ids) // 100)])


def of_store() -> Visitors:
    """Those of the online store, as it is now.

    Another process looks: what a store is made of is none of a load test's business, and the clients of some
    do not live with what Locust does to the standard library.

    Raises:
        ValueError: it cannot be opened here, or nobody in it has an event; the sentence says so.
    """
    try:
        done = subprocess.run(
            [sys.executable, "-m", "features", "users"],
            # Locust may be started elsewhere.
            env=os.environ | {"PYTHONPATH": os.pathsep.join([_ROOT, os.environ.get("PYTHONPATH", "")])},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=_STORE_S,
        )
    except subprocess.TimeoutExpired:
        raise ValueError(f"the store did not name its users within {_STORE_S:.0f} s") from None
    if done.returncode:
        raise ValueError((done.stderr.strip().splitlines() or ["?"])[-1])
    return Visitors(dict(json.loads(done.stdout)))


def of_data(folder: Path) -> Visitors:
    """Those of prepared data: `events.parquet`, as `python -m training run` makes it.

    Raises:
        OSError: it is not there.
        KeyError: it has no column `user_id`.
        ValueError: it has no rows.
    """
    # Not read_table: that imports pandas.
    with pyarrow.parquet.ParquetFile(folder / "events.parquet") as file:
        user_ids = file.read(columns=["user_id"])["user_id"]
    counts = pyarrow.compute.value_counts(user_ids).to_pylist()
    return Visitors({count["values"]: count["counts"] for count in counts})
