"""What `RIPTIDE_STORE` may say of a Redis or Valkey, and what is said of what it may not."""

from __future__ import annotations

from pathlib import Path

import pytest

from features.redis_address import Address, parse
from features.settings import Settings
from features.store import StoreUnavailable, open_store

SECRET = "s3cr:t@/?#"
QUOTED = "s3cr%3At%40%2F%3F%23"


@pytest.mark.parametrize(
    ("store", "address"),
    [
        ("redis://h:1", Address("server", (("h", 1),))),
        ("redis://h:1/", Address("server", (("h", 1),))),
        ("redis://10.0.0.1:6379/15", Address("server", (("10.0.0.1", 6379),), database=15)),
        ("redis://u:p@h:1", Address("server", (("h", 1),), user="u", password="p")),
        ("redis://:p@h:1", Address("server", (("h", 1),), password="p")),
        (f"redis://u:{QUOTED}@h:1", Address("server", (("h", 1),), user="u", password=SECRET)),
        ("rediss://h:1", Address("server", (("h", 1),), tls=True)),
        ("redis+cluster://a:1,b:2", Address("cluster", (("a", 1), ("b", 2)))),
        ("rediss+cluster://a:1", Address("cluster", (("a", 1),), tls=True)),
        ("redis+sentinel://a:1,b:2/main", Address("sentinel", (("a", 1), ("b", 2)), service="main")),
        (
            "redis://h:1/2?timeout_ms=30&replicas=1",
            Address("server", (("h", 1),), database=2, timeout_ms=30, replicas=1),
        ),
    ],
)
def test_an_address_is_read(store: str, address: Address) -> None:
    assert parse(store) == address


@pytest.mark.parametrize(
    ("store", "says"),
    [
        ("redis", "use redis://"),
        ("redis:h:1", "use redis://"),
        ("redis+ring://h:1", "use redis://"),
        ("redis://", "host:port"),
        ("redis://h", "host:port"),
        ("redis://h:0", "1 to 65535"),
        ("redis://h:65536", "1 to 65535"),
        ("redis://h:1,i:2", "redis+cluster or redis+sentinel"),
        ("redis://h:1/main", "number of a database"),
        ("redis+cluster://h:1/0", "no databases"),
        ("redis+sentinel://h:1", "name of the service"),
        ("redis://h:1?timeout=3", "timeout_ms: longest wait"),
        ("redis://h:1?timeout_ms", "name=value"),
        ("redis://h:1?timeout_ms=0", "from 1 to 10000"),
        ("redis://h:1?timeout_ms=fast", "from 1 to 10000"),
        ("redis://h:1?replicas=17", "from 0 to 16"),
        ("redis://h:1?ca=/none", "rediss://"),
        ("rediss://h:1?ca=/none", "/none is not a file"),
        ("rediss://h:1?cert=/none", "given together"),
        ("redis://h:1?password_file=/none", "/none cannot be read"),
    ],
)
def test_what_is_wrong_is_refused_with_the_setting_and_what_would_be_right(store: str, says: str) -> None:
    with pytest.raises(StoreUnavailable, match="RIPTIDE_STORE: ") as refused:
        parse(store)
    assert says in str(refused.value)


@pytest.mark.parametrize(
    "store",
    [
        f"redis://u:{QUOTED}@h:1",
        f"redis://u:{QUOTED}@h",
        f"redis://u:{QUOTED}@h:1/x",
        f"redis://u:{QUOTED}@h:1?x=1",
        f"redis+ring://u:{QUOTED}@h:1",
        f"redis:u:{QUOTED}@h:1",
        f"other://u:{QUOTED}@h:1",
    ],
)
def test_no_message_shows_the_password(store: str) -> None:
    settings = Settings(store=store)
    said = [settings.store_name]
    try:
        address = parse(store)
        said += [str(address), repr(address)]
    except StoreUnavailable as error:
        said.append(str(error))
    if not store.endswith("@h:1") or "ring" in store or not store.startswith("redis://"):
        with pytest.raises(StoreUnavailable) as refused:
            open_store(settings)
        said.append(str(refused.value))
    assert not any(QUOTED in each or SECRET in each for each in said)


def test_a_password_may_come_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "password").write_text(f"{SECRET}\n")
    assert parse(f"redis://u@h:1?password_file={tmp_path}/password").password == SECRET
    with pytest.raises(StoreUnavailable, match="one of them"):
        parse(f"redis://u:p@h:1?password_file={tmp_path}/password")
    (tmp_path / "password").write_text("\n")
    with pytest.raises(StoreUnavailable, match="no password"):
        parse(f"redis://u@h:1?password_file={tmp_path}/password")
