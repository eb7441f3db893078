"""A DuckDB database for the length of one piece of work."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import ibis

from training.errors import TrainingError


@contextmanager
def duckdb_in(folder: Path, memory_limit_mb: int) -> Iterator[Any]:
    """An Ibis connection to a DuckDB database in `folder`, which is made, used for spilling, and removed.

    Nothing is fetched from the network, and times without a zone are UTC. Raises `TrainingError` if the
    memory limit or the disk does not suffice.
    """
    folder.mkdir()
    connection = ibis.duckdb.connect(
        folder / "work.duckdb",
        memory_limit=f"{memory_limit_mb}MB",
        temp_directory=str(folder / "spill"),
        autoinstall_known_extensions=False,
    )
    try:
        connection.raw_sql("SET TimeZone = 'UTC'")
        yield connection
    except duckdb.OutOfMemoryException as exc:
        raise TrainingError(
            f"cleaning needs more than data.memory_limit_mb = {memory_limit_mb}, or more disk than there is: "
            f"{str(exc).splitlines()[0]}"
        ) from exc
    except duckdb.IOException as exc:
        raise TrainingError(f"a file could not be read or written: {str(exc).splitlines()[0]}") from exc
    finally:
        connection.disconnect()
        shutil.rmtree(folder, ignore_errors=True)
