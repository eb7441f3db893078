"""Reading what h2load says."""

from __future__ import annotations

import pytest

from benchmarks.errors import BenchmarkError
from benchmarks.h2load import answered_s, failed_calls
from benchmarks.target import framed, read_bodies, write_bodies

SAID = """\
finished in 3.00s, 6287.00 req/s, 388.32KB/s
requests: 12574 total, 12574 started, 12570 done, 12560 succeeded, 14 failed, 4 errored, 10 timeout
status codes: 12560 2xx, 0 3xx, 0 4xx, 0 5xx
traffic: 776.64KB (795284) total, 54.42KB (55728) headers (space savings 96.28%), 90.21KB (92380) data
"""


def test_failed_calls_are_those_that_h2load_counts() -> None:
    assert failed_calls(SAID) == 14
    assert (
        failed_calls(SAID.replace("14 failed, 4 errored, 10 timeout", "0 failed, 2 errored, 3 timeout")) == 5
    )


def test_output_of_another_kind_is_an_error_and_not_no_failures() -> None:
    with pytest.raises(BenchmarkError, match="Connection refused"):
        failed_calls("starting benchmark...\nConnection refused\n")
    with pytest.raises(BenchmarkError, match="said nothing"):
        failed_calls("")


def test_latencies_are_those_of_calls_with_status_200_in_seconds() -> None:
    log = ["1795568046383828\t200\t12596", "1795568046384036\t503\t12", "1795568046384243\t200\t1000000", ""]
    assert answered_s(log) == [0.012596, 1.0]


def test_a_message_is_framed_as_grpc_has_it() -> None:
    assert framed(b"abc") == b"\0\0\0\0\3abc"
    assert framed(b"") == b"\0\0\0\0\0"


def test_bodies_are_read_as_they_were_written(tmp_path) -> None:
    bodies = [b"", b"abc", bytes(range(256)) * 3]
    write_bodies(tmp_path / "bodies", bodies)
    assert read_bodies(tmp_path / "bodies") == bodies
