"""Keys, event types and categorical hashes: the words that training and serving have in common."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from enum import IntEnum
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

PADDING_KEY = 0
"""Fills unused slots of a key array; no item has it."""

MAX_ID_BYTES = 256
"""Longest user or item id, in UTF-8 bytes."""


class EventType(IntEnum):
    """What a user did with an item. The numbers equal those of `EventType` in the .proto, and are stored."""

    VIEW = 1
    CLICK = 2
    PLAY = 3
    READ = 4
    LIKE = 5
    SAVE = 6
    SHARE = 7
    RATE = 8
    ADD_TO_CART = 9
    PURCHASE = 10


def stable_hash(text: str) -> int:
    """A signed 64-bit hash that is the same in every process, machine and release; never `PADDING_KEY`.

    BLAKE2b with an 8-byte digest over the NFC form, so that the two Unicode spellings of "é" are one id.
    With 10^6 ids the chance of any collision is about 3 in 10^8; export refuses a catalogue that has one.
    """
    digest = blake2b(unicodedata.normalize("NFC", text).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True) or 1


def item_key(item_id: str) -> int:
    """The key under which models and stores know an item."""
    return stable_hash(item_id)


def item_keys(item_ids: Iterable[str]) -> NDArray[np.int64]:
    """`item_key` of each id, int64 `[N]`."""
    return np.fromiter((stable_hash(item_id) for item_id in item_ids), dtype=np.int64)


def feature_key(name: str, value: str) -> int:
    """The key of a categorical attribute of a user, int64, e.g. of `country` and `DE`; never 0.

    0 stands for an attribute that a user does not have. Training and serving hash the same text,
    `"country=DE"`, so that two attributes with one value have two keys.
    """
    return stable_hash(f"{name}={value}")


def surface_key(surface: str) -> int:
    """The key of a surface (where a user saw or did something), int64; 0 for "", an unknown surface."""
    return stable_hash(surface) if surface else 0
