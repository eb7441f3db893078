"""Ports are checked before anything slow is done."""

from __future__ import annotations

from features.ports import port_problem
from features.settings import PREFIX, Settings
from stack.errors import StackError


def check_ports(settings: Settings) -> None:
    """Raises StackError, naming port and setting, if a port is taken or given to two things."""
    fields = ["grpc_port", "operator_port", "http_port"]
    if settings.triton_address is None:
        fields += ["triton_http_port", "triton_grpc_port", "triton_metrics_port"]
    taken: dict[int, str] = {}
    for field in fields:
        port: int = getattr(settings, field)
        setting = PREFIX + field.upper()
        if port in taken:
            raise StackError(
                f"port {port} is given to both {taken[port]} and {setting}: change one", status=2
            )
        taken[port] = setting
        problem = port_problem(settings, field)
        if problem:
            raise StackError(problem, status=2)
