"""How the number of users changes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from loadtest.shapes import SHAPES, day, ramp, soak, spike

ROOT = Path(__file__).parents[3]

PARTS = [number / 1000 for number in range(1000)]


@pytest.mark.parametrize("name", [name for name, share in SHAPES.items() if share is not None])
def test_each_has_all_users_at_some_time_and_never_more(name: str) -> None:
    share = SHAPES[name]
    assert share is not None
    there = [share(part) for part in PARTS]
    assert max(there) == pytest.approx(1, abs=0.02)
    assert max(there) <= 1
    assert min(there) > 0


def test_a_ramp_goes_up_in_ten_steps() -> None:
    assert sorted({ramp(part) for part in PARTS}) == [step / 10 for step in range(1, 11)]
    assert [ramp(part) for part in PARTS] == sorted(ramp(part) for part in PARTS)


def test_a_spike_is_five_times_what_is_before_and_after_it() -> None:
    assert (spike(0.0), spike(0.5), spike(0.9)) == (0.2, 1.0, 0.2)


def test_a_soak_stays_and_a_day_has_a_quiet_morning_and_a_full_evening() -> None:
    assert {soak(part) for part in PARTS} == {1.0}
    morning, evening = day(0.0), day((20.5 - 4) / 24)
    assert morning < 0.25
    assert evening == pytest.approx(1, abs=0.01)
    assert morning < day((12.5 - 4) / 24) < evening


def test_what_tests_import_leaves_the_standard_library_as_it_is() -> None:
    code = "import sys, loadtest.shapes, loadtest.slo, loadtest._text; sys.exit('gevent' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
