from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from redis.crc import key_slot

from features import redis_keys
from features.redis_keys import of_user, user_of
from features.store import user_key

ids = st.text(st.characters(exclude_categories=["Cs"]), min_size=1) | st.text("{}%7D25:ab", min_size=1)


@given(user=ids)
def test_all_of_a_user_is_in_one_slot(user: str) -> None:
    assert len({key_slot(of_user(part, user)) for part in ("u", "x", "e")}) == 1


@given(user=ids)
def test_the_user_is_read_from_each_key(user: str) -> None:
    assert all(user_of(of_user(part, user)).encode() == user_key(user) for part in ("u", "x", "e"))


@given(user=ids, other=ids)
def test_keys_of_different_users_and_documents_differ(user: str, other: str) -> None:
    keys = {of_user(part, each) for part in ("u", "x", "e") for each in (user, other)}
    assert len(keys) == 3 * len({user_key(user), user_key(other)})
    assert (redis_keys.document(user) == redis_keys.document(other)) == (user == other)


def test_users_are_spread_over_slots() -> None:
    assert len({key_slot(of_user("u", f"user-{n}")) for n in range(1000)}) > 900
