"""What shows that a caller is an operator of this deployment."""

from __future__ import annotations

import hmac
from pathlib import Path

from features.token_file import token

VERSION_METADATA, TOKEN_METADATA = "riptide-version", "riptide-operator-token"
"""Names of gRPC metadata: the version that an operator asks for, and the token."""


def operator_token(state_dir: Path) -> str:
    """The token of the deployment in `state_dir`, made at the first call.

    Raises:
        TokenError, OSError: see `features.token_file.token`.
    """
    return token(state_dir / "operator_token")


def watching_token(state_dir: Path) -> str:
    """What shows that a caller may read the state of rollouts, and do nothing: made of the operator's token,
    which cannot be found from it. So who takes the driver's port learns nothing to act with.

    Raises:
        TokenError, OSError: see `features.token_file.token`.
    """
    return hmac.digest(operator_token(state_dir).encode(), b"riptide: watch rollouts", "sha256").hex()
