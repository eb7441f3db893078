"""What keeps the stack from coming up, or up."""

from __future__ import annotations


class StackError(Exception):
    """A sentence for the terminal, and the status that the process ends with: 2 if the caller can mend it."""

    def __init__(self, sentence: str, *, status: int = 1) -> None:
        super().__init__(sentence)
        self.status = status
