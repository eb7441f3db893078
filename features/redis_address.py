"""What `RIPTIDE_STORE` says of a Redis or Valkey: where it is, of what kind, and how to get in.

    redis://[user[:password]@]host:port[/db]            one server
    redis+sentinel://[…@]host:port,host:port/SERVICE    the primary that these Sentinels name
    redis+cluster://[…@]host:port,host:port             a Cluster, found through any of these

`rediss` instead of `redis` is TLS. What may follow `?` is listed in `_OPTIONS`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias, get_args
from urllib.parse import parse_qsl, unquote

from features.store import StoreUnavailable

Kind: TypeAlias = Literal["server", "sentinel", "cluster"]
HostPort: TypeAlias = tuple[str, int]

DEFAULT_TIMEOUT_MS = 50
MOST_TIMEOUT_MS = 10_000

_OPTIONS = {
    "password_file": "file whose first line is the password",
    "ca": "file with the certificates of the authority (TLS); unset: those of the system",
    "cert": "file with our certificate (TLS)",
    "key": "file with the key of it (TLS)",
    "timeout_ms": f"longest wait for a read, 1 to {MOST_TIMEOUT_MS}, {DEFAULT_TIMEOUT_MS} by itself",
    "replicas": "replicas that must have a write before it is acknowledged, 0 to 16, 0 by itself",
}
_RIGHT = (
    "redis://[user:password@]host:port[/db], redis+sentinel://host:port,host:port/SERVICE or "
    "redis+cluster://host:port,host:port; rediss for TLS"
)
_URL = re.compile(
    r"(rediss?)(?:\+(sentinel|cluster))?://(?:(.*)@)?([^@/?]*)(?:/([^?]*))?(?:\?(.*))?", re.DOTALL
)
_HOST_PORT = re.compile(r"([A-Za-z0-9._-]+):([0-9]{1,5})")


@dataclass(frozen=True, slots=True)
class Address:
    """A deployment of Redis or Valkey. Neither its text nor any error about it shows the password."""

    kind: Kind
    hosts: tuple[HostPort, ...]
    """Servers, or Sentinels."""
    service: str = ""
    """The name under which Sentinels know the primary."""
    database: int = 0
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: bool = False
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    timeout_ms: int = DEFAULT_TIMEOUT_MS
    replicas: int = 0

    def __str__(self) -> str:
        return ",".join(f"{host}:{port}" for host, port in self.hosts)


def parse(store: str) -> Address:
    """The deployment that `store`, the value of `RIPTIDE_STORE`, names.

    Raises:
        StoreUnavailable: it is malformed, or a file that it names cannot be read; says what would be right.
    """
    match = _URL.fullmatch(store)
    if match is None:
        raise _wrong(f"not an address of a Redis or Valkey; use {_RIGHT}")
    scheme, said_kind, credentials, hosts, path, query = match.groups()
    kind: Kind = next((each for each in get_args(Kind) if each == said_kind), "server")
    options = _options(query or "", tls=scheme == "rediss")
    user, _, password = (unquote(part) for part in (credentials or "").partition(":"))
    if "password_file" in options:
        if password:
            raise _wrong("a password and a password_file; use one of them")
        password = _first_line(Path(options["password_file"]))
    service, database = _path(kind, path or "")
    return Address(
        kind,
        _hosts(kind, hosts),
        service=service,
        database=database,
        user=user or None,
        password=password or None,
        tls=scheme == "rediss",
        ca=_file(options, "ca"),
        cert=_file(options, "cert"),
        key=_file(options, "key"),
        timeout_ms=_number(options, "timeout_ms", DEFAULT_TIMEOUT_MS, 1, MOST_TIMEOUT_MS),
        replicas=_number(options, "replicas", 0, 0, 16),
    )


def _wrong(what: str) -> StoreUnavailable:
    return StoreUnavailable(f"RIPTIDE_STORE: {what}")


def _hosts(kind: Kind, text: str) -> tuple[HostPort, ...]:
    found = [_HOST_PORT.fullmatch(each) for each in text.split(",")]
    hosts = [(match[1], int(match[2])) for match in found if match and 1 <= int(match[2]) <= 65535]
    if len(hosts) < len(found):
        raise _wrong(
            f"each server is host:port, with a port from 1 to 65535 (or :// is missing); use {_RIGHT}"
        )
    if kind == "server" and len(hosts) > 1:
        raise _wrong(f"redis:// names one server, here are {len(hosts)}; use redis+cluster or redis+sentinel")
    return tuple(hosts)


def _path(kind: Kind, path: str) -> tuple[str, int]:
    """Service of Sentinels, number of the database."""
    if kind == "sentinel":
        if not re.fullmatch("[A-Za-z0-9._-]+", path):
            raise _wrong(
                "redis+sentinel:// ends with the name of the service, as in redis+sentinel://host:port/mymaster"
            )
        return path, 0
    if kind == "cluster" and path:
        raise _wrong("a Cluster has no databases: leave out what is after the last /")
    if path and not re.fullmatch("[0-9]{1,4}", path):
        raise _wrong("what is after the last / is the number of a database, as in redis://host:port/0")
    return "", int(path or 0)


def _options(query: str, *, tls: bool) -> dict[str, str]:
    try:
        options = dict(parse_qsl(query, strict_parsing=True, keep_blank_values=True)) if query else {}
    except ValueError as error:
        raise _wrong("what is after the ? is name=value&name=value") from error
    if unknown := sorted(options.keys() - _OPTIONS):
        known = "; ".join(f"{name}: {meaning}" for name, meaning in _OPTIONS.items())
        raise _wrong(f"no such options after the ?: {', '.join(unknown)}; there are {known}")
    if not tls and options.keys() & {"ca", "cert", "key"}:
        raise _wrong("ca, cert and key are for TLS; use rediss://")
    if ("cert" in options) != ("key" in options):
        raise _wrong("cert and key are given together")
    return options


def _number(options: dict[str, str], name: str, default: int, least: int, most: int) -> int:
    text = options.get(name, str(default))
    if not re.fullmatch("[0-9]{1,9}", text) or not least <= int(text) <= most:
        raise _wrong(f"{name} is a number from {least} to {most}")
    return int(text)


def _file(options: dict[str, str], name: str) -> Path | None:
    if name not in options:
        return None
    path = Path(options[name])
    if not path.is_file():
        raise _wrong(f"{name}: {path} is not a file")
    return path


def _first_line(path: Path) -> str:
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise _wrong(f"password_file: {path} cannot be read") from error
    if not lines or not lines[0]:
        raise _wrong(f"password_file: {path} has no password in its first line")
    return lines[0]
