"""`python -m benchmarks.crosscheck`: the same call at the same rate, from Locust and from h2load.

On what `make up` has started. Both ask for a page of ten of a known user, in turn, several rounds. What is
not alike: Locust's calls come as a Poisson process, and their latency counts from when they were due;
h2load's come at even distances, count from when they left, and are for four users alone.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import astuple, dataclass
from pathlib import Path

from benchmarks import h2load
from benchmarks.capacity import run_locust
from benchmarks.errors import BenchmarkError, translated
from benchmarks.processes import users_of
from benchmarks.section import spread
from benchmarks.target import recommend
from features.settings import load_settings

_ONLY_PLAIN = tuple(
    word
    for name, part in {"browsing": 0, "anonymous": 0, "heavy": 0, "bulk": 0, "similar": 0, "plain": 1}.items()
    for word in (f"--{name}", str(part))
)
_IN_FLIGHT = 64


@dataclass(frozen=True, slots=True)
class Seen:
    """What a generator saw in a round."""

    per_s: float
    p50_ms: float
    p99_ms: float
    cores: float


def table(rate: float, seen: dict[str, list[Seen]]) -> str:
    """A row for each generator, medians (lowest–highest), and the ratio of what was answered, by rounds."""
    lines = [f"| {rate:g} pages a second due | answered/s | p50, ms | p99, ms | cores |", "|" + "---|" * 5]
    for name, rounds in seen.items():
        columns = zip(*map(astuple, rounds), strict=True)
        lines.append(f"| {name} | " + " | ".join(str(spread(column)) for column in columns) + " |")
    first, second = seen.values()
    ratios = [mine.per_s / other.per_s for mine, other in zip(first, second, strict=True)]
    return "\n".join([*lines, "", f"answered, {' / '.join(seen)}: {spread(ratios)}"])


def main() -> int:
    """Measures and prints; 2 if it cannot."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.crosscheck", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--rate", type=float, default=100.0, help="pages a second")
    parser.add_argument("--seconds", type=float, default=20.0, help="of one run")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    for name, least, most in (("rate", 1, 1e5), ("seconds", 1, 600), ("rounds", 1, 100)):
        if not least <= getattr(arguments, name) <= most:
            parser.error(f"--{name}: must be from {least:g} to {most:g}")
    if not h2load.available():
        print("h2load is not installed (Debian: apt install nghttp2-client)", file=sys.stderr)
        return 2
    try:
        with translated():
            seen = _measure(arguments.rate, arguments.seconds, arguments.rounds)
        print(table(arguments.rate, seen))
    except BenchmarkError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


def _measure(rate: float, seconds: float, rounds: int) -> dict[str, list[Seen]]:
    settings = load_settings()
    users = users_of(settings)
    target = recommend(settings.grpc_port, users)
    seen: dict[str, list[Seen]] = {"Locust": [], "h2load": []}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(rounds):
            trial = run_locust(rate, seconds, Path(folder) / "run.json", _ONLY_PLAIN)
            if trial.verdict == "INVALID":
                raise BenchmarkError(f"round {number + 1}: Locust: {'; '.join(trial.reasons)}")
            seen["Locust"].append(Seen(trial.answered, trial.p50_ms, trial.p99_ms, trial.generator))
            other = h2load.run(target, _IN_FLIGHT, seconds, Path(folder), per_s=rate)
            seen["h2load"].append(Seen(other.per_s, other.p50_ms, other.p99_ms, other.cores))
            print(f"round {number + 1} of {rounds}", file=sys.stderr)
    return seen


if __name__ == "__main__":
    raise SystemExit(main())
