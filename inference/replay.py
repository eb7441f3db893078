"""A SavedModel tried out in a fresh process of the serving environment, before Triton ever sees it."""

from __future__ import annotations

import json
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from inference.backend_folder import BACKEND_SOURCES
from inference.environment import Interpreter, interpreter_environment
from inference.errors import UnfitModel
from inference.golden import Golden, difference
from inference.signature import RECOMMEND, Signature, read_signature

REPLAY_TIMEOUT_S = 600


@dataclass(frozen=True, slots=True)
class Replay:
    """A SavedModel that answered its golden requests as expected."""

    signature: Signature
    tensorflow: str


def replay(interpreter: Interpreter, savedmodel: Path, golden: Golden) -> Replay:
    """Load `savedmodel` in `interpreter`'s environment, answer the golden requests, compare.

    Raises:
        UnfitModel: it does not load, its signature breaks the contract, or an answer is wrong.
    """
    with tempfile.TemporaryDirectory(prefix="riptide-preflight-") as scratch:
        requests, answers_file = Path(scratch, "requests.npz"), Path(scratch, "answers.npz")
        np.savez(requests, **golden.inputs)  # type: ignore[arg-type]  # numpy types **kwds as its own flag
        try:
            run = subprocess.run(
                [
                    interpreter.executable,
                    BACKEND_SOURCES / "savedmodel.py",
                    savedmodel,
                    RECOMMEND,
                    requests,
                    answers_file,
                ],
                capture_output=True,
                text=True,
                timeout=REPLAY_TIMEOUT_S,
                env=interpreter_environment(interpreter),
            )
        except subprocess.TimeoutExpired as exc:
            raise UnfitModel(
                f"{savedmodel}: no answer to the golden requests in {REPLAY_TIMEOUT_S} s"
            ) from exc
        if run.returncode != 0:
            reason = (run.stderr.strip().splitlines() or [f"status {run.returncode}"])[-1]
            raise UnfitModel(f"{savedmodel}: does not load: {reason}")
        report = json.loads(run.stdout.splitlines()[-1])
        signature = read_signature(report)
        if report["problem"]:
            raise UnfitModel(f"{savedmodel}: fails its golden requests: {report['problem']}")
        with np.load(answers_file) as file:
            answers = {name: file[name] for name in file.files}
    for tensor in signature.outputs:
        if answers[tensor.name].shape != (golden.rows, *tensor.dims):
            raise UnfitModel(
                f"{savedmodel}: output {tensor.name!r} has shape {list(answers[tensor.name].shape)}, "
                f"and must have {[golden.rows, *tensor.dims]}"
            )
    wrong = difference(golden, answers)
    if wrong:
        raise UnfitModel(f"{savedmodel}: answers its golden requests wrongly: {wrong}")
    return Replay(signature, report["tensorflow"])
