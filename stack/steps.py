"""What must exist before anything can be served: a trained model, a published version, users in the store."""

from __future__ import annotations

import asyncio
import signal
import tomllib
from dataclasses import dataclass
from pathlib import Path

from features.settings import Settings
from stack.child import Child
from stack.errors import StackError

# Time for training to write its checkpoint.
_STEP_GRACE_S = 15.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What to train, and where its data and its export lie once they are made."""

    config: Path
    seed: int
    data: Path
    export: Path


def read_plan(settings: Settings, config: Path, seed: int) -> Plan:
    """The plan for a training configuration; StackError if the file cannot be read."""
    try:
        name = str(tomllib.loads(config.read_text(encoding="utf-8"))["data"]["name"])
    except OSError as error:
        raise StackError(f"{config}: cannot be read: {error.strerror}", status=2) from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise StackError(f"{config}: is not TOML: {error}", status=2) from error
    except (KeyError, TypeError) as error:
        raise StackError(f"{config}: [data] has no name", status=2) from error
    return Plan(config, seed, settings.state_dir / "data" / name, settings.state_dir / "exports" / name)


def newest_version(settings: Settings) -> int | None:
    """The highest version number in the model repository; None if nothing is published."""
    folder = settings.model_repository / settings.model_name
    numbers = [int(entry.name) for entry in folder.glob("*/") if entry.name.isdigit()]
    return max(numbers, default=None)


async def check_triton() -> None:
    """Raises StackError, after the reason was printed, if Triton is missing or cannot work as installed."""
    await _step("the check of Triton", "inference", "check")


async def prepare(plan: Plan) -> None:
    """Does what is not done yet. Each step knows by itself; its output goes to the terminal."""
    await _step("training", "training", "run", "--config", str(plan.config), "--seed", str(plan.seed))
    # By its name: the newest export may be that of another configuration.
    publish = _step("publishing", "rollout", "publish", "--if-new", "--serve", "--export", str(plan.export))
    load = _step("loading users", "features", "backfill", "--data", str(plan.data))
    try:
        async with asyncio.TaskGroup() as both:
            both.create_task(publish)
            both.create_task(load)
    except* StackError as errors:
        raise errors.exceptions[0] from None


async def _step(name: str, *module: str) -> None:
    child = await Child.start(name, module)
    try:
        status = await child.wait()
    finally:
        await child.stop(_STEP_GRACE_S, signal.SIGINT)
    if status:
        raise StackError(
            f"{name} ended with status {status}; the reason stands above", status=2 if status == 2 else 1
        )
