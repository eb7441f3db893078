"""Publishes version 1 if there is none; the words it is called with are kept for the test."""

import sys
from pathlib import Path

Path("publish-words").write_text(" ".join(sys.argv[1:]))
version = Path("model_repository/recommender/1")
print("nothing new" if version.exists() else "published version 1")
version.mkdir(parents=True, exist_ok=True)
