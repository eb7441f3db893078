"""Riptide's own figures beside floors, taken in one run."""
