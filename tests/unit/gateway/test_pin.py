from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest

from features.catalog import Catalog
from features.operator_token import operator_token
from gateway.errors import InvalidRequest, NotAnOperator, NotLoaded
from gateway.pin import Pins
from gateway.routing import Router
from tests.unit.gateway.fakes import FakeRouter, serving_version


class Pinning:
    """Pins of a gateway that has versions 1 and 2, and cannot call version 3."""

    def __init__(self, catalog: Catalog, state_dir: Path) -> None:
        self.router = FakeRouter(serving_version(1, catalog), serving_version(2, catalog))
        self.router.refused[3] = "it lacks the output 'scores'"
        self.pins = Pins(cast(Router, self.router), state_dir)
        self.token = operator_token(state_dir)

    def asked(self, version: str, token: str | None = None) -> int | None:
        given = self.token if token is None else token
        metadata = [("user-agent", "test"), ("riptide-version", version), ("riptide-operator-token", given)]
        return self.pins.asked(metadata)


@pytest.fixture
def pinning(catalog: Catalog, tmp_path: Path) -> Pinning:
    return Pinning(catalog, tmp_path)


def test_an_operator_is_heard(pinning: Pinning) -> None:
    assert pinning.asked("2") == 2


def test_of_several_entries_of_a_name_the_last_counts(pinning: Pinning) -> None:
    token = ("riptide-operator-token", pinning.token)
    assert pinning.pins.asked([("riptide-version", "1"), ("riptide-version", "2"), token]) == 2
    with pytest.raises(NotAnOperator):
        pinning.pins.asked([token, ("riptide-operator-token", "wrong"), ("riptide-version", "2")])


def test_a_call_that_asks_for_nothing_needs_no_token(pinning: Pinning) -> None:
    assert pinning.pins.asked(()) is None
    assert pinning.pins.asked([("user-agent", "test"), ("riptide-operator-token", "wrong")]) is None


@pytest.mark.parametrize("token", ["", "wrong", "ü"])
def test_without_the_token_nobody_is_heard_and_told_what_there_is(pinning: Pinning, token: str) -> None:
    for version in ("2", "9", "none"):
        with pytest.raises(NotAnOperator, match="riptide-operator-token: must be this deployment's"):
            pinning.asked(version, token)
    with pytest.raises(NotAnOperator):
        pinning.pins.asked([("riptide-version", "2")])


@pytest.mark.parametrize("version", ["", "latest", "-1", "1.5", "9" * 19])
def test_what_is_no_number_is_refused(pinning: Pinning, version: str) -> None:
    with pytest.raises(InvalidRequest, match="riptide-version: must be the number of a version"):
        pinning.asked(version)


def test_a_version_that_cannot_be_called_is_refused_with_those_that_can_or_the_reason(
    pinning: Pinning,
) -> None:
    with pytest.raises(NotLoaded, match="riptide-version: version 9 is not loaded; loaded are 1, 2"):
        pinning.asked("9")
    with pytest.raises(NotLoaded, match="version 3 cannot be called: it lacks the output 'scores'"):
        pinning.asked("3")
    pinning.router.ready.clear()
    with pytest.raises(NotLoaded, match="version 1 is not loaded; loaded are none"):
        pinning.asked("1")


def test_a_token_that_is_replaced_holds_at_once(pinning: Pinning, tmp_path: Path) -> None:
    old = pinning.token
    (tmp_path / "operator_token").write_text("another")
    with pytest.raises(NotAnOperator):
        pinning.asked("2", old)
    assert pinning.asked("2", "another") == 2
