"""`python -m training`: from an event log to an export that can be published.

Exit status: 0 done, 2 bad input (one sentence says what), 130 interrupted.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from rich.console import Console

from features.settings import load_settings
from training.config import load_config
from training.errors import BAD_INPUT_EXIT_CODE, TrainingError
from training.pipeline import Inputs, Pipeline
from training.progress import ConsoleProgress
from training.workers import ALONE, read_workers


def main(arguments: list[str] | None = None) -> int:
    """Runs one command and gives the exit status."""
    given = _parser().parse_args(arguments)
    console = Console(stderr=False)
    # Two notes of TensorFlow's about this processor on every start; errors still show.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    settings = load_settings()
    try:
        config = load_config(given.config)
        trains = given.command in ("train", "run")
        workers = read_workers(os.environ.get("TF_CONFIG")) if trains else ALONE
        pipeline = Pipeline(config, settings, console, given.state_dir or settings.state_dir, workers)
        seeds = getattr(given, "seeds", None) or [config.training.seed]
        if given.command not in ("export", "extend", "cost"):
            pipeline.prepare(Inputs(given.events, given.items, given.users))
        if trains:
            pipeline.train(seeds, ConsoleProgress(console), given.time_split)
        if given.command == "ablate":
            pipeline.ablate(seeds, ConsoleProgress(console))
        if given.command == "cold-items":
            pipeline.cold_items(seeds, ConsoleProgress(console))
        if given.command == "cost":
            pipeline.cost()
        if given.command == "extend":
            pipeline.extend(given.items, given.seeds[0] if given.seeds else None)
        if given.command in ("export", "run") and workers.chief:
            pipeline.export(seeds[0])
        if trains:
            pipeline.meet()
    except TrainingError as error:
        print(error, file=sys.stderr)
        return BAD_INPUT_EXIT_CODE
    except KeyboardInterrupt:
        print("interrupted; the same command goes on with the epoch that was begun", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--config", type=Path, required=True, help="TOML file, see training/configs")
    shared.add_argument(
        "--state-dir",
        type=Path,
        help="where data, runs and exports go (default: RIPTIDE_STATE_DIR); the list of forgotten users is "
        "read from the store of the settings all the same",
    )
    files = argparse.ArgumentParser(add_help=False)
    for kind in ("events", "items", "users"):
        files.add_argument(f"--{kind}", type=Path, help=f"CSV or Parquet file of {kind}")
    seeds = argparse.ArgumentParser(add_help=False)
    choice = seeds.add_mutually_exclusive_group()
    choice.add_argument(
        "--seed", dest="seeds", type=_seeds, metavar="N", help="seed (default: the configuration's)"
    )
    choice.add_argument("--seeds", type=_seeds, metavar="N,N", help="several; the first one is exported")
    split = argparse.ArgumentParser(add_help=False)
    split.add_argument(
        "--time-split",
        action="store_true",
        help="train the first seed for the global time split, too, and report it",
    )
    added = argparse.ArgumentParser(add_help=False)
    added.add_argument(
        "--items",
        type=Path,
        required=True,
        help="CSV or Parquet file of new items, with the items file's columns",
    )
    added.add_argument(
        "--seed", dest="seeds", type=_seeds, metavar="N", help="seed that the export is of (default: any)"
    )
    for name, parents, text in (
        ("prepare", [files], "clean the event log"),
        ("train", [files, seeds, split], "prepare, train, evaluate, report"),
        ("export", [seeds], "write the export folder of a trained seed"),
        ("extend", [added], "add new items to the export without training"),
        ("run", [files, seeds, split], "all of it"),
        ("ablate", [files, seeds], "train variants of the configuration: what each ingredient gains"),
        ("cold-items", [files, seeds], "hold items out of training: how well new ones are recommended"),
        ("cost", [], "measure what one call of the export costs on one thread"),
    ):
        commands.add_parser(name, parents=[shared, *parents], help=text, description=text)
    return parser


def _seeds(text: str) -> list[int]:
    seeds = [int(part) for part in text.split(",")]
    if min(seeds) < 0 or max(seeds) >= 2**31 or len(set(seeds)) != len(seeds):
        raise argparse.ArgumentTypeError("seeds are different whole numbers from 0 to 2147483647")
    return seeds


if __name__ == "__main__":
    sys.exit(main())
