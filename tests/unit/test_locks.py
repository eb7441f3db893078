"""The lock files pin every package with hashes, and name no place to get them from."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LOCKS = ["requirements.lock", "requirements-triton.lock"]


def entries(lock: str) -> list[str]:
    """The requirements of a lock, continuation lines joined, comments left out."""
    lines = [line for line in (ROOT / lock).read_text().splitlines() if not line.lstrip().startswith("#")]
    return [entry for entry in "\n".join(lines).replace("\\\n", " ").splitlines() if entry.strip()]


@pytest.mark.parametrize("lock", LOCKS)
def test_every_package_has_one_version_and_hashes(lock: str) -> None:
    assert entries(lock)
    loose = [
        entry
        for entry in entries(lock)
        if not re.fullmatch(r"[\w.-]+==\S+( ; .+?)?(\s+--hash=sha256:\w{64})+\s*", entry)
    ]
    assert not loose


@pytest.mark.parametrize("lock", LOCKS)
def test_no_lock_names_a_place(lock: str) -> None:
    text = (ROOT / lock).read_text()
    assert "://" not in text
    assert not re.search(r"^\s*(-i|-f|--index-url|--extra-index-url|--find-links)\b", text, re.MULTILINE)
