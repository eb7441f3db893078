"""Whose pages a load test asks for."""

from __future__ import annotations

import functools
import itertools
import random
from pathlib import Path

import pyarrow.compute
import pyarrow.parquet

# A Zipf law: the user of rank r calls r ** -_SKEW times as often as the most active one.
_SKEW = 0.8


class Visitors:
    """Real user ids, drawn the more often the more active they were."""

    def __init__(self, data: Path) -> None:
        """`data` holds `events.parquet` as `python -m training run` prepares it.

        Raises:
            OSError: it does not.
            KeyError: it has no column `user_id`.
            ValueError: it has no rows.
        """
        # Not read_table: that imports pandas.
        with pyarrow.parquet.ParquetFile(data / "events.parquet") as file:
            user_ids = file.read(columns=["user_id"])["user_id"]
        if not len(user_ids):
            raise ValueError("no users")
        counts = pyarrow.compute.value_counts(user_ids).to_pylist()
        counts.sort(key=lambda count: (-count["counts"], count["values"]))
        self.ids: list[str] = [count["values"] for count in counts]
        self._cumulative = list(itertools.accumulate(rank**-_SKEW for rank in range(1, len(self.ids) + 1)))

    def draw(self) -> str:
        """One id."""
        return random.choices(self.ids, cum_weights=self._cumulative)[0]

    def draw_active(self) -> str:
        """One id of the most active hundredth."""
        return random.choice(self.ids[: max(1, len(self.ids) // 100)])


@functools.cache
def visitors_of(data: Path) -> Visitors:
    """Those of a folder; read once in a process."""
    return Visitors(data)


def newest_data(state_dir: Path) -> Path:
    """The folder of prepared data that was written last.

    Raises:
        FileNotFoundError: there is none.
    """
    found = sorted(state_dir.glob("data/*/events.parquet"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise FileNotFoundError(
            f"no {state_dir}/data/*/events.parquet: make up prepares it, or name one: --data"
        )
    return found[-1].parent
