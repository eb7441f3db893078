"""The scripts that run inside the server: each changes what it changes as a whole, beside any other client.

They are called by the hash of their text (EVALSHA), and sent whole (EVAL) to a server that does not know it:
two releases of Riptide on one server never meet each other's. Why they are not functions: decision 21.

`allow-oom` stands where a server that users have filled must still do as it is told: forget, roll back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha1
from pathlib import Path
from typing import TypeAlias

Argument: TypeAlias = bytes | str | int

_FOLDER = Path(__file__).parent / "lua"


@dataclass(frozen=True, slots=True)
class Script:
    """A script of `features/lua`."""

    text: str
    sha: str

    def by_hash(self, keys: Sequence[bytes], arguments: Sequence[Argument]) -> tuple[Argument, ...]:
        """The command that calls it."""
        return ("EVALSHA", self.sha, len(keys), *keys, *arguments)

    def whole(self, by_hash: tuple[Argument, ...]) -> tuple[Argument, ...]:
        """The same command with the text in place of the hash."""
        return ("EVAL", self.text, *by_hash[2:])


def _script(*names: str) -> Script:
    text = "".join((_FOLDER / f"{name}.lua").read_text() for name in names)
    # The server's own name for a script; nothing is secured by it.
    return Script(text, sha1(text.encode(), usedforsecurity=False).hexdigest())


APPEND = _script("record", "append")
SET_ATTRIBUTES = _script("record", "set_attributes")
PUT_ANSWERS = _script("record", "put_answers")
FORGET = _script("forget")
LOG_EXPOSURE = _script("log_exposure")
REPLACE_DOCUMENT = _script("replace_document")
PUT_REPORT = _script("put_report")
