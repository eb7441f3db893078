"""`python -m rollout publish` and `python -m rollout versions`.

Exit status: 0 done; 2 the export, the version number or the environment has to be put right first.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from features.settings import Settings, load_settings
from inference.environment import check_interpreter, probe
from inference.errors import TritonError
from inference.model_config import PROFILES
from rollout.errors import RolloutError
from rollout.export_folder import newest_export
from rollout.ledger import versions_present
from rollout.manifest import read_manifest
from rollout.publish import publish


def main() -> int:
    """The command; returns the exit status."""
    arguments = _parser().parse_args()
    settings = load_settings()
    try:
        if arguments.command == "publish":
            _publish(settings, arguments)
        else:
            _versions(settings)
    except (RolloutError, TritonError) as error:
        print(error, file=sys.stderr)
        return 2
    except OSError as error:
        print(f"nothing was published: {error}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m rollout", description="Versions of the served model.")
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("publish", help="make an export a version in the model repository")
    one.add_argument(
        "--export", type=Path, help="the export folder; without it, the newest below var/exports"
    )
    one.add_argument("--version", type=_number, help="the version number; without it, the next one")
    one.add_argument("--profile", choices=sorted(PROFILES), default="cpu", help="what Triton runs it on")
    one.add_argument("--if-new", action="store_true", help="do nothing if it is the newest version already")
    commands.add_parser("versions", help="list the published versions")
    return parser


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
    print("it is served from the next start of Triton; a Triton that runs now keeps to what it has loaded")
    if outcome.config_changed:
        print("its configuration differs from the one before: Triton reloads all versions with the next load")


def _versions(settings: Settings) -> None:
    model_folder = settings.model_repository / settings.model_name
    table = Table("version", "published", "code", "data", "seed", "NDCG@10")
    for version in versions_present(model_folder):
        manifest = read_manifest(model_folder / str(version))
        if manifest is None:
            table.add_row(str(version), "no manifest")
            continue
        quality = manifest.metrics.get("test", {}).get("ndcg@10")
        table.add_row(
            str(version),
            manifest.created,
            manifest.code_revision[:12],
            manifest.data_fingerprint[:12],
            str(manifest.seed),
            f"{quality:.4f}" if isinstance(quality, float) else "",
        )
    Console().print(table)


def _number(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1, not {text!r}")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
