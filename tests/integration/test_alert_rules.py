"""Prometheus itself reads the configuration, and the alerts fire when they should."""

from __future__ import annotations

import subprocess

import pytest

from tests.observability import FOLDER

pytestmark = pytest.mark.promtool


def promtool(*words: str) -> None:
    done = subprocess.run(
        ["promtool", *words], cwd=FOLDER, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_configuration_and_the_rules_it_names_are_valid() -> None:
    promtool("check", "config", "prometheus.yml")


@pytest.mark.parametrize("file", sorted(path.name for path in FOLDER.glob("*_test.yml")))
def test_alerts_fire_when_they_should_and_not_when_not(file: str) -> None:
    promtool("test", "rules", file)
