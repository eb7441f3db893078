"""The one error of a benchmark."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import grpc
import psutil

from features.store import StoreError


class BenchmarkError(Exception):
    """Something that the benchmark needs is missing, does not start, or does not answer."""


@contextmanager
def translated() -> Iterator[None]:
    """What else goes wrong with servers and programs becomes that error.

    Raises:
        BenchmarkError: the block raises it, or one of these.
    """
    try:
        yield
    except grpc.RpcError as error:
        code = error.code().name if isinstance(error, grpc.Call) else type(error).__name__
        raise BenchmarkError(f"a call failed: {code}") from error
    except subprocess.TimeoutExpired as error:
        raise BenchmarkError(f"not done after {error.timeout:.0f} s: {error.cmd}") from error
    except (OSError, psutil.Error, StoreError) as error:
        raise BenchmarkError(f"{type(error).__name__}: {error}") from error
