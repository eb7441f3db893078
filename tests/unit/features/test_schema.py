from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from features.schema import PADDING_KEY, item_key, item_keys


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
