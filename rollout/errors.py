"""What can go wrong while publishing and rolling out.

RolloutError          one sentence that names the file or field
├── BadExport         the export folder is incomplete or contradicts itself
├── PreflightFailed   the model does not do what it did at export, or not beside the stable version
├── VersionTaken      the version number is, or was, in use
├── Busy              another publish, or another driver, is at work
├── NotPossible       not at this point of a rollout
├── Crossed           the rollout is of another version than the operator thinks
├── NoSuchVersion     the version is not published
└── BadRecord         the record of a rollout cannot be read
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
    """Two of a kind at once."""


class NotPossible(RolloutError):
    """What was asked for does not fit where the rollout stands."""


class Crossed(RolloutError):
    """Another operator was faster: what was asked for was meant for another rollout."""


class NoSuchVersion(RolloutError):
    """A version that is not in the model repository."""


class BadRecord(RolloutError):
    """The record of a rollout is none, or of another release."""
