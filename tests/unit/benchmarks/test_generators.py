"""Which generator puts the load on."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from benchmarks import generators
from benchmarks.observed import Observed
from benchmarks.target import nothing, recommend_over_http

IN_C = Observed("in C", 1000, 0, 1.0, 1.0, 1.0, 1.0, 0.1)
OWN = dataclasses.replace(IN_C, generator="own")
IN_FLIGHT = 4


@pytest.fixture
def in_c(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Both generators in C, and ours, of which only the answers count here."""
    in_c = SimpleNamespace(observed=IN_C, there=True)
    for module in (generators.h2load, generators.wrk):
        monkeypatch.setattr(module, "available", lambda: in_c.there)
        monkeypatch.setattr(module, "run", lambda *_: in_c.observed)

    @contextmanager
    def begun(*_: object, **__: object) -> Iterator[SimpleNamespace]:
        yield SimpleNamespace(result=lambda: OWN)

    monkeypatch.setattr(generators, "begun", begun)
    return in_c


def test_the_one_in_c_is_taken_if_it_is_there(in_c: SimpleNamespace) -> None:
    for target in (nothing(1), recommend_over_http(1, ["u"])):
        in_c.there = True
        assert generators.closed(target, IN_FLIGHT, 1.0) is IN_C
        in_c.there = False
        assert generators.closed(target, IN_FLIGHT, 1.0) is OWN


def test_ours_is_taken_if_it_is_asked_for(in_c: SimpleNamespace) -> None:
    assert generators.closed(nothing(1), IN_FLIGHT, 1.0, own=True) is OWN


@pytest.mark.parametrize(("answered", "taken"), [(0, OWN), (19, OWN), (20, None)])
def test_too_few_answers_for_a_rate_are_measured_by_ours_which_waits_for_all(
    answered: int, taken: Observed | None, in_c: SimpleNamespace
) -> None:
    in_c.observed = dataclasses.replace(IN_C, answered=answered)
    assert generators.closed(nothing(1), IN_FLIGHT, 1.0) is (taken or in_c.observed)
