"""Events → dataset → model → evaluation → SavedModel, in that order."""
