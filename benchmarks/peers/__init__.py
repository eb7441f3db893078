"""Servers that are compared with the gateway: the same SavedModel, the same read of the store."""
