"""Which files belong to one launcher, and who may manage its Triton.

Who may load models may run code: Triton's management calls need a token that only this
machine's user can read.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import tempfile
from pathlib import Path

from features.settings import Settings
from features.state_folder import make_state_folder
from inference.errors import UnfitEnvironment

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

    Raises:
        UnfitEnvironment: the file is empty.
    """
    path = launcher_folder(settings) / "admin_token"
    make_state_folder(settings.state_dir)
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        # Named once it is whole: a kill or a full disk must not leave an empty token, which anyone knows.
        with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=".admin_token-") as draft:
            draft.write(secrets.token_hex(16))
            draft.flush()
            with contextlib.suppress(FileExistsError):  # another process was faster: its token is as good
                os.link(draft.name, path)
    token = path.read_text().strip()
    if not token:
        raise UnfitEnvironment(f"{path}: is empty, and must hold the admin token: delete it, and one is made")
    return token
