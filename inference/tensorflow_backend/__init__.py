"""The Python-based Triton backend `tensorflow`; its files run in Triton's own environment, not in ours."""
