from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from features.schema import PADDING_KEY, feature_key, item_key, item_keys, stable_hash, surface_key


def test_keys_never_change_since_stores_and_models_hold_them() -> None:
    assert [item_key(text) for text in ("1", "50", "用户")] == KEYS


KEYS = [8518482412311870710, -5920907471130399964, 6840071560815213383]


@given(st.text(min_size=1))
def test_no_item_has_the_key_of_padding_and_every_key_fits_64_bits(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        return  # a lone surrogate is no text
    key = item_key(text)
    assert key != PADDING_KEY
    assert item_keys([text]).dtype == np.int64
    assert item_keys([text])[0] == key


def test_both_unicode_spellings_of_a_letter_have_one_key() -> None:
    assert item_key("é") == item_key("e\u0301")
    assert item_key("e") != item_key("é")


def test_an_attribute_has_the_key_of_its_name_and_value() -> None:
    assert feature_key("country", "DE") == stable_hash("country=DE")
    assert feature_key("country", "DE") != feature_key("language", "DE")


def test_no_surface_has_the_key_of_padding() -> None:
    assert surface_key("") == PADDING_KEY
    assert surface_key("home") == stable_hash("home") != PADDING_KEY
