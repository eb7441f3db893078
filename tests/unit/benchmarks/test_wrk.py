"""Reading what wrk says."""

from __future__ import annotations

import pytest

from benchmarks.errors import BenchmarkError
from benchmarks.wrk import parse

SAID = """\
Running 2s test @ http://127.0.0.1:47998/recommend
  1 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency   160.03ms  150.20ms 900.12ms   82.00%
    Req/Sec   371.61    110.00   600.00     70.00%
  Latency Distribution
     50%  950.00us
     75%  200.00ms
     90%  400.00ms
     99%    1.25s
  713 requests in 2.01s, 1.00MB read
  Socket errors: connect 1, read 2, write 0, timeout 4
  Non-2xx or 3xx responses: 13
Requests/sec:    354.73
"""


def test_percentiles_are_in_milliseconds_whatever_their_unit() -> None:
    found = parse(SAID, 943, cpu_s=0.402)
    assert (found.p50_ms, found.p99_ms) == (pytest.approx(0.95), pytest.approx(1250.0))


def test_refused_and_lost_calls_are_failed_and_not_answered() -> None:
    found = parse(SAID, 943, cpu_s=0.402)
    assert found.answered == 700
    assert found.failed == 20
    assert found.per_s == pytest.approx(700 / 2.01)
    assert found.cores == pytest.approx(0.2)
    assert found.generator == "wrk, 943"


def test_a_run_without_errors_has_none() -> None:
    lines = [line for line in SAID.splitlines() if "errors" not in line and "Non-2xx" not in line]
    assert parse("\n".join(lines), 1, 0.0).failed == 0


def test_output_of_another_kind_is_an_error() -> None:
    with pytest.raises(BenchmarkError):
        parse("unable to connect to 127.0.0.1:1 Connection refused", 1, 0.0)
