"""Who may load models may run code: Triton's management calls need a token that only this machine's user can
read.
"""

from __future__ import annotations

import os
import secrets

from features.settings import Settings

ADMIN_KEY = "riptide-admin"


def admin_token(settings: Settings) -> str:
    """The token of `state_dir/triton/admin_token`, made at the first call; mode 0600.

    It stands on Triton's command line too, so it keeps out what reaches the port, not other users of the
    machine.
    """
    path = settings.state_dir / "triton" / "admin_token"
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_hex(16))
    except FileExistsError:
        pass
    return path.read_text().strip()


def admin_metadata(settings: Settings) -> tuple[tuple[str, str], ...]:
    """gRPC metadata that Triton wants with repository, shared-memory, trace and logging calls."""
    return ((f"triton-grpc-protocol-{ADMIN_KEY}", admin_token(settings)),)
