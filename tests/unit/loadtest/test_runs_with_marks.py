"""Runs during which others say what happens."""

from __future__ import annotations

import re
import threading
import time
from pathlib import Path

import pytest

from tests.unit.loadtest.running import BROWSING, Gateway, figures


@pytest.mark.parametrize("processes", [(), ("--processes", "2")], ids=["one process", "several"])
def test_what_is_marked_in_mid_run_is_told_and_cuts_it(
    gateway: Gateway, data: Path, tmp_path: Path, processes: tuple[str, ...]
) -> None:
    marks = tmp_path / "marks"
    over = threading.Event()

    def mark() -> None:
        # The file is there once all users call.
        while not marks.exists() and not over.wait(0.05):
            pass
        # In another second than its first: a run is cut at seconds.
        begun = int(time.time())
        while time.time() < begun + 2 and not over.wait(0.05):
            pass
        with marks.open("a") as file:
            file.write(f"{time.time():.3f} the cable is out\nnonsense\n")

    marker = threading.Thread(target=mark)
    marker.start()
    try:
        words = ("--marks", str(marks), "--rate-per-user", "10", *processes)
        report = figures(gateway.address, data, *words, *BROWSING, seconds=6)
    finally:
        over.set()
        marker.join()
    output = report["output"]
    assert [each["text"] for each in report["marks"]] == ["the cable is out"], output
    assert re.search(r"\d\d:\d\d:\d\d, \d s into the run: the cable is out", output)
    assert "line 2: is no Unix time until now" in output
    [before, after] = report["between"]
    assert before["pages"]["count"] + after["pages"]["count"] == report["pages"]["count"]
    assert before["pages"]["count"] > 0
    assert after["pages"]["count"] > 0


def test_a_run_without_marks_says_nothing_of_them(gateway: Gateway, data: Path, tmp_path: Path) -> None:
    report = figures(gateway.address, data, "--marks", str(tmp_path / "marks"), *BROWSING, seconds=2)
    assert report["marks"] == report["between"] == []
    assert "Meanwhile" not in report["output"]
    assert (tmp_path / "marks").read_text() == ""
