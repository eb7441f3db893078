"""What is served is what was trained."""

from __future__ import annotations

import re

from tests.e2e.conftest import QUICK, Deployment


def test_pages_of_recorded_requests_are_those_computed_offline(deployment: Deployment) -> None:
    compared = deployment.run("benchmarks.parity", "--config", str(QUICK), "--requests", "200", timeout_s=300)
    assert compared.returncode == 0, compared.stdout + compared.stderr
    said = re.search(r"(\d+) requests .* other items or another order than offline: 0;", compared.stdout)
    assert said, compared.stdout
    assert int(said[1]) >= 190  # but for users whom other tests have recorded events for
