"""Publishing the tiny export, and refusing every way of spoiling it, in Triton's environment."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from features.settings import Settings
from inference.environment import Interpreter
from inference.model_config import from_text, to_text, versions_of
from rollout.configuration import read_versions, set_versions
from rollout.errors import BadExport, PreflightFailed, RolloutError, VersionTaken
from rollout.manifest import read_manifest
from rollout.publish import publish
from rollout.workbench import workbench
from tests.integration.conftest import ROOT, settings_below


def versions(settings: Settings) -> list[str]:
    folder = settings.model_repository / settings.model_name
    return sorted(path.name for path in folder.iterdir() if path.is_dir())


def listed(settings: Settings) -> list[int]:
    return read_versions(settings.model_repository / settings.model_name)


def test_a_version_is_whole_and_can_be_traced(published: Settings) -> None:
    folder = published.model_repository / published.model_name
    config = from_text((folder / "config.pbtxt").read_text())
    manifest = read_manifest(folder / "1")
    assert (config.platform, config.backend) == ("tensorflow_savedmodel", "tensorflow")
    assert manifest is not None
    assert manifest.data_fingerprint == "tiny"
    assert manifest.widths == {"T": 8, "D": 4, "C": 4, "K": 10}
    listed = {name for name in manifest.files if not name.startswith("model.savedmodel/")}
    assert listed == {"golden.npz", "catalog.lmdb"}
    assert {path.name for path in folder.iterdir()} == {"1", "config.pbtxt"}


def test_numbers_only_go_up_and_the_same_export_is_published_once(
    export: Path, interpreter: Interpreter, tmp_path: Path
) -> None:
    settings = settings_below(tmp_path)
    old = time.time() - 1e6
    for path in export.rglob("*"):
        os.utime(path, (old, old))
    assert publish(settings, interpreter, export).version == 1
    again = publish(settings, interpreter, export, if_new=True)
    assert (again.version, again.fresh) == (1, False)
    with pytest.raises(VersionTaken, match="version 1 is published already"):
        publish(settings, interpreter, export, version=1)
    leftover = workbench(settings.model_repository / settings.model_name) / "publishing-killed"
    leftover.mkdir()
    second = publish(settings, interpreter, export, version=4)
    assert (second.version, second.config_changed) == (4, False)
    assert not leftover.exists()
    assert (second.folder / "golden.npz").stat().st_mtime > old + 1


def test_what_is_served_is_decided_by_the_rollout_and_not_by_publishing(
    export: Path, interpreter: Interpreter, tmp_path: Path
) -> None:
    settings = settings_below(tmp_path)
    folder = settings.model_repository / settings.model_name
    for _ in range(3):
        publish(settings, interpreter, export)
        assert listed(settings) == [1]
    set_versions(folder, [1, 3])
    publish(settings, interpreter, export)
    assert listed(settings) == [1, 3]
    for version in (1, 3):
        shutil.rmtree(folder / str(version))
    publish(settings, interpreter, export)
    assert listed(settings) == [5]


def test_a_repository_of_an_earlier_release_goes_on_serving_its_newest_version(
    export: Path, interpreter: Interpreter, tmp_path: Path
) -> None:
    settings = settings_below(tmp_path)
    publish(settings, interpreter, export)
    path = settings.model_repository / settings.model_name / "config.pbtxt"
    config = from_text(path.read_text())
    config.version_policy.latest.num_versions = 1
    path.write_text(to_text(config))
    publish(settings, interpreter, export)
    assert versions_of(from_text(path.read_text())) == [1]


KILLED_PUBLISH = """
import os, signal, sys
from pathlib import Path
from features.settings import Settings
from inference.environment import probe
from rollout import publish
settings = Settings(state_dir=Path(sys.argv[1]), model_repository=Path(sys.argv[2]))
rename = Path.rename
def rename_and_die(self, target):
    rename(self, target)
    os.kill(os.getpid(), signal.SIGKILL)
Path.rename = rename_and_die
publish.publish(settings, probe(settings.triton_python), Path(sys.argv[3]), profile="gpu")
"""


def test_a_publish_killed_when_its_version_has_appeared_is_finished_by_the_next(
    export: Path, interpreter: Interpreter, tmp_path: Path
) -> None:
    settings = settings_below(tmp_path)
    publish(settings, interpreter, export)
    arguments = [settings.state_dir, settings.model_repository, export]
    killed = subprocess.run([sys.executable, "-c", KILLED_PUBLISH, *arguments], cwd=ROOT, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert versions(settings) == ["1", "2"]
    assert publish(settings, interpreter, export, if_new=True).version == 2
    config = from_text((settings.model_repository / settings.model_name / "config.pbtxt").read_text())
    assert config.instance_group[0].kind == config.instance_group[0].KIND_GPU


def spoil_scores(export: Path) -> None:
    change_golden(export, "out:scores", lambda scores: scores + 1)


def spoil_nan(export: Path) -> None:
    change_golden(export, "out:scores", lambda scores: scores * np.float32("nan"))


def spoil_requests(export: Path) -> None:
    change_golden(export, "in:history_keys", lambda keys: keys.astype(np.int32))


def spoil_variables(export: Path) -> None:
    (data,) = (export / "model.savedmodel" / "variables").glob("*.data*")
    data.write_bytes(data.read_bytes()[:-64])


def spoil_graph(export: Path) -> None:
    (export / "model.savedmodel" / "saved_model.pb").write_bytes(b"not a model")


def spoil_widths(export: Path) -> None:
    record = export / "training.json"
    training = json.loads(record.read_text())
    training["widths"]["T"] = 9
    record.write_text(json.dumps(training))


def spoil_catalog(export: Path) -> None:
    (export / "catalog.lmdb").write_bytes(b"not a catalogue")


def spoil_record(export: Path) -> None:
    (export / "training.json").write_text("{}")


def remove_golden(export: Path) -> None:
    (export / "golden.npz").unlink()


def change_golden(export: Path, name: str, change: object) -> None:
    with np.load(export / "golden.npz") as file:
        arrays = {key: file[key] for key in file.files}
    arrays[name] = change(arrays[name])  # type: ignore[operator]  # a lambda
    np.savez(export / "golden.npz", **arrays)


@pytest.mark.parametrize(
    ("spoil", "kind", "says"),
    [
        (spoil_scores, PreflightFailed, "scores: row 0 is off by"),
        (spoil_nan, BadExport, "out:scores holds values that are not finite"),
        (spoil_requests, PreflightFailed, "history_keys: must be int64, not int32"),
        (spoil_variables, PreflightFailed, "does not load"),
        (spoil_graph, PreflightFailed, "does not load"),
        (spoil_widths, BadExport, "widths.T is 9, but the SavedModel has 8"),
        (spoil_catalog, BadExport, "catalog.lmdb"),
        (spoil_record, BadExport, "data_fingerprint: Field required"),
        (remove_golden, BadExport, "has no golden.npz"),
    ],
)
def test_a_spoilt_export_is_refused_and_leaves_nothing(
    export: Path,
    interpreter: Interpreter,
    tmp_path: Path,
    spoil: object,
    kind: type[RolloutError],
    says: str,
) -> None:
    settings = settings_below(tmp_path)
    spoil(export)  # type: ignore[operator]  # a function
    with pytest.raises(kind, match=says):
        publish(settings, interpreter, export)
    folder = settings.model_repository / settings.model_name
    assert not folder.exists() or list(folder.iterdir()) == []
    assert {path.name for path in workbench(folder).iterdir()} <= {"publish.lock", "config.lock"}
