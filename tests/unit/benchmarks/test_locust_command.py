"""What of Locust's command line is set by what measures with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.locust_command import locust_command, why_refused


@pytest.mark.parametrize(
    ("word", "option"),
    [
        ("-u10", "-u"),
        ("-t=5s", "-t"),
        ("-Hother:1", "-H"),
        ("--ho", "--host"),
        ("--user", "--users"),
        ("--run-t=5s", "--run-time"),
        ("--rate-per", "--rate-per-user"),
        ("--repo", "--report"),
    ],
)
def test_an_option_that_is_set_here_is_known_however_it_is_written(word: str, option: str) -> None:
    expected = f"{word}: {option} is set here, not by who calls this"
    assert why_refused(["--plain", word, "x"], "--host", "-H") == expected


@pytest.mark.parametrize("word", ["--worker", "--master", "--mast"])
def test_what_takes_several_commands_is_refused_and_the_way_out_named(word: str) -> None:
    assert why_refused([word]).endswith("cannot be used here; --processes can")


@pytest.mark.parametrize("word", ["--anonymous", "--processes", "--slo", "-H", "Plain", "-1"])
def test_all_others_are_for_locust(word: str) -> None:
    assert why_refused([word]) == ""


def test_ours_come_last_and_so_count() -> None:
    words = locust_command(100, Path("report"), ["-u", "3", "--slo", "mine"], "-t", "5s")
    assert words[words.index("--slo") + 2 :] == [
        *("-u", "50", "--rate-per-user", "2.0", "--report", "report", "-t", "5s"),
    ]
