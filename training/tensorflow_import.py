"""Importing TensorFlow without what it says about itself."""

from __future__ import annotations

import os
import sys
import tempfile


def import_tensorflow() -> None:
    """Imports it; a second time costs nothing.

    It writes notes about oneDNN, headed WARNING, that no log level silences, and it writes them below Python:
    so the file that is standard error is another one meanwhile. If the import fails, they are shown.
    """
    if "tensorflow" in sys.modules:
        return
    sys.stderr.flush()
    terminal = os.dup(2)
    try:
        with tempfile.TemporaryFile() as notes:
            os.dup2(notes.fileno(), 2)
            try:
                import tensorflow as tf  # noqa: F401
            except BaseException:
                notes.seek(0)
                os.write(terminal, notes.read())
                raise
            finally:
                os.dup2(terminal, 2)
    finally:
        os.close(terminal)
