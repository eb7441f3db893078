"""Vectors of texts on disk: each text is encoded once per encoder, whatever happens to the process.

One file per encoder, of records of one size: the text's SHA-256, its vector, and a checksum of both. New ones
are appended batch by batch, so a killed process loses one batch at most. What is left of a half-written or
damaged record does not pass its checksum; then the file is written again from those that do.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.data_folder import exclusive
from training.text_encoder import TextEncoder

_BATCH = 2048
"""Texts that are encoded before their vectors are written."""


def encode_cached(encoder: TextEncoder, texts: Sequence[str], folder: Path) -> NDArray[np.float32]:
    """float32 `[N, W]`: row i is text i, as `encoder.encode` gives it.

    Only texts that `folder` has no vector of are encoded. Another process that wants vectors of this encoder
    waits meanwhile, and then finds them.
    """
    path = folder / f"{encoder.name}.vectors"
    layout = np.dtype([("digest", "V32"), ("vector", "<f4", (encoder.width,)), ("checksum", "<u4")])
    digests = [sha256(text.encode()).digest() for text in texts]
    with exclusive(path):
        records = _mended(path, layout)
        rows = {digest.tobytes(): row for row, digest in enumerate(records["digest"])}
        missing = iter({d: t for d, t in zip(digests, texts, strict=True) if d not in rows}.items())
        with path.open("ab") as file:
            while batch := dict(islice(missing, _BATCH)):
                first = file.tell() // layout.itemsize
                file.write(_packed(batch, encoder, layout))
                file.flush()
                rows |= {digest: first + i for i, digest in enumerate(batch)}
        wanted = np.array([rows[digest] for digest in digests], np.int64)
        return np.ascontiguousarray(_records(path, layout)["vector"][wanted], np.float32)


def _packed(batch: dict[bytes, str], encoder: TextEncoder, layout: np.dtype[Any]) -> bytes:
    records = np.zeros(len(batch), layout)
    records["digest"] = np.frombuffer(b"".join(batch), "V32")
    records["vector"] = encoder.encode(list(batch.values()))
    records["checksum"] = _checksums(records)
    return records.tobytes()


def _mended(path: Path, layout: np.dtype[Any]) -> NDArray[Any]:
    """The whole records of the file, which has no others afterwards. No file has none."""
    records = _records(path, layout)
    whole = records["checksum"] == _checksums(records)
    if path.exists() and not (whole.all() and path.stat().st_size == records.nbytes):
        draft = path.with_suffix(".draft")
        records[whole].tofile(draft)
        draft.replace(path)
        records = _records(path, layout)
    return records


def _records(path: Path, layout: np.dtype[Any]) -> NDArray[Any]:
    """As many as the file has bytes for, read where they lie: a catalogue's vectors may be gigabytes."""
    count = path.stat().st_size // layout.itemsize if path.exists() else 0
    return np.memmap(path, layout, "r", shape=(count,)) if count else np.zeros(0, layout)


def _checksums(records: NDArray[Any]) -> NDArray[np.uint32]:
    stored = records.dtype["checksum"].itemsize
    return np.array([zlib.crc32(record.tobytes()[:-stored]) for record in records], np.uint32)
