"""All settings of a Riptide deployment, read once per process from `RIPTIDE_…` environment variables."""

from __future__ import annotations

import ipaddress
import os
import re
import sys
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, ValidationError
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, SettingsConfigDict

_HOST_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,251}[A-Za-z0-9])?")


def _host(value: str) -> str:
    """`value` if it can stand before `:port`: an IPv6 address cannot."""
    try:
        ipaddress.IPv4Address(value)
    except ValueError as error:
        numeric = not re.search("[A-Za-z]", value)
        if numeric or not _HOST_NAME.fullmatch(value):
            raise PydanticCustomError("host", "must be an IPv4 address or a host name") from error
    return value


def _address(value: str) -> str:
    """`value` if it is `host:port`."""
    host, _, port = value.rpartition(":")
    try:
        _host(host)
        if not (re.fullmatch("[0-9]{1,5}", port) and 1 <= int(port) <= 65535):
            raise ValueError(port)
    except ValueError as error:  # which a PydanticCustomError is, too
        raise PydanticCustomError(
            "address",
            "must be host:port, with an IPv4 address or a host name and a port from 1 to 65535",
        ) from error
    return value


Host = Annotated[str, AfterValidator(_host)]
Port = Annotated[int, Field(ge=1, le=65535)]
Address = Annotated[str, AfterValidator(_address)]
Milliseconds = Annotated[float, Field(gt=0, le=600_000)]

PREFIX = "RIPTIDE_"


def _called(host: str) -> str:
    """What is called to reach who binds `host`."""
    return "127.0.0.1" if host == "0.0.0.0" else host


