"""What `python -m rollout publish` says."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import rollout.__main__ as command
from rollout.publish import Published


def test_it_says_how_the_version_gets_traffic(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    outcome = Published(3, tmp_path / "3", fresh=True, config_changed=False)
    monkeypatch.setattr(command, "probe", lambda _: None)
    monkeypatch.setattr(command, "check_interpreter", lambda _: None)
    monkeypatch.setattr(command, "publish", lambda *_, **__: outcome)
    monkeypatch.setattr(sys, "argv", ["rollout", "publish", "--export", str(tmp_path)])
    assert command.main() == 0
    said = capsys.readouterr().out
    assert "version 3" in said
    assert "it gets traffic with make rollout" in said
