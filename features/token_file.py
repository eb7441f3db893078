"""Secrets that processes of one account share: files that only it can read, made at the first call."""

from __future__ import annotations

import contextlib
import os
import secrets
import tempfile
from pathlib import Path


class TokenError(Exception):
    """A token file that holds no token."""


def token(path: Path) -> str:
    """The token in `path`, which is made with a new one if it is not there; its folder must be.

    Raises:
        TokenError: the file is empty.
        OSError: it cannot be read or made.
    """
    if not path.exists():
        # Named once it is whole: a kill or a full disk must not leave an empty token, which anyone knows.
        with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=f".{path.name}-") as draft:
            draft.write(secrets.token_hex(16))
            draft.flush()
            with contextlib.suppress(FileExistsError):  # another process was faster: its token is as good
                os.link(draft.name, path)
    found = path.read_text().strip()
    if not found:
        raise TokenError(f"{path}: is empty, and must hold a token: delete it, and one is made")
    return found
