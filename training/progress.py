"""What the command line shows while a model trains."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from training.checkpoint import Epoch
from training.runs import Progress


class ConsoleProgress(Progress):
    """A bar with loss and validation NDCG@10 on a terminal; elsewhere a line per epoch."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar: Bar | None = None
        self._task = TaskID(0)
        self._title = ""
        self._done = self._batches = 0

    def started(self, seed: int, split: str, epochs: int) -> None:
        """See `Progress`."""
        self._title, self._done, self._batches = f"{split}, seed {seed}", 0, 0
        if self._console.is_terminal:
            columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[figures]}"))
            self._bar = Bar(*columns, TimeElapsedColumn(), console=self._console)
            self._task = self._bar.add_task(f"training {self._title}", total=epochs, figures="")
            self._bar.start()
        else:
            self._console.print(f"training {self._title}: at most {epochs} epochs", highlight=False)

    def batch(self, number: int, loss: float) -> None:
        """See `Progress`."""
        if self._bar is not None and self._batches:
            part = min(1.0, number / self._batches)
            self._bar.update(self._task, completed=self._done + part)
        self._number = number

    def epoch(self, epoch: Epoch, best: Epoch) -> None:
        """See `Progress`."""
        self._done, self._batches = epoch.epoch, self._number
        figures = (
            f"epoch {epoch.epoch}  loss {epoch.loss:.3f}  validation NDCG@10 {epoch.validation_ndcg:.4f} "
            f"(best {best.validation_ndcg:.4f} at {best.epoch})"
        )
        if self._bar is not None:
            self._bar.update(self._task, completed=epoch.epoch, figures=figures)
        else:
            self._console.print(f"{figures}  {epoch.seconds:.1f} s", highlight=False, soft_wrap=True)

    def finished(self) -> None:
        """See `Progress`."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
