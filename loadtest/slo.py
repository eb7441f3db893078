"""The service level that a run is judged by, from `slo.toml` or the file that `--slo` names."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

DEFAULT = Path(__file__).with_name("slo.toml")

Share = Annotated[float, Field(ge=0, le=1)]
Milliseconds = Annotated[float, Field(gt=0)]


class ServiceLevel(BaseModel):
    """Bounds, as the comments of `slo.toml` say; None: not asked for."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    p50_ms: Milliseconds | None = None
    p99_ms: Milliseconds | None = None
    error_rate: Share | None = None
    degraded_rate: Share | None = None
    achieved: Share | None = None

    def breaches(
        self, *, p50_ms: float, p99_ms: float, error_rate: float, degraded_rate: float, achieved: float | None
    ) -> list[str]:
        """A line for each bound that is broken, which begins with its name; none: the level is kept.

        `achieved` is None in a closed loop, in which no more calls are due than are answered.
        """
        measured = {
            "p50_ms": (p50_ms, f"{p50_ms:.1f} ms"),
            "p99_ms": (p99_ms, f"{p99_ms:.1f} ms"),
            "error_rate": (error_rate, f"{error_rate:.3%}"),
            "degraded_rate": (degraded_rate, f"{degraded_rate:.3%}"),
        }
        lines = []
        for name, (value, written) in measured.items():
            bound = getattr(self, name)
            if bound is not None and value > bound:
                most = f"{bound:g} ms" if name.endswith("_ms") else f"{bound:.3%}"
                lines.append(f"{name}: {written}, at most {most} wanted")
        if achieved is not None and self.achieved is not None and achieved < self.achieved:
            lines.append(f"achieved: {achieved:.1%} of what was due, at least {self.achieved:.1%} wanted")
        return lines


def read_service_level(path: Path) -> ServiceLevel:
    """What a file asks for.

    Raises:
        ValueError: it cannot be read, is no TOML, or a bound is none; the sentence names file and field.
    """
    try:
        return ServiceLevel.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise ValueError(f"--slo: {path} cannot be read: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"]))
        problem = (
            f"there is no such bound; there are {', '.join(ServiceLevel.model_fields)}"
            if first["type"] == "extra_forbidden"
            else first["msg"]
        )
        raise ValueError(f"--slo: {path}: {name}: {problem}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"--slo: {path}: {error}") from None
