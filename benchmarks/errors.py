"""The one error of a benchmark."""

from __future__ import annotations


class BenchmarkError(Exception):
    """Something that the benchmark needs is missing, does not start, or does not answer."""
