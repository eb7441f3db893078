"""The keys under which a Redis holds what the store keeps.

All of one user has the id between braces, the hash tag of Cluster: it lies in one slot, where one script
changes it as a whole. Everything begins with `riptide:`, so that an ACL can tell it from what is not ours.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

from features.store import user_key

UserPart: TypeAlias = Literal["u", "x", "e"]
"""The record; the mark of the exclusion list; the exposures, a hash by experiment."""

REPORTS = b"riptide:reports"
LOADED = b"riptide:loaded"


def of_user(part: UserPart, user_id: str) -> bytes:
    """The key of a part of what is kept of a user."""
    return b"riptide:%b:{%b}" % (part.encode(), _tag(user_key(user_id)))


def user_of(key: bytes) -> str:
    """The user whose part `key` names, as `features.store.user_key` spells the id."""
    tag = key.partition(b"{")[2][:-1]
    return tag.replace(b"%7D", b"}").replace(b"%25", b"%").decode()


def every(part: UserPart) -> bytes:
    """The pattern of such keys of all users."""
    return b"riptide:%b:{*" % part.encode()


def document(name: str) -> bytes:
    """The key of a document."""
    return b"riptide:d:{%b}" % _tag(name.encode())


def _tag(name: bytes) -> bytes:
    """`name` without closing braces: the first one ends a hash tag."""
    return name.replace(b"%", b"%25").replace(b"}", b"%7D")
