from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from tests.unit.training.judging import judged
from training.compare import main, verdict
from training.judged import save_judged
from training.significance import Difference

GOOD, BAD = [[1]] * 60 + [[0]] * 40, [[1]] * 30 + [[0]] * 70


def run_folder(path: Path, ranks=GOOD, config=None, **more) -> str:
    path.mkdir(parents=True)
    save_judged(path / "judged.npz", [judged(ranks, **more)])
    (path / "run.json").write_text(json.dumps({"config": config or {"model": {}, "training": {}}}))
    return str(path)


def compare(*folders: object) -> str:
    page = io.StringIO()
    assert main([str(folder) for folder in folders], Console(file=page, width=200)) == 0
    return page.getvalue()


def test_two_runs_are_compared_with_the_main_metrics_first(tmp_path: Path) -> None:
    page = compare(run_folder(tmp_path / "a"), run_folder(tmp_path / "b", BAD))
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in page.splitlines() if "│" in line]
    assert [row[0] for row in rows][:5] == ["HR@10", "NDCG@10", "MRR@10", "recall@10", "HR@5"]
    assert rows[0][1:4] == ["0.6000", "0.3000", "+0.3000"]
    assert float(rows[0][5]) < 0.01
    assert "HR@10: A is better than B by 0.3000" in page
    assert ["history ≤ 20", "100", "0.6000", "0.3000", "+0.3000"] in [row[:5] for row in rows]


def test_the_better_one_is_named_on_whichever_side_it_is(tmp_path: Path) -> None:
    page = compare(run_folder(tmp_path / "a", BAD), run_folder(tmp_path / "b"))
    assert "NDCG@10: B is better than A by 0.3000" in page


def test_a_run_does_not_differ_from_itself(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "a")
    page = compare(folder, folder)
    assert "HR@10: no difference is shown between A and B (p = 1.0000)" in page
    assert "is better" not in page


def test_the_interval_of_a_verdict_is_that_of_the_better_ones_lead() -> None:
    lead = Difference("ndcg@10", 100, 0.2, 0.1, difference=0.1, low=0.01, high=0.19, p=0.03)
    assert verdict(lead) == (
        "NDCG@10: A is better than B by 0.1000 (95 % interval +0.0100 to +0.1900, p = 0.0300)."
    )
    lag = Difference("ndcg@10", 100, 0.1, 0.2, difference=-0.1, low=-0.2, high=0.01, p=0.049)
    assert verdict(lag) == (
        "NDCG@10: B is better than A by 0.1000 (95 % interval -0.0100 to +0.2000, p = 0.0490)."
    )
    assert verdict(Difference("hr@10", 9, 0.1, 0.2, -0.1, -0.3, 0.1, p=0.05)).startswith(
        "HR@10: no difference is shown between A and B (p = 0.0500)"
    )


def test_a_folder_of_runs_is_the_mean_of_its_seeds_trained_for_leave_one_out(tmp_path: Path) -> None:
    run_folder(tmp_path / "shop" / "seed-1", GOOD)
    run_folder(tmp_path / "shop" / "seed-2", BAD)
    run_folder(tmp_path / "shop" / "time-seed-1", BAD, protocol="GlobalTime() test")
    page = compare(tmp_path / "shop", run_folder(tmp_path / "b", BAD))
    assert "mean over 2 seeds" in page
    assert "0.4500" in page


def test_seeds_of_different_settings_are_not_averaged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed, width in ((1, 16), (2, 32)):
        config = {"model": {"width": width, "page_size": 100 * seed}, "training": {"seed": seed}}
        run_folder(tmp_path / "shop" / f"seed-{seed}", config=config)
    refused(capsys, "its seeds were trained with different settings", tmp_path / "shop", tmp_path / "shop")
    for seed in (1, 2):  # what does not decide the weights may differ
        config = {"model": {"width": 16, "page_size": 100 * seed}, "training": {"seed": seed}}
        run_folder(tmp_path / "same" / f"seed-{seed}", config=config)
    assert "mean over 2 seeds" in compare(tmp_path / "same", tmp_path / "same")


def test_a_number_is_a_version_of_the_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RIPTIDE_MODEL_REPOSITORY", str(tmp_path / "repository"))
    monkeypatch.setenv("RIPTIDE_MODEL_NAME", "shop")
    for version, ranks in ((3, GOOD), (12, BAD)):
        run_folder(tmp_path / "repository" / "shop" / str(version), ranks)
    assert "HR@10: A is better than B" in compare(3, 12)
    refused(capsys, f"{tmp_path / 'repository' / 'shop' / '4'}: there is no such folder", 3, 4)


def test_a_folder_without_judged_users_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "old").mkdir()
    refused(capsys, f"{tmp_path / 'old'}: holds no judged.npz", run_folder(tmp_path / "a"), tmp_path / "old")


@pytest.mark.parametrize(
    ("other", "fault"),
    [
        ({"data": "0" * 64}, "judged on different data"),
        ({"protocol": "GlobalTime(validation_time=1, test_time=2) test"}, "judged under different protocols"),
        ({"users": range(100, 200)}, "judged by different users"),
        ({"asked": [1] * 99 + [2]}, "judged by different events: 1 of 100 users"),
        ({"cutoffs": (7,)}, "no metric in common"),
    ],
)
def test_what_was_judged_otherwise_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], other: dict[str, object], fault: str
) -> None:
    known = run_folder(tmp_path / "a", asked=[1] * 100)
    refused(capsys, fault, known, run_folder(tmp_path / "b", **other))


@pytest.mark.parametrize(
    ("known", "other"),
    [
        ({"lengths": [5] * 100}, {"lengths": [5] * 99 + [30]}),  # a kind more
        ({"lengths": [5] * 60 + [30] * 40}, {"lengths": [5] * 50 + [30] * 50}),  # the same, of other users
        ({"deciles": [[1]] * 100}, {"deciles": [[1]] * 99 + [[2]]}),
    ],
)
def test_files_that_do_not_say_by_what_they_were_judged_compare_but_for_kinds_that_differ(
    tmp_path: Path, known: dict[str, object], other: dict[str, object]
) -> None:
    page = compare(run_folder(tmp_path / "a", **known), run_folder(tmp_path / "b", BAD, **other))
    assert "HR@10: A is better than B by 0.3000" in page
    assert "By kinds of users and targets A and B do not compare" in page
    assert "train both again with the same [behaviour]" in page
    assert "history ≤ 20" not in page


def test_without_a_cutoff_of_ten_the_largest_in_common_comes_first(tmp_path: Path) -> None:
    page = compare(
        run_folder(tmp_path / "a", cutoffs=(3, 5, 10)), run_folder(tmp_path / "b", cutoffs=(5, 3, 20))
    )
    rows = [line.split("│")[1].strip() for line in page.splitlines() if "│" in line]
    assert rows[:5] == ["HR@5", "NDCG@5", "MRR@5", "recall@5", "HR@3"]
    assert not any(row.endswith(("@10", "@20")) for row in rows)


def refused(capsys: pytest.CaptureFixture[str], fault: str, *sides: object) -> None:
    page = io.StringIO()
    assert main([str(side) for side in sides], Console(file=page)) == 2
    error = capsys.readouterr().err
    assert fault in error
    assert error.count("\n") == 1
    assert page.getvalue() == ""
