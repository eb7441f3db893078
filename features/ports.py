"""Whether the ports that the settings name can be listened on, asked before anything slow is begun."""

from __future__ import annotations

import errno
import socket

from features.settings import PREFIX, Settings

_PORT_IS_AT_FAULT = {errno.EADDRINUSE, errno.EACCES}


def port_problem(settings: Settings, field: str) -> str | None:
    """Why nothing can listen on a port, and which setting to change, in one sentence; None if it can.

    Args:
        settings: they name the port and the address to bind: `triton_host`, `operator_host` or `host`.
        field: the port's field, such as `grpc_port`.
    """
    host_field = next(
        (f"{kind}_host" for kind in ("triton", "operator") if field.startswith(f"{kind}_")), "host"
    )
    host: str = getattr(settings, host_field)
    port: int = getattr(settings, field)
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As servers do: connections of one that has just ended linger, and keep no new one from listening.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            what = f"port {port} on {host} cannot be used ({reason})"
            if error.errno in _PORT_IS_AT_FAULT:
                return f"{what}: free it, or set {PREFIX}{field.upper()} to another one"
            return f"{what}: set {PREFIX}{host_field.upper()} to an address of this machine"
    return None
