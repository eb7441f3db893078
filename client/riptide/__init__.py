"""Packages generated from the contract."""
