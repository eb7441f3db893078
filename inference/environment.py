"""Where Triton is: its program, its environment, and whether the two can work together."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from features.settings import PREFIX, Settings
from inference.errors import TritonNotFound, UnfitEnvironment

INSTALLED_BACKENDS = Path("/opt/tritonserver/backends")
"""Where NVIDIA's images keep their backends; those up to 25.02 have the native `tensorflow` among them."""

PROBE_TIMEOUT_S = 60

# Run by the interpreter of Triton's environment. Versions come from the installed metadata: importing
# TensorFlow would take seconds.
PROBE = """
import json, platform, sys, sysconfig
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
def of(name):
    try:
        return version(name)
    except PackageNotFoundError:
        return None
wheel = find_spec("pytriton")
print(json.dumps({
    "python": "%d.%d" % sys.version_info[:2],
    "shared": bool(sysconfig.get_config_var("Py_ENABLE_SHARED")),
    "libpython_folder": sysconfig.get_config_var("LIBDIR"),
    "numpy": of("numpy"),
    "tensorflow": of("tensorflow") or of("tensorflow-cpu"),
    "wheel": of("nvidia-pytriton"),
    "wheel_folder": list(wheel.submodule_search_locations)[0] if wheel else None,
    "libc": platform.libc_ver()[1],
}))
"""


@dataclass(frozen=True, slots=True)
class Interpreter:
    """The interpreter of Triton's environment and what is installed for it; absent packages are None."""

    executable: Path
    python: str
    shared: bool
    libpython_folder: str
    numpy: str | None
    tensorflow: str | None
    wheel: str | None
    wheel_folder: str | None
    libc: str


@dataclass(frozen=True, slots=True)
class Triton:
    """A Triton that can be started.

    `interpreter` is None when `backends` already holds a `tensorflow` backend; then nothing has to be
    written.
    """

    program: Path
    interpreter: Interpreter | None
    backends: Path | None

    @property
    def loader_path(self) -> list[str]:
        """Folders for `LD_LIBRARY_PATH`: the interpreter's own library first, or the stub picks up another
        one.
        """
        if self.interpreter is None or self.interpreter.wheel_folder is None:
            return []
        libraries = Path(self.interpreter.wheel_folder).parent / "nvidia_pytriton.libs"
        return [self.interpreter.libpython_folder, str(libraries)]


def probe(executable: Path) -> Interpreter:
    """Ask the interpreter what it is.

    Raises:
        TritonNotFound: no such interpreter, or it does not run.
    """
    hint = "set RIPTIDE_TRITON_PYTHON, or make the environment with `make env`"
    if shutil.which(str(executable)) is None:
        raise TritonNotFound(
            f"{executable}: there is no such interpreter for Triton's Python backend; {hint}"
        )
    try:
        answer = subprocess.run(
            [executable, "-I", "-c", PROBE],
            capture_output=True,
            text=True,
            timeout=PROBE_TIMEOUT_S,
            check=True,
        )
    except (OSError, subprocess.SubprocessError) as exc:
        raise TritonNotFound(
            f"{executable}: the interpreter for Triton's Python backend does not run; {hint}"
        ) from exc
    return Interpreter(executable=executable, **json.loads(answer.stdout))


def check_interpreter(interpreter: Interpreter) -> None:
    """Refuse an environment in which the Python backend would fail, or be silently wrong.

    Raises:
        UnfitEnvironment: with the one thing to change.
    """
    where = interpreter.executable
    if interpreter.tensorflow is None:
        raise UnfitEnvironment(
            f"{where}: TensorFlow is not installed there; the serving environment needs it"
        )
    if interpreter.numpy is None or int(interpreter.numpy.split(".")[0]) >= 2:
        raise UnfitEnvironment(
            f"{where}: numpy {interpreter.numpy} is installed there, but Triton's Python backend needs "
            "numpy < 2 (with numpy 2 every input would arrive as zeros)"
        )
    if not interpreter.shared:
        raise UnfitEnvironment(
            f"{where}: this Python was built without a shared library, which Triton's Python backend "
            "has to load; use one built with --enable-shared"
        )


