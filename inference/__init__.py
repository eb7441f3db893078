"""Running Triton: the server process, the SavedModel backend and the model configuration."""
