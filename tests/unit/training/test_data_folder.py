"""Preparing a log: the folder that it is written to."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.training.preparing import NOON, config, log, rows, run
from training import preparation
from training.data_folder import replacing
from training.events import print_report


def test_what_a_killed_preparation_left_behind_is_removed(tmp_path: Path) -> None:
    leftover = tmp_path / "var" / "data" / ".log.new" / "work"
    leftover.mkdir(parents=True)
    assert run(tmp_path, log(f"a,x,{NOON}")).report.events == 1
    assert not leftover.parent.exists()


def test_the_same_input_is_not_prepared_again(tmp_path: Path) -> None:
    first = run(tmp_path, log(f"a,x,{NOON}"))
    again = run(tmp_path, log(f"a,x,{NOON}"), config(memory_limit_mb=512))
    assert (first.reused, again.reused) == (False, True)
    assert again.report == first.report


def test_other_input_settings_or_forgotten_users_are_prepared_again(tmp_path: Path) -> None:
    text = log(f"a,x,{NOON}", f"b,x,{NOON}")
    prepared = [
        run(tmp_path, text),
        run(tmp_path, text + "\n"),
        run(tmp_path, text, config(unknown_items="keep")),
        run(tmp_path, text, excluded=frozenset({"b"})),
    ]
    assert [done.reused for done in prepared] == [False] * 4
    assert len({done.fingerprint for done in prepared}) == 4
    assert [row["user_id"] for row in rows(prepared[-1])] == ["a"]


def test_events_that_are_in_the_future_no_more_make_it_other_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = log(f"a,x,{NOON}", f"b,x,{NOON + 7 * 86_400}")
    monkeypatch.setattr(preparation.time, "time", lambda: NOON + 60.0)
    first = run(tmp_path, text)
    monkeypatch.setattr(preparation.time, "time", lambda: NOON + 8 * 86_400.0)
    later = run(tmp_path, text, excluded=frozenset("c"))
    assert (first.report.events, later.report.events) == (1, 2)
    assert later.fingerprint != first.fingerprint


def test_only_a_forgotten_user_of_the_log_makes_it_other_data(tmp_path: Path) -> None:
    text = log(f"a,x,{NOON}", f"b,x,{NOON}")
    first, nobody, again, one, back = (
        run(tmp_path, text, excluded=frozenset(users)) for users in ((), "c", "c", "bc", "c")
    )
    assert [done.reused for done in (first, nobody, again, one, back)] == [False, False, True, False, False]
    assert first.fingerprint == nobody.fingerprint == again.fingerprint == back.fingerprint
    assert one.fingerprint != first.fingerprint
    assert (first.forgetting, again.forgetting) == (None, None)
    assert "of nobody in this log" in (nobody.forgetting or "")
    assert "of users in this log" in (one.forgetting or "")
    other = run(tmp_path, text + "\n", excluded=frozenset("abc"[:1]))
    assert other.forgetting is None, "the input has changed, too"


def test_a_folder_that_cannot_be_replaced_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "folder"
    with replacing(folder) as new:
        (new / "file").write_text("first")
    rename = Path.rename

    def fails(path: Path, target: Path) -> Path:
        if path.name.endswith(".new"):
            raise OSError("no")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", fails)
    with pytest.raises(OSError, match="no"), replacing(folder) as new:
        (new / "file").write_text("second")
    assert (folder / "file").read_text() == "first"
    assert list(tmp_path.iterdir()) == [folder]


def test_a_folder_that_lost_a_file_is_prepared_again(tmp_path: Path) -> None:
    text = log(f"a,x,{NOON}")
    (run(tmp_path, text).folder / "items.parquet").unlink()
    assert not run(tmp_path, text).reused


def test_the_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    text = log(*(f"u{n % 7},i{n % 5},{NOON + n % 11}" for n in range(200)))
    first = (run(tmp_path, text).folder / "events.parquet").read_bytes()
    second = tmp_path / "second"
    second.mkdir()
    assert (run(second, text).folder / "events.parquet").read_bytes() == first


def test_the_printed_report_names_counts_and_reasons(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    done = run(tmp_path, log(f"a,x,{NOON}", "a,x,never"))
    print_report(done.report, done.folder)
    printed = capsys.readouterr().out
    assert "dropped: unreadable time" in printed
    assert "1 events of 1 users on 1 items" in printed