def find_triton(settings: Settings) -> Triton:
    """The program of the setting `tritonserver`, else of the PATH, else of the wheel in `triton_python`'s
    environment.

    Raises:
        TritonNotFound: there is none.
        UnfitEnvironment: there is one that cannot work.
    """
    program = _named_program(settings)
    if program is not None and (INSTALLED_BACKENDS / "tensorflow").is_dir():
        return Triton(program, None, INSTALLED_BACKENDS)
    interpreter = probe(settings.triton_python)
    check_interpreter(interpreter)
    if program is None:
        if interpreter.wheel_folder is None:
            raise TritonNotFound(
                f"there is no tritonserver: not on the PATH, and no nvidia-pytriton in the environment of "
                f"{settings.triton_python}; set RIPTIDE_TRITONSERVER to the program"
            )
        program = Path(interpreter.wheel_folder) / "tritonserver" / "bin" / "tritonserver"
    triton = Triton(program, interpreter, INSTALLED_BACKENDS if INSTALLED_BACKENDS.is_dir() else None)
    _check_program(triton)
    return triton


def environment(triton: Triton) -> dict[str, str]:
    """The environment variables of Triton and its stubs.

    The stub starts Python isolated and ignores PYTHONPATH; it finds its packages as the first `python3` of
    the PATH would, so the environment's own `bin` folder comes first there.
    """
    if triton.interpreter is None:
        return interpreter_environment(None)
    variables = interpreter_environment(triton.interpreter)
    inherited = [path for path in (variables.get("LD_LIBRARY_PATH"),) if path]
    variables["LD_LIBRARY_PATH"] = os.pathsep.join([*triton.loader_path, *inherited])
    return variables


def interpreter_environment(interpreter: Interpreter | None) -> dict[str, str]:
    """Our environment variables without those that would lead another Python to our packages."""
    left_out = {"PYTHONHOME", "PYTHONPATH", "VIRTUAL_ENV"}
    variables = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(PREFIX) and name not in left_out
    }
    variables["TF_CPP_MIN_LOG_LEVEL"] = "2"
    if interpreter is not None:
        binaries = interpreter.executable.absolute().parent
        variables["PATH"] = os.pathsep.join([str(binaries), variables.get("PATH", os.defpath)])
    return variables


def _named_program(settings: Settings) -> Path | None:
    if settings.tritonserver is not None:
        if not os.access(settings.tritonserver, os.X_OK) or settings.tritonserver.is_dir():
            raise TritonNotFound(
                f"RIPTIDE_TRITONSERVER: {settings.tritonserver} is not a program that can be run"
            )
        return settings.tritonserver.resolve()
    on_path = shutil.which("tritonserver")
    return Path(on_path).resolve() if on_path else None


def _check_program(triton: Triton) -> None:
    """Start the program far enough to see that its libraries load; `--help` makes it exit at once."""
    try:
        answer = subprocess.run(
            [triton.program, "--help"],
            capture_output=True,
            text=True,
            timeout=PROBE_TIMEOUT_S,
            env=environment(triton),
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise UnfitEnvironment(f"{triton.program}: cannot be run on this machine: {exc}") from exc
    if "--model-repository" in answer.stdout + answer.stderr:
        return
    reason = (answer.stderr.strip().splitlines() or ["it said nothing"])[-1]
    if "GLIBC" in reason:
        libc = triton.interpreter.libc if triton.interpreter else "an older one"
        raise UnfitEnvironment(
            f"{triton.program}: needs glibc 2.35 or newer, and this machine has {libc} ({reason})"
        )
    raise UnfitEnvironment(f"{triton.program}: does not run on this machine: {reason}")
