"""What the Makefile refuses, and what it finds by itself."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# Runs `-c CODE` as if it were another Python.
PRETENDER = """#!/bin/sh
exec {python} -c 'import os, sys, types
sys.version_info = {version}
os.uname = lambda: types.SimpleNamespace(machine="{machine}")
exec(sys.argv[1])' "$2"
"""


def pretend(folder: Path, name: str, version: tuple[int, int], machine: str = "x86_64") -> Path:
    path = folder / name
    path.write_text(PRETENDER.format(python=sys.executable, version=(*version, 0), machine=machine))
    path.chmod(0o755)
    return path


def make(*words: str, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    plain = {n: v for n, v in os.environ.items() if not n.startswith(("RIPTIDE_", "MAKE", "PYTHON"))}
    return subprocess.run(
        ["make", "-f", str(ROOT / "Makefile"), *words],
        cwd=cwd, env=plain | environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("version", "machine"), [((3, 10), "x86_64"), ((3, 13), "x86_64"), ((3, 11), "aarch64")]
)
def test_a_python_that_the_locks_do_not_fit_is_refused_in_one_line(
    tmp_path: Path, version: tuple[int, int], machine: str
) -> None:
    python = pretend(tmp_path, "python-other", version, machine)
    ours = tmp_path / "environment"
    done = make(f"PYTHON={python}", f"OURS={ours}", f"{ours}/.installed")
    assert done.returncode != 0
    refusal = done.stderr.splitlines()[0]
    assert str(python) in refusal
    assert "3.11 or 3.12" in refusal
    assert "x86-64" in refusal
    assert not ours.exists()


@pytest.mark.parametrize(
    ("there", "found"),
    [
        ({"python3": (3, 13), "python3.11": (3, 11)}, "python3.11"),
        ({"python3": (3, 10), "python3.12": (3, 12)}, "python3.12"),
        ({"python3": (3, 12)}, "python3"),
        ({"python3": (3, 13)}, "python3"),
    ],
)
def test_a_python_that_fits_is_found(tmp_path: Path, there: dict[str, tuple[int, int]], found: str) -> None:
    for name in ("python3", "python3.11", "python3.12"):
        if name in there:
            pretend(tmp_path, name, there[name])
        else:  # hides one of this machine's
            (tmp_path / name).write_text("#!/bin/sh\nexit 127\n")
            (tmp_path / name).chmod(0o755)
    done = make("--eval=which: ; @echo $(PYTHON)", "which", PATH=f"{tmp_path}:{os.environ['PATH']}")
    assert done.stdout.split() == [found]


def test_what_is_run_keeps_the_bytecode_of_what_it_imports() -> None:
    words = ("--eval=which: ; @env", "which")
    said = make(*words, PYTHONDONTWRITEBYTECODE="1", PYTHONUNBUFFERED="1").stdout.splitlines()
    assert "PYTHONUNBUFFERED=1" in said
    assert not [line for line in said if line.startswith("PYTHONDONTWRITEBYTECODE")]


def test_an_environment_that_an_interrupt_left_without_pip_is_completed(tmp_path: Path) -> None:
    ours = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(ours)], check=True)
    (tmp_path / "requirements.lock").touch()
    words = (f"PYTHON={sys.executable}", f"OURS={ours}", f"{ours}/.installed")
    done = make(*words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    subprocess.run([str(ours / "bin/python"), "-m", "pip", "--version"], check=True, capture_output=True)


@pytest.mark.parametrize("name", ["RIPTIDE_STATE_DIR", "RIPTIDE_MODEL_REPOSITORY", "RIPTIDE_STORE"])
def test_clean_deletes_nothing_while_a_place_is_set(tmp_path: Path, name: str) -> None:
    kept = tmp_path / "var" / "store"
    kept.mkdir(parents=True)
    (tmp_path / "model_repository").mkdir()
    done = make("clean", cwd=tmp_path, **{name: "elsewhere"})
    assert done.returncode != 0
    assert name in done.stderr.splitlines()[0]
    assert kept.exists()


def test_clean_deletes_data_and_versions_of_this_checkout(tmp_path: Path) -> None:
    (tmp_path / "var" / "store").mkdir(parents=True)
    repository = tmp_path / "model_repository"
    (repository / "recommender" / "1").mkdir(parents=True)
    (repository / "README.md").touch()
    assert make("clean", cwd=tmp_path).returncode == 0
    assert not (tmp_path / "var").exists()
    assert [path.name for path in repository.iterdir()] == ["README.md"]


def test_a_version_is_published_for_the_profile_that_is_named(tmp_path: Path) -> None:
    (tmp_path / ".installed").touch()
    done = make("--dry-run", f"OURS={tmp_path}", "-o", f"{tmp_path}/.installed", "publish", "PROFILE=gpu")
    assert "rollout publish --profile gpu" in done.stdout


def test_new_items_are_added_to_the_export_before_it_is_published(tmp_path: Path) -> None:
    """And if they cannot be, nothing is published."""
    python = tmp_path / "bin" / "python"
    python.parent.mkdir()
    (tmp_path / ".installed").touch()
    words = (f"OURS={tmp_path}", "-o", f"{tmp_path}/.installed", "publish", "CONFIG=a.toml", "SEED=3")
    for status, ran in ((0, ["-m training extend", "-m rollout publish"]), (2, ["-m training extend"])):
        python.write_text(f'#!/bin/sh\necho "$@"\ntest $2 = rollout || exit {status}\n')
        python.chmod(0o755)
        done = make(*words, "ITEMS=new items.csv")
        said = done.stdout.splitlines()
        assert [line[: len(start)] for line, start in zip(said, ran, strict=True)] == ran
        assert said[0].endswith("--config a.toml --seed 3 --items new items.csv")
        assert (done.returncode == 0) == (status == 0)
    assert [line for line in make(*words).stdout.splitlines() if "extend" in line] == []


@pytest.mark.parametrize("command", ["ablate", "cold-items"])
def test_what_is_measured_is_measured_for_the_configuration_and_the_seeds_named(
    tmp_path: Path, command: str
) -> None:
    (tmp_path / ".installed").touch()
    words = (f"OURS={tmp_path}", "-o", f"{tmp_path}/.installed", command, "CONFIG=shop.toml", "SEEDS=4,5")
    done = make("--dry-run", *words)
    assert f"training {command} --config shop.toml --seeds 4,5" in done.stdout


def test_without_chromium_the_test_of_the_console_says_what_to_install_and_begins_nothing(
    tmp_path: Path,
) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "make").symlink_to(shutil.which("make") or "")
    done = make("test-console", "OURS=ours", "TRITON=triton", cwd=tmp_path, PATH=str(tools))
    assert done.returncode == 2
    assert done.stdout == ""
    said = "no chromium is on the PATH: install it first (Debian: apt install chromium)"
    assert done.stderr.splitlines()[0] == said
    assert [path.name for path in tmp_path.iterdir()] == ["tools"]


def test_the_test_of_the_console_installs_no_environment(tmp_path: Path) -> None:
    (tmp_path / "tools").mkdir()
    for name in ("make", "true"):
        (tmp_path / "tools" / name).symlink_to(shutil.which(name) or "")
    (tmp_path / "tools" / "true").rename(tmp_path / "tools" / "chromium")
    done = make("test-console", "OURS=ours", "TRITON=triton", cwd=tmp_path, PATH=str(tmp_path / "tools"))
    assert done.returncode == 2
    assert done.stderr.splitlines()[0] == "ours or triton is not there: make env installs them"
    assert [path.name for path in tmp_path.iterdir()] == ["tools"]


@pytest.mark.parametrize(
    ("statuses", "fails", "runs"),
    [
        ([0, 0], False, ["tests/contract tests/unit", "tests/integration tests/e2e"]),
        ([1, 0], True, ["tests/contract tests/unit", "tests/integration tests/e2e"]),
        ([0, 1], True, ["tests/contract tests/unit", "tests/integration tests/e2e"]),
        ([2, 0], True, ["tests/contract tests/unit"]),  # somebody pressed Ctrl-C
    ],
)
def test_all_tests_run_and_one_that_fails_is_not_lost(
    tmp_path: Path, statuses: list[int], fails: bool, runs: list[str]
) -> None:
    done = make("-o", "env", f"PY={python_that_ends(tmp_path, statuses)}", "test", "TEST=")
    assert (done.returncode != 0) is fails
    said = (tmp_path / "said").read_text().splitlines()
    assert [" ".join(word for word in line.split() if word.startswith("tests/")) for line in said] == runs


def test_of_the_tests_those_that_are_named_run(tmp_path: Path) -> None:
    done = make("-o", "env", f"PY={python_that_ends(tmp_path, [0])}", "test", "TEST=tests/unit -k 'a page'")
    assert done.returncode == 0
    assert (tmp_path / "said").read_text() == "-m pytest tests/unit -k a page\n"


def python_that_ends(folder: Path, statuses: list[int]) -> Path:
    """A Python that says in a file what it is called with, and ends so, one call after the other."""
    python = folder / "python"
    for number, status in enumerate(statuses, 1):
        (folder / f"status-{number}").write_text(f"{status}")
    python.write_text(
        f'#!/bin/sh\necho "$@" >> {folder}/said\nexit $(cat {folder}/status-$(wc -l < {folder}/said))\n'
    )
    python.chmod(0o755)
    return python
