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
        self._done = self._batches = self._number = 0

    def started(self, seed: int, split: str, epochs: int) -> None:
        """See `Progress`."""
        self._done = self._batches = 0
        self._console.print(f"training for {split}, seed {seed}: at most {epochs} epochs", highlight=False)
        if self._console.is_terminal:
            columns = (BarColumn(bar_width=20), TextColumn("{task.fields[figures]}"), TimeElapsedColumn())
            self._bar = Bar(*columns, console=self._console)
            self._task = self._bar.add_task("", total=epochs, figures="")
            self._bar.start()

    def batch(self, number: int, loss: float) -> None:
        """See `Progress`."""
        if self._bar is not None and self._batches:
            part = min(1.0, number / self._batches)
            self._bar.update(self._task, completed=self._done + part)
        self._number = number

    def epoch(self, epoch: Epoch, best: Epoch) -> None:
        """See `Progress`."""
        self._done, self._batches = epoch.epoch, self._number
        figures = f"loss {epoch.loss:.3f}, validation NDCG@10 {epoch.validation_ndcg:.4f}"
        best_so_far = f"best {best.validation_ndcg:.4f}"
        if self._bar is not None:
            self._bar.update(self._task, completed=epoch.epoch, figures=f"{figures}, {best_so_far}")
        else:
            line = f"epoch {epoch.epoch}: {figures} ({best_so_far} at {best.epoch}), {epoch.seconds:.1f} s"
            self._console.print(line, highlight=False, soft_wrap=True)

    def finished(self) -> None:
        """See `Progress`."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def private(self, epsilon: float, delta: float) -> None:
        """See `Progress`."""
        self._console.print(
            f"private training: epsilon {epsilon:.2f} at delta {delta:g}, for each user; "
            "docs/decisions/0017-private-training.md says what that covers",
            highlight=False,
            soft_wrap=True,
        )
