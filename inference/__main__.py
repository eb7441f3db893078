"""`python -m inference`: run Triton in the foreground, restarted when it dies, until SIGTERM or Ctrl-C.

Prints one line `triton ready: …` on standard output each time the model is ready and has proven itself; the
log is on standard error. With the setting `triton_address` nothing is started: the Triton there is proven,
once. `python -m inference check` only looks whether there is a Triton that can work as it is installed.

Exit status: 0 stopped, proven or fit; 2 something to put right first (settings, installation, a port, no
published version); 1 Triton failed.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import sys

from features.settings import Settings, load_settings
from inference.environment import find_triton
from inference.errors import NothingPublished, PortInUse, TritonError, TritonNotFound, UnfitEnvironment
from inference.proof import Proof
from inference.readiness import prove_served
from inference.supervisor import supervise


def main() -> int:
    """The command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m inference", description=__doc__.split("\n")[0])
    parser.add_argument("command", nargs="?", choices=["check"], help="start nothing: can Triton work here?")
    arguments = parser.parse_args()
    settings = load_settings()
    logging.basicConfig(
        level=settings.log_level, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s %(message)s"
    )
    try:
        if arguments.command == "check":
            find_triton(settings)
        else:
            asyncio.run(_run(settings))
    except (NothingPublished, PortInUse, TritonNotFound, UnfitEnvironment) as error:
        print(error, file=sys.stderr)
        return 2
    except TritonError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:  # during the check; else the signal is handled
        return 130
    except OSError as error:
        print(f"Triton could not be started: {error}", file=sys.stderr)
        return 1
    return 0


async def _run(settings: Settings) -> None:
    if settings.triton_address is not None:
        _announce(await prove_served(settings))
        return
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await supervise(settings, stop, _announce)


def _announce(proof: Proof) -> None:
    print(f"triton ready: {proof}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
