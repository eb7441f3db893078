"""Writes prepared data for two users; failing, or waiting for the test's word, if the test says so."""

import os
import sys
import time
from pathlib import Path

import pyarrow
import pyarrow.parquet

if os.environ.get("FAKE_TRAINING") == "bad input":
    print("movies.csv: column title is missing", file=sys.stderr)
    sys.exit(2)
if os.environ.get("FAKE_TRAINING") == "slow":
    Path("training-began").touch()
    while not Path("training-may-end").exists():
        time.sleep(0.02)
folder = Path("var/data/tiny")
folder.mkdir(parents=True, exist_ok=True)
pyarrow.parquet.write_table(
    pyarrow.table(
        {
            "user_id": pyarrow.array(["u1", "u1", "u2"]),
            "item_id": pyarrow.array(["i1", "i2", "i1"]),
            "time": pyarrow.array([1, 2, 3], pyarrow.int64()),
            "type": pyarrow.array([8, 8, 8], pyarrow.uint8()),
            "weight": pyarrow.array([1, 1, 1], pyarrow.float32()),
        }
    ),
    folder / "events.parquet",
)
print("trained")
