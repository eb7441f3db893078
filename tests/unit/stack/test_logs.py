"""Log files: set aside at a start, and read as they grow."""

from __future__ import annotations

from pathlib import Path

from stack.logs import NewLines, set_aside, tail


def test_a_log_is_set_aside_in_place_of_an_older_one(tmp_path: Path) -> None:
    log = tmp_path / "log" / "triton.log"
    set_aside(log)
    for text in ("first", "second"):
        log.write_text(text)
        set_aside(log)
    assert not log.exists()
    assert [path.name for path in log.parent.iterdir()] == ["triton.log.1"]
    assert log.with_name("triton.log.1").read_text() == "second"


def test_each_line_is_read_once_and_whole(tmp_path: Path) -> None:
    log = tmp_path / "triton.log"
    log.write_text("triton ready: the run before\n")
    lines = NewLines(log)
    assert lines.read() == []
    with log.open("a") as out:
        for text, expected in (
            ("triton rea", []),
            ("dy: now\nnext", ["triton ready: now"]),
            ("", []),
            ("\n\n", ["next", ""]),
        ):
            out.write(text)
            out.flush()
            assert lines.read() == expected


def test_a_tail_is_the_last_lines(tmp_path: Path) -> None:
    log = tmp_path / "triton.log"
    log.write_text("".join(f"line {n}\n" for n in range(10_000)))
    assert tail(log, 2) == ["line 9998", "line 9999"]
