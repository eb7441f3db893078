"""What can go wrong while publishing.

RolloutError          one sentence that names the file or field
├── BadExport         the export folder is incomplete or contradicts itself
├── PreflightFailed   the SavedModel does not do in the serving environment what it did at export
├── VersionTaken      the version number is, or was, in use
└── Busy              another publish is under way
"""

from __future__ import annotations


class RolloutError(Exception):
    """Base of all errors of this package."""


class BadExport(RolloutError):
    """The export folder cannot be published as it is."""


class PreflightFailed(RolloutError):
    """The model was tried out and failed."""


class VersionTaken(RolloutError):
    """A version number that cannot be given again."""


class Busy(RolloutError):
    """Two publishes at once."""
