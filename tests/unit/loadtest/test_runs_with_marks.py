"""Runs during which others say what happens."""

from __future__ import annotations

import re
import threading
import time
from functools import partial
from pathlib import Path

import pytest

from tests.unit.loadtest.running import BROWSING, Done, at_once, run


@pytest.fixture(scope="module")
def done(folder: Path) -> dict[str, Done]:
    return at_once(
        {
            "one process": partial(marked, folder / "one"),
            "several": partial(marked, folder / "several", "--processes", "2"),
            "unmarked": partial(run, folder / "unmarked", "--marks", str(folder / "marks"), *BROWSING),
        }
    )


def marked(folder: Path, *processes: str) -> Done:
    """A run in the middle of which somebody marks something."""
    marks = folder.with_suffix(".marks")
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
        return run(folder, *words, *BROWSING, seconds=6)
    finally:
        over.set()
        marker.join()


@pytest.mark.parametrize("name", ["one process", "several"])
def test_what_is_marked_in_mid_run_is_told_and_cuts_it(done: dict[str, Done], name: str) -> None:
    report, output = done[name].report, done[name].output
    assert [each["text"] for each in report["marks"]] == ["the cable is out"], output
    assert re.search(r"\d\d:\d\d:\d\d, \d+ s into the run: the cable is out", output)
    assert "line 2: is no Unix time until now" in output
    [before, after] = report["between"]
    assert before["pages"]["count"] + after["pages"]["count"] == report["pages"]["count"]
    assert before["pages"]["count"] > 0
    assert after["pages"]["count"] > 0


def test_a_run_without_marks_says_nothing_of_them(done: dict[str, Done], folder: Path) -> None:
    report = done["unmarked"].report
    assert report["marks"] == report["between"] == []
    assert "Meanwhile" not in done["unmarked"].output
    assert (folder / "marks").read_text() == ""
