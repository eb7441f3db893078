"""The errors that training reports to its user.

    TrainingError    input that cannot be used: a file, a column, a line or a configuration key

Its text is one sentence that names what was wrong and where, and what would be right. The command line prints
it and exits with `BAD_INPUT_EXIT_CODE`. Anything else that is raised is a defect and keeps its traceback.
"""

from __future__ import annotations

BAD_INPUT_EXIT_CODE = 2


class TrainingError(Exception):
    """Bad input, said in one sentence."""
