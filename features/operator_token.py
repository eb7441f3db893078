"""What shows that a caller is an operator of this deployment."""

from __future__ import annotations

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
