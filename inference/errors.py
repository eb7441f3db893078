"""What can go wrong around Triton.

TritonError              one sentence that says what is wrong and what would be right
├── TritonNotFound       no program, or no environment for its Python backend
├── UnfitEnvironment     an environment that Triton cannot work in (numpy 2, no shared libpython, old glibc)
├── NothingPublished     the repository holds no version of the model
├── PortInUse            a port that cannot be listened on
├── TritonExited         the server ended before the model was ready
├── ModelNotReady        the model was not ready in time
├── ProofFailed          the model is ready, but its answers are not the expected ones
├── VersionDied          a version's process ended though nobody told it to, or hangs
├── NoAnswer             Triton cannot be reached, or has no answer in time
├── NotAllowed           Triton wants another token before it lets itself be managed
├── LoadFailed           Triton could not bring its versions to what config.pbtxt lists
└── UnfitModel           a SavedModel that breaks the tensor contract, or answers that do
"""

from __future__ import annotations


class TritonError(Exception):
    """Base of all errors of this package."""


class TritonNotFound(TritonError):
    """Triton, or the environment of its Python backend, is not where the settings say."""


class UnfitEnvironment(TritonError):
    """Triton was found but cannot work as it is installed."""


class NothingPublished(TritonError):
    """There is no version to serve yet."""


class PortInUse(TritonError):
    """A port that Triton should bind is taken."""


class TritonExited(TritonError):
    """The server ended by itself."""


class ModelNotReady(TritonError):
    """The wait for the model's readiness ran out."""


class ProofFailed(TritonError):
    """Known requests did not get their known answers."""


class VersionDied(TritonError):
    """A version that Triton calls ready, and that will not answer again."""


class NoAnswer(TritonError):
    """A management call that was not answered: what it asked for may have happened or not."""


class NotAllowed(TritonError):
    """A management call without the right token."""


class LoadFailed(TritonError):
    """What Triton says when it cannot load the versions that it was told to."""


class UnfitModel(TritonError):
    """A SavedModel that cannot be served under the tensor contract."""
