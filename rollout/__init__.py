"""Publishing a version of the model and moving traffic to it."""
