"""Which files belong to one launcher, and who may manage its Triton.

Who may load models may run code: Triton's management calls need a token that only this
machine's user can read.
"""

from __future__ import annotations

from pathlib import Path

from features.settings import Settings
from features.state_folder import make_state_folder
from features.token_file import TokenError, token
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
    folder = launcher_folder(settings)
    make_state_folder(settings.state_dir)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        return token(folder / "admin_token")
    except TokenError as exc:
        raise UnfitEnvironment(str(exc)) from exc