class Settings(BaseSettings):
    """One field, one environment variable: `grpc_port` is `RIPTIDE_GRPC_PORT`. Empty counts as unset."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_ignore_empty=True, frozen=True, use_attribute_docstrings=True
    )

    host: Host = "127.0.0.1"
    """What the gateway binds, an IPv4 address or a host name. It has no authentication: leave it on loopback,
    or behind a proxy."""
    grpc_port: Port = 50051
    """Gateway, gRPC."""
    operator_port: Port = 50052
    """The operator's gRPC service (rollouts), by `python -m rollout drive`."""
    operator_host: Host = "127.0.0.1"
    """What the operator's service binds. Its calls and the token are not encrypted: leave it on loopback."""
    http_port: Port = 8080
    """Gateway, HTTP: `/metrics`, `/healthz`, `/readyz`, the console."""
    console: bool | None = None
    """Offer the console at `/console/` of the HTTP port, and calls of the gateway as JSON, to all who reach
    it. Unset: where `host` is a loopback address. It shows what is stored of users, and anyone can record
    events with it; to promote and roll back takes the operator's token, and is offered only where `host` is a
    loopback address. Names other than `host` and `localhost` are refused: with 0.0.0.0, use an address."""
    workers: Annotated[int, Field(ge=1, le=64)] = 1
    """Gateway processes that share the gRPC port."""
    coalesce: bool = True
    """Join concurrent requests into one call of Triton. Off only to measure what it gains."""
    max_batch: Annotated[int, Field(ge=1, le=64)] = 64
    """Most requests joined into one call of Triton; versions are published with a `max_batch_size` of 64."""
    max_in_flight: Annotated[int, Field(ge=1, le=1_000_000)] = 1000
    """Calls a worker accepts at once; further ones are answered RESOURCE_EXHAUSTED."""
    default_deadline_ms: Milliseconds = 1000
    """Given to a call that comes without a deadline."""
    model_timeout_ms: Milliseconds = 500
    """Longest wait for Triton before the fallback page, if the caller's deadline allows that much."""
    freshness: Literal["auto", "strict", "bounded"] = "auto"
    """Which user vectors may be used: `strict`, those of the user's whole history, or `bounded`, those that
    have been outdated for at most `freshness_max_lag_s`; `auto`: what the version's manifest says, bounded
    for large encoders."""
    freshness_max_lag_s: Annotated[float, Field(gt=0, le=86_400)] = 10
    """Seconds by which a vector may lag under `bounded`. Beyond, the request waits for the encoder."""
    drain_s: Annotated[float, Field(ge=0, le=600)] = 10
    """On SIGTERM, how long calls in flight may take to finish."""
    reflection: bool = False
    """Offer gRPC server reflection."""
    access_log: bool = False
    """Log every call, not only one a second of each kind of failed and degraded ones."""
    log_level: Annotated[str, Field(pattern="^(DEBUG|INFO|WARNING|ERROR)$")] = "INFO"
    """Least severe log line that is written."""

    metrics: bool = True
    """Count what `/metrics` shows of calls. Off only to measure what it costs."""
    trace_ratio: Annotated[float, Field(ge=0, le=1)] = 0
    """Share of the calls that are traced, with OpenTelemetry, if the caller does not say; 0: none, whatever a
    caller says. Where traces go is OpenTelemetry's own `OTEL_EXPORTER_OTLP_ENDPOINT` (OTLP over HTTP)."""

    state_dir: Path = Path("var")
    """Prepared data, training runs, logs, the online store: all that is written but the model repository."""
    model_repository: Path = Path("model_repository")
    """The Triton model repository; the gateway reads each version's catalogue from it."""
    model_name: Annotated[str, Field(pattern="^[a-z][a-z0-9_]{0,63}$")] = "recommender"
    """The model's folder in the repository."""
    keep_versions: Annotated[int, Field(ge=1, le=10_000)] = 5
    """Newest versions that stay in the repository after a rollout, beside those in use."""
    store: str = "lmdb"
    """Where user records live: `lmdb` (in `store` below `state_dir`), `lmdb:FOLDER`, or a Redis or Valkey:
    `redis://host:port`, `redis+sentinel://…`, `redis+cluster://…`; see `features/redis_address.py`."""
    store_history_cap: Annotated[int, Field(ge=1, le=60_000)] = 1024
    """Events kept per user; the oldest go first."""
    store_map_gib: Annotated[int, Field(ge=1, le=4096)] = 8
    """Largest size of the store on disk, GiB (LMDB reserves address space for it, not disk)."""

    triton_address: Address | None = None
    """`host:port` of a Triton gRPC endpoint that is already running; unset: one is started here."""
    triton_admin_token: str | None = None
    """What the Triton at `triton_address` wants to see before it loads a version; unset: that of one started
    here."""
    triton_host: Host = "127.0.0.1"
    """IPv4 address or host name that a Triton started here binds."""
    triton_http_port: Port = 8000
    """Triton, HTTP."""
    triton_grpc_port: Port = 8001
    """Triton, gRPC."""
    triton_metrics_port: Port = 8002
    """Triton, Prometheus metrics."""
    tritonserver: Path | None = None
    """The `tritonserver` program; unset: the PATH, then the wheel in `triton_python`'s environment."""
    triton_python: Path = Path(".venv-triton/bin/python")
    """Interpreter of the environment that Triton's Python backend runs in (numpy 1.26, TensorFlow)."""
    triton_ready_s: Annotated[float, Field(gt=0, le=3600)] = 120
    """Longest wait for Triton to have the model ready."""

    @property
    def gateway_host(self) -> str:
        """The host at which processes of this machine call the gateway, by gRPC and by HTTP."""
        return _called(self.host)

    @property
    def gateway_target(self) -> str:
        """`host:port` at which processes of this machine call the gateway."""
        return f"{self.gateway_host}:{self.grpc_port}"

    @property
    def operator_target(self) -> str:
        """`host:port` at which processes of this machine call the operator's service."""
        return f"{_called(self.operator_host)}:{self.operator_port}"

    @property
    def triton_target(self) -> str:
        """`host:port` of the Triton gRPC endpoint to call."""
        return self.triton_address or f"{self.triton_host}:{self.triton_grpc_port}"

    @property
    def offers_console(self) -> bool:
        """Whether the console is there: see `console`."""
        return self.is_on_loopback if self.console is None else self.console

    @property
    def is_on_loopback(self) -> bool:
        """Whether the gateway can be reached from this machine alone."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host.lower() == "localhost"

    @property
    def traced_ratio(self) -> float:
        """`trace_ratio`; 0 where OpenTelemetry's own switch, `OTEL_SDK_DISABLED`, is on."""
        is_off = os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
        return 0.0 if is_off else self.trace_ratio

    @property
    def traces_url(self) -> str:
        """Where traces go (OTLP over HTTP), by OpenTelemetry's own environment variables."""
        all_signals = os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT") or "http://localhost:4318"
        return os.environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") or f"{all_signals.rstrip('/')}/v1/traces"

    @property
    def store_name(self) -> str:
        """`store` for messages: without the name and the password that an address may hold."""
        if self.store.startswith("lmdb"):
            return self.store
        return re.sub("(://|:|^).*@", r"\1", self.store, flags=re.DOTALL)

    @property
    def store_folder(self) -> Path | None:
        """The folder of the store that `store` names, there or not; None if it is in none."""
        kind, _, location = self.store.partition(":")
        if kind != "lmdb":
            return None
        return Path(location) if location else self.state_dir / "store"


def load_settings() -> Settings:
    """Settings from the environment; if they are wrong, one line per mistake and exit status 2."""
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    mistakes = [
        f"{name}: no such setting"
        for name in sorted(os.environ)
        if name.upper().startswith(PREFIX) and name.upper() not in known
    ]
    try:
        settings = Settings()
    except ValidationError as error:
        mistakes += [
            f"{PREFIX}{str(problem['loc'][0]).upper()}: {problem['msg']}, not {problem['input']!r}"
            for problem in error.errors()
        ]
    else:
        if settings.traced_ratio and not re.match("https?://.", settings.traces_url):
            mistakes.append(
                "OTEL_EXPORTER_OTLP_ENDPOINT: must begin with http:// or https://, since traces are sent by "
                f"OTLP over HTTP (port 4318, where gRPC has 4317), not {settings.traces_url!r}"
            )
    if mistakes:
        print(*mistakes, sep="\n", file=sys.stderr)
        raise SystemExit(2)
    return settings
