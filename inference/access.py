"""Which files belong to one launcher, and who may manage its Triton.

Who may load models may run code: Triton's management calls need a token that only this
machine's user can read.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from features.settings import Settings

ADMIN_KEY = "riptide-admin"


def launcher_folder(settings: Settings) -> Path:
    """Where the launcher of the Triton on these ports keeps its files.

    Several Tritons may share a `state_dir`. Their gRPC ports differ, so none replaces the backends or the
    process id of another.
    """
    return settings.state_dir / "triton" / str(settings.triton_grpc_port)


def admin_token(settings: Settings) -> str:
    """The token in `admin_token` of the launcher's folder, made at the first call; mode 0600.

    It stands on Triton's command line too, so it keeps out what reaches the port, not other users of the
    machine.
    """
    path = launcher_folder(settings) / "admin_token"
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_hex(16))
    except FileExistsError:
        pass
    return path.read_text().strip()
