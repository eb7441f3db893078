"""What a person sees of the import of TensorFlow: nothing, unless it fails."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
IMPORT = "from training.tensorflow_import import import_tensorflow; import_tensorflow()"


def run(program: str, *folders: Path) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(map(str, [*folders, ROOT]))
    return subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_nothing_is_said_by_it_and_all_that_comes_after_it() -> None:
    done = run(f"{IMPORT}; import sys, tensorflow; import_tensorflow(); print('heard', file=sys.stderr)")
    assert (done.returncode, done.stderr) == (0, "heard\n")


def test_what_was_said_before_it_failed_is_shown(tmp_path: Path) -> None:
    (tmp_path / "tensorflow.py").write_text(
        "import os; os.write(2, b'no such instruction\\n'); raise ImportError('not for this processor')"
    )
    done = run(IMPORT, tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("no such instruction\n")
    assert "not for this processor" in done.stderr
