"""`python -m rollout COMMAND`: publishing versions of the model, and moving traffic to them.

Exit status: 0 done; 2 what was asked for does not fit, or something has to be put right first; 1 the rollout
that was followed was rolled back, or the store or Triton does not answer.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys

from pydantic import ValidationError
from rich.console import Console

from features.control import ControlStore
from features.settings import Settings, load_settings
from features.state_folder import make_state_folder
from features.store import StoreError, open_store
from features.token_file import TokenError
from inference.environment import check_interpreter, probe
from inference.errors import TritonError
from inference.repository import listed_versions
from rollout.command_line import OPTIONS, parser, plan_of
from rollout.errors import RolloutError
from rollout.export_folder import newest_export
from rollout.heartbeat import read_heartbeat
from rollout.operate import Operator
from rollout.publish import publish
from rollout.records import Records
from rollout.report import report
from rollout.repository import prune, published
from rollout.state import Phase, Rollout, mistake
from rollout.tables import report_table, status_lines, versions_table

_NICE = 10


def main() -> int:
    """The command; returns the exit status."""
    # Publishing, hashing, even starting Python must not take a core from those who answer requests.
    os.nice(_NICE)
    arguments = parser().parse_args()
    settings = load_settings()
    console = Console(highlight=False)
    try:
        make_state_folder(settings.state_dir)
        if arguments.command == "publish":
            _publish(settings, arguments)
            return 0
        if arguments.command == "drive":
            from rollout.drive import drive

            logging.basicConfig(
                level=settings.log_level,
                stream=sys.stderr,
                format="%(asctime)s %(levelname)s %(name)s %(message)s",
            )
            asyncio.run(drive(settings))
            return 0
        return asyncio.run(_with_store(settings, arguments, console))
    except ValidationError as error:
        print(mistake(error, OPTIONS), file=sys.stderr)
        return 2
    except (RolloutError, TritonError, TokenError) as error:
        print(error, file=sys.stderr)
        return 2
    except StoreError as error:
        print(error, file=sys.stderr)
        return 1
    except OSError as error:
        print(f"{arguments.command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def _publish(settings: Settings, arguments: argparse.Namespace) -> None:
    folder = arguments.export or newest_export(settings.state_dir / "exports")
    interpreter = probe(settings.triton_python)
    check_interpreter(interpreter)
    outcome = publish(
        settings,
        interpreter,
        folder,
        version=arguments.version,
        profile=arguments.profile,
        if_new=arguments.if_new,
    )
    if not outcome.fresh:
        print(f"{folder} is published already, as version {outcome.version}")
        return
    print(f"published {folder} as {settings.model_name} version {outcome.version}")
    if arguments.serve:
        asyncio.run(_serve(settings, outcome.version))
    elif listed_versions(settings.model_repository / settings.model_name) != [outcome.version]:
        print("it gets traffic with make rollout")
    if outcome.config_changed:
        print("its configuration differs from the one before: Triton reloads all versions with the next load")


async def _serve(settings: Settings, version: int) -> None:
    store = open_store(settings)
    try:
        await Operator(settings, Records(store.control, settings.model_name)).serve(version)
    finally:
        await store.close()


async def _with_store(settings: Settings, arguments: argparse.Namespace, console: Console) -> int:
    store = open_store(settings)
    try:
        operator = Operator(settings, Records(store.control, settings.model_name))
        model_folder = settings.model_repository / settings.model_name
        match arguments.command:
            case "versions":
                console.print(versions_table(published(model_folder), await operator.get()))
            case "prune":
                rollout = await operator.get()
                keep = arguments.keep or settings.keep_versions
                in_use = {*rollout.in_use, *listed_versions(model_folder)}
                removed = prune(model_folder, keep, in_use)
                print(f"deleted: {', '.join(map(str, removed)) or 'none'}")
            case "report":
                until = (await operator.get()).end_of(arguments.name)
                arms = await report(store, arguments.name, until=until)
                if not arms:
                    print(f"--name: no user has met an experiment {arguments.name!r}", file=sys.stderr)
                    return 2
                console.print(report_table(arms))
            case "watch":
                from rollout.follow import watch

                await watch(operator, store.control, settings.model_name, console)
            case "status" if arguments.json:
                print((await operator.get()).model_dump_json(indent=1))
            case "start" | "experiment":
                return await _begin(settings, operator, store.control, arguments, console)
            case _:
                rollout = await _change(operator, arguments)
                beat = await read_heartbeat(store.control, settings.model_name)
                console.print(status_lines(rollout, beat), soft_wrap=True)
    finally:
        await store.close()
    return 0


async def _begin(
    settings: Settings,
    operator: Operator,
    control: ControlStore,
    arguments: argparse.Namespace,
    console: Console,
) -> int:
    from rollout.follow import follow

    plan = plan_of(arguments)
    if arguments.command == "start":
        begun = await operator.start(arguments.version, plan)
    else:
        begun = await operator.start_experiment(arguments.name, arguments.version, arguments.percent, plan)
    if arguments.detach:
        beat = await read_heartbeat(control, settings.model_name)
        console.print(status_lines(begun, beat), soft_wrap=True)
        return 0
    ended = await follow(operator, control, settings.model_name, begun, console)
    return 1 if ended.phase is Phase.ROLLED_BACK else 0


async def _change(operator: Operator, arguments: argparse.Namespace) -> Rollout:
    match arguments.command:
        case "set":
            return await operator.set_percent(arguments.percent, arguments.version)
        case "promote":
            return await operator.promote(arguments.version)
        case "rollback":
            return await operator.roll_back(arguments.reason, arguments.version)
        case "discard":
            return await operator.discard()
        case "end-experiment":
            return await operator.end_experiment()
        case _:
            return await operator.get()


if __name__ == "__main__":
    sys.exit(main())
