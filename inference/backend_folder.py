"""The backend folder that Triton is pointed at: its Python backend, and our `tensorflow` backend on top of
it.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from inference.environment import Triton
from inference.errors import UnfitEnvironment

BACKEND_SOURCES = Path(__file__).parent / "tensorflow_backend"
BACKEND_FILES = ("model.py", "savedmodel.py", "background.py", "memory_guard.py", "warmup.py")
PYTHON_BACKEND_FILES = ("libtriton_python.so", "triton_python_backend_utils.py")
STUB = "triton_python_backend_stub"


def write_backend_folder(triton: Triton, folder: Path) -> Path:
    """Write `folder` anew and return the path to hand to `--backend-directory`.

    `folder/python/` holds the Python backend's library and utilities and the stub of the interpreter's
    version; `folder/tensorflow/` holds copies of our backend. An image that has its own `tensorflow` backend
    is used as it is.

    Raises:
        UnfitEnvironment: there is no Python backend, or no stub for this Python.
    """
    if triton.interpreter is None:
        assert triton.backends is not None
        return triton.backends
    sources = _python_backend_files(triton)
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    python, tensorflow = fresh / "python", fresh / "tensorflow"
    python.mkdir()
    for source in sources:
        _link(source.resolve(), python / source.name)
    tensorflow.mkdir()
    for name in BACKEND_FILES:
        shutil.copyfile(BACKEND_SOURCES / name, tensorflow / name)
    shutil.rmtree(folder, ignore_errors=True)
    fresh.rename(folder)
    return folder.resolve()


def _link(source: Path, target: Path) -> None:
    """A hard link, or a copy across file systems; Triton refuses a symbolic link as leading out of the
    folder.
    """
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _python_backend_files(triton: Triton) -> list[Path]:
    interpreter = triton.interpreter
    assert interpreter is not None
    if triton.backends is not None and (triton.backends / "python").is_dir():
        installed = triton.backends / "python"
        return sorted(
            path for path in installed.iterdir() if path.suffix != ".pyc" and path.name != "__pycache__"
        )
    if interpreter.wheel_folder is None:
        raise UnfitEnvironment(
            f"{triton.program}: no Python backend beside it, and no nvidia-pytriton in the environment of "
            f"{interpreter.executable}, which would have one"
        )
    wheel = Path(interpreter.wheel_folder) / "tritonserver"
    stub = wheel / "python_backend_stubs" / interpreter.python / STUB
    if not stub.is_file():
        have = ", ".join(sorted(path.name for path in stub.parent.parent.iterdir()))
        raise UnfitEnvironment(
            f"{interpreter.executable}: Triton has no stub for Python {interpreter.python}; it has {have}"
        )
    return [*(wheel / "backends" / "python" / name for name in PYTHON_BACKEND_FILES), stub]
