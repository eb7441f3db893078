"""The second model that Triton serves from each published version: histories to user vectors, and no page."""

from __future__ import annotations


def encoder_name(model_name: str) -> str:
    """The name in Triton of the encoder that belongs to the recommender `model_name`.

    Its versions have the numbers of the recommender's, and a vector of one is for the same number of the
    other.
    """
    return "user_encoder" if model_name == "recommender" else f"{model_name}_user_encoder"
