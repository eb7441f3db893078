"""Preparing a log: what is dropped, and that every row is accounted for."""

from __future__ import annotations

import csv
import json
import unicodedata
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from features.schema import EventType
from tests.unit.training.preparing import NOON, config, log, quarantine, rows, run


def test_every_bad_row_is_quarantined_with_its_line_and_reason(tmp_path: Path) -> None:
    settings = config(events={"columns": {"type": "type", "weight": "weight"}}, min_events_per_user=2)
    text = log(
        f"a,x,{NOON},VIEW,1",
        f",x,{NOON},VIEW,1",
        f"a,,{NOON},VIEW,1",
        f"{'é' * 129},x,{NOON},VIEW,1",
        "a,x,yesterday,VIEW,1",
        "a,x,0,VIEW,1",
        f"a,x,{NOON * 2},VIEW,1",
        f"a,x,{NOON},STARE,1",
        f"a,x,{NOON},VIEW,inf",
        f"a,x,{NOON},VIEW,much",
        f"a,nowhere,{NOON},VIEW,1",
        f"a,x,{NOON}.4,VIEW,9",
        f"b,x,{NOON},VIEW,1",
        f"a,x,{NOON},VIEW,1,more",
        f'a,"x,{NOON},VIEW,1',
        f'a,"y\ny",{NOON},VIEW,1',
        f"a,y,{NOON},VIEW,nan",
        f"a,x,{NOON},CLICK,1",
        header="user_id,item_id,time,type,weight",
    )
    done = run(tmp_path, text, settings, items='item_id,title\nx,X\n"y\ny",Y\n')
    assert quarantine(done) == [
        (3, "user id is missing"),
        (4, "item id is missing"),
        (5, "user id is longer than 256 bytes"),
        (6, "unreadable time"),
        (7, "time out of range"),
        (8, "time out of range"),
        (9, "unknown event type"),
        (10, "weight is not a finite number"),
        (11, "weight is not a finite number"),
        (12, "item is not in the items file"),
        (13, "duplicate event"),
        (14, "user has too few events"),
        (15, "wrong number of columns"),
        (16, "unclosed or misplaced quote"),
        (19, "weight is not a finite number"),
    ]
    assert done.report.events_file.rows_read == 18
    assert done.report.events == 3


def test_a_dropped_row_can_be_read_in_the_quarantine(tmp_path: Path) -> None:
    done = run(tmp_path, log(f"a,x,{NOON}", 'a,"say ""hi""",soon', "a,x"))
    with (done.folder / "quarantine.csv").open(newline="", encoding="utf-8") as stream:
        first, second = csv.DictReader(stream)
    assert json.loads(first["row"]) == {"user_id": "a", "item_id": 'say "hi"', "time": "soon"}
    assert (second["row"], second["file"]) == ("a,x", str(tmp_path / "events.csv"))


def test_bytes_that_are_not_text_cost_only_their_row(tmp_path: Path) -> None:
    done = run(tmp_path, f"user_id,item_id,time\na,x,{NOON}\nb\xff,x,{NOON}\nc,x,{NOON}\n".encode("latin-1"))
    assert [row["user_id"] for row in rows(done)] == ["a", "c"]
    assert quarantine(done) == [(3, "not text in utf-8")]


def test_a_file_in_another_encoding_is_read_in_it(tmp_path: Path) -> None:
    done = run(tmp_path, log(f"Zoë,x,{NOON}").encode("latin-1"), config(events={"encoding": "latin-1"}))
    assert rows(done)[0]["user_id"] == "Zoë"


def test_the_line_of_a_parquet_row_is_its_number(tmp_path: Path) -> None:
    table = pa.table({"user_id": ["a", None, "a"], "item_id": ["x", "x", "y"], "time": [NOON, NOON, None]})
    pq.write_table(table, tmp_path / "e.parquet")
    assert quarantine(run(tmp_path, tmp_path / "e.parquet")) == [
        (2, "user id is missing"),
        (3, "unreadable time"),
    ]


def test_nothing_of_a_forgotten_user_is_written_down(tmp_path: Path) -> None:
    done = run(
        tmp_path,
        log(f"secret,x,{NOON}", "secret,x,never", 'secret,x,"1', "secret,x", f"a,x,{NOON}"),
        users="user_id,country\nsecret,NZ\na,FR\n",
        excluded=frozenset({"secret"}),
    )
    assert done.report.events_file.rows_dropped["forgotten user"] == 2
    assert [row["user_id"] for row in rows(done, "users")] == ["a"]
    for path in done.folder.iterdir():
        assert b"secret" not in path.read_bytes()
        assert b"NZ" not in path.read_bytes()


ODD_CELL = st.sampled_from(["a", "b", "é", "", " ", "日本", "x" * 300, '"', "1,2", "\n"])
ODD_ROW = st.tuples(
    ODD_CELL,
    ODD_CELL,
    st.sampled_from([str(NOON), str(NOON + 1), "", "soon", "-1", "9" * 30, "1e400", "nan"]),
    st.sampled_from(["1", "", "inf", "nan", "1e39", "-0.5", "x"]),
)
FEW_RUNS = settings(
    max_examples=15,  # each prepares a log, which takes a third of a second
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@FEW_RUNS
@given(st.lists(ODD_ROW, max_size=12), st.text(alphabet='ab,"\n', max_size=12), st.integers(1, 3))
def test_every_row_is_either_kept_or_in_the_quarantine(
    tmp_path: Path, odd: list[tuple[str, ...]], junk: str, least: int
) -> None:
    path = tmp_path / "events.csv"
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["user_id", "item_id", "time", "weight"])
        writer.writerows(odd)
        writer.writerows([("good", f"item {n}", NOON, 1) for n in range(3)])
        stream.write(junk)
    settings = config(events={"columns": {"weight": "weight"}}, min_events_per_user=least)
    done = run(tmp_path, path, settings)
    account = done.report.events_file
    dropped = quarantine(done)
    assert account.rows_read == account.rows_kept + sum(account.rows_dropped.values())
    assert len(rows(done)) == account.rows_kept >= 3
    assert len(dropped) == sum(account.rows_dropped.values())
    assert len({line for line, _ in dropped}) == len(dropped)


ID = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=20
).filter(str.strip)


@FEW_RUNS
@given(
    st.lists(
        st.tuples(ID, ID, st.integers(NOON, NOON + 10**7), st.sampled_from(EventType)),
        min_size=1,
        max_size=20,
    )
)
def test_any_valid_log_comes_back_whole(
    tmp_path: Path, events: list[tuple[str, str, int, EventType]]
) -> None:
    path = tmp_path / "events.csv"
    with path.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream, quoting=csv.QUOTE_ALL).writerows(
            [
                ("user_id", "item_id", "time", "type"),
                *((user, item, moment, kind.name) for user, item, moment, kind in events),
            ]
        )
    done = run(tmp_path, path, config(events={"columns": {"type": "type"}}))
    wanted = {
        (unicodedata.normalize("NFC", user), unicodedata.normalize("NFC", item), moment, int(kind))
        for user, item, moment, kind in events
    }
    got = [(row["user_id"], row["item_id"], row["time"], row["type"]) for row in rows(done)]
    assert len(got) == len(wanted)
    assert set(got) == wanted
