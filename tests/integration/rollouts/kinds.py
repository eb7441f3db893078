"""The tiny models that are rolled out, by the name that tests know them by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import get_args

from tests.integration.tiny_variant import Defect, Variant

HEALTHY: Mapping[str, Variant] = {
    "first": Variant(seed=1),
    "second": Variant(seed=2),
    "third": Variant(seed=3),
    "wide": Variant(seed=2, width=6, history=12, categories=6, answer=12),
    "ranked": Variant(seed=2, attributes=("age", "country"), consumes=("CLICK", "PURCHASE")),
    "narrow": Variant(seed=2, width=3, history=5, categories=3, answer=10),
}
"""Those that a rollout lets through."""

BROKEN: Mapping[str, Variant] = {defect: Variant(seed=2, defect=defect) for defect in get_args(Defect)}
"""By their defect."""

KINDS: Mapping[str, Variant] = {**HEALTHY, **BROKEN}
