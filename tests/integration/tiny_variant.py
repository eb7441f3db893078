"""What the tiny model can be like, and how exports of it are made; without TensorFlow, for any test."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from features.schema import item_key
from tests.integration.program import ROOT

ITEMS = 50
ITEM_IDS = sorted((f"item-{number}" for number in range(ITEMS)), key=item_key)
GOLDEN_TIME = 1_700_000_000
"""`request_time` of the golden requests, Unix seconds."""
COUNTRIES = ("DE", "FR", "IT")
"""Values of the attribute `country` that models know which take it: users of the first lean towards
`ITEM_IDS[0]`, those of the next one towards `ITEM_IDS[1]`."""
SURFACES = ("home", "basket")
"""Surfaces that models know which take one."""
LIVE_SINCE = 1_750_000_000
"""Requests after this moment are live ones."""

Defect: TypeAlias = Literal[
    "nan",
    "nan-live",
    "shuffled",
    "shuffled-live",
    "slow",
    "slow-live",
    "failing-live",
    "huge",
    "wrong-signature",
]
"""What is wrong with a version; `-live`: only with answers to live requests, so that golden ones see nothing.

`nan`: every score is NaN.
`shuffled`: item vectors stand beside the wrong items, so that hardly an item is on the page it belongs to.
`slow`: a call takes tens of milliseconds, however many rows it has.
`failing`: about 1 % of the rows fail their call, each user's once in 100 seconds.
`huge`: to be loaded it wants more memory than any machine has.
`wrong-signature`: it wants an input that nobody can fill.
"""


@dataclass(frozen=True, slots=True)
class Variant:
    """One tiny model. Those of different seeds and widths have mostly the same items on their pages."""

    seed: int = 1
    width: int = 4
    """D of the contract."""
    history: int = 8
    """T."""
    categories: int = 4
    """C, the one of items without a category included."""
    answer: int = 10
    """K."""
    attributes: Sequence[str] | None = None
    """The user attributes that it takes. Set, also if to none, it takes types, surface and diversity too, and
    answers probabilities; None: it is a version of an earlier release."""
    consumes: Sequence[str] | None = None
    """Names of the event types whose items it does not show again; None: all."""
    ignores: Sequence[str] = ()
    """Names of the event types that it is not told of; for models that take types."""
    defect: Defect | None = None


def write_exports(variants: Mapping[Path, Variant]) -> None:
    """Writes an export of each variant into its folder, by one process: TensorFlow takes seconds to start."""
    spec = json.dumps({str(folder): asdict(variant) for folder, variant in variants.items()})
    subprocess.run(
        [sys.executable, "-m", "tests.integration.tiny_model", spec],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
