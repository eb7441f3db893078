"""Ports are checked before anything slow is done."""

from __future__ import annotations

import socket

from features.settings import PREFIX, Settings
from stack.errors import StackError


def check_ports(settings: Settings) -> None:
    """Raises StackError, naming port and setting, if a port is taken or given to two things."""
    wanted = {"grpc_port": settings.host, "http_port": settings.host}
    if settings.triton_address is None:
        wanted |= dict.fromkeys(
            ("triton_http_port", "triton_grpc_port", "triton_metrics_port"), settings.triton_host
        )
    taken: dict[int, str] = {}
    for field, host in wanted.items():
        port: int = getattr(settings, field)
        setting = PREFIX + field.upper()
        if port in taken:
            raise StackError(
                f"port {port} is given to both {taken[port]} and {setting}: change one", status=2
            )
        taken[port] = setting
        problem = _why_not(host, port)
        if problem:
            raise StackError(
                f"port {port} on {host} cannot be used ({problem}): free it, or set {setting}", status=2
            )


def _why_not(host: str, port: int) -> str | None:
    """The system's reason why `port` cannot be listened on; None if it can."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # Connections of a server that has just ended may linger; they do not keep a new one from listening.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            return (error.strerror or str(error)).lower()
    return None
