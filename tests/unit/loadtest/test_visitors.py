"""Whose pages are asked for."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from loadtest._visitors import Visitors, newest_data


def test_without_data_it_says_where_it_looked(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=re.escape(str(tmp_path))):
        newest_data(tmp_path)


def test_the_newest_data_are_taken(data: Path) -> None:
    assert newest_data(data.parents[1]) == data


def test_users_are_ranked_by_their_events(data: Path) -> None:
    assert Visitors(data).ids == ["busy", "calm", "née"]
