"""Which scenarios are measured, and what the sweep changes."""

from __future__ import annotations

import fcntl
import subprocess
from importlib import import_module
from pathlib import Path

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from benchmarks import __main__ as command
from benchmarks.bench import Bench, in_turn
from benchmarks.errors import BenchmarkError
from benchmarks.observed import Observed
from benchmarks.section import Measured, Section
from benchmarks.sweep import VARIANTS, changed
from features.settings import Settings


@pytest.mark.parametrize("name", command.SCENARIOS)
def test_every_scenario_has_its_module(name: str) -> None:
    assert callable(import_module(command.SCENARIOS[name]).run)


class Scenario:
    """Stands for a scenario's module."""

    def __init__(self, name: str, ran: list[str]) -> None:
        self._name, self._ran = name, ran

    def run(self, bench: Bench) -> Section:
        self._ran.append(self._name)
        (bench.work / "left").write_text("something")
        if self._name.endswith("histories"):
            raise BenchmarkError("no memory left")
        if self._name.endswith("sizes"):
            raise subprocess.TimeoutExpired("pip", 9.0)
        observed = Observed("own, 1", 10, 0, 1.0, 1.0, 1.0, 1.0, 0.1)
        section = Section(self._name)
        with bench.kept(section):
            section.measured.append(Measured(1, self._name, "1 in flight", observed))
            if self._name.endswith("catalogues"):
                raise OSError("the disk is full")
        return section


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    ran: list[str] = []
    monkeypatch.setenv("RIPTIDE_STATE_DIR", str(tmp_path / "var"))
    monkeypatch.setattr(
        command, "import_module", lambda module: Scenario(module.removeprefix("benchmarks."), ran)
    )
    return ran


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr("sys.argv", ["benchmarks", *words])
    return command.main()


@pytest.mark.parametrize(
    ("option", "value", "wanted"),
    [
        ("--rounds", "0", "1 or more"),
        ("--rounds", "many", "1 or more"),
        ("--seconds", "-1", "from 0.1 to 600"),
        ("--seconds", "nan", "from 0.1 to 600"),
        ("--in-flight", "65", "a multiple of 4 from 64 on"),
        ("--in-flight", "16", "a multiple of 4 from 64 on"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_anything_is_started(
    monkeypatch: pytest.MonkeyPatch,
    ran: list[str],
    capsys: pytest.CaptureFixture[str],
    option: str,
    value: str,
    wanted: str,
) -> None:
    with pytest.raises(SystemExit) as ended:
        run(monkeypatch, f"{option}={value}")
    assert (ended.value.code, ran) == (2, [])
    assert f"argument {option}: must be {wanted}, not {value!r}" in capsys.readouterr().err


def test_by_default_what_takes_long_is_left_out(monkeypatch: pytest.MonkeyPatch, ran: list[str]) -> None:
    run(monkeypatch)
    always = ["throughput", "few_calls", "sizes", "catalogues", "histories", "stores", "freshness"]
    assert ran == [*always, "observability"]


@pytest.mark.parametrize(
    ("only", "found"),
    [("peers,stores", ["peers.scenario", "stores"]), ("stores", ["stores", "peers.scenario"])],
)
def test_peers_come_on_request_and_once(
    only: str, found: list[str], monkeypatch: pytest.MonkeyPatch, ran: list[str]
) -> None:
    run(monkeypatch, "--only", only, "--peers")
    assert ran == found


def test_a_scenario_that_fails_does_not_take_the_others_with_it(
    monkeypatch: pytest.MonkeyPatch, ran: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "--only", "histories,stores") == 2
    assert ran == ["histories", "stores"]
    assert "histories: no memory left" in capsys.readouterr().err
    [folder] = (tmp_path / "var/bench").glob("[0-9]*")
    assert "## stores" in (folder / "table.md").read_text()
    assert not (folder / "work").exists()
    assert {path.name for path in folder.iterdir()} == {"log", "table.md", "results.json"}


def test_what_was_measured_before_a_failure_stays_with_the_failure_beside_it(
    monkeypatch: pytest.MonkeyPatch, ran: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "--only", "catalogues,sizes,stores") == 2
    assert ran == ["catalogues", "sizes", "stores"]
    [folder] = (tmp_path / "var/bench").glob("[0-9]*")
    table = (folder / "table.md").read_text()
    assert "| catalogues | 1 in flight | own, 1 |" in table
    assert "- Not all was measured: OSError: the disk is full" in table
    assert "- Not all was measured: not done after 9 s: pip" in table
    assert "catalogues: OSError: the disk is full" in capsys.readouterr().err


def test_the_callers_settings_are_not_measured_but_where_things_are(
    monkeypatch: pytest.MonkeyPatch, ran: list[str], tmp_path: Path
) -> None:
    given: list[Settings] = []
    monkeypatch.setenv("RIPTIDE_STORE", "redis://somebody:secret@elsewhere")
    monkeypatch.setenv("RIPTIDE_MODEL_NAME", "another")
    monkeypatch.setenv("RIPTIDE_TRITON_PYTHON", str(tmp_path / "python"))

    def note(scenario: Scenario, bench: Bench) -> Section:
        given.append(bench.settings)
        return Section("none")

    monkeypatch.setattr(Scenario, "run", note)
    assert run(monkeypatch, "--only", "stores") == 0
    [settings] = given
    assert (settings.store, settings.model_name) == ("lmdb", "recommender")
    assert (settings.state_dir, settings.triton_python) == (tmp_path / "var", tmp_path / "python")


def test_even_rounds_go_backwards() -> None:
    assert [in_turn("abc", number) for number in (1, 2, 3)] == ["abc", "cba", "abc"]


def test_two_benchmarks_do_not_run_at_once(
    monkeypatch: pytest.MonkeyPatch, ran: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "var/bench").mkdir(parents=True)
    with (tmp_path / "var/bench/.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert run(monkeypatch, "--only", "stores") == 2
    assert ran == []
    assert "another benchmark is at work" in capsys.readouterr().err
    assert run(monkeypatch, "--only", "stores") == 0


def test_an_unknown_scenario_is_refused_with_the_known_ones(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        run(monkeypatch, "--only", "speed")
    assert "'speed' is none of throughput, " in capsys.readouterr().err


def test_the_sweep_changes_its_own_configuration_and_not_the_one_that_is_kept(tmp_path: Path) -> None:
    kept = model_config_pb2.ModelConfig(name="recommender")
    kept.instance_group.add(count=1)
    kept.dynamic_batching.SetInParent()
    text = text_format.MessageToString(kept)
    (tmp_path / "kept.pbtxt").write_text(text)
    texts = set()
    for number, variant in enumerate(VARIANTS):
        folder = tmp_path / str(number) / "recommender"
        folder.mkdir(parents=True)
        (folder / "config.pbtxt").hardlink_to(tmp_path / "kept.pbtxt")
        changed(variant.change)(folder.parent)
        texts.add((folder / "config.pbtxt").read_text())
        assert (tmp_path / "kept.pbtxt").read_text() == text
        assert [path.name for path in folder.iterdir()] == ["config.pbtxt"]
    # The other variants change a variable or the gateway, or nothing.
    assert len(texts) == 1 + sum(
        "instances" in v.name or "threads" in v.name or "delay" in v.name for v in VARIANTS
    )
