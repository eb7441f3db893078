"""What a training run shows for itself: metrics.json, report.md and the plots as PNG."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from training.config import Config, PrivacyConfig
from training.dataset import Prepared
from training.plots import plot_curves
from training.protocol_report import ProtocolReport
from training.report_tables import protocol_tables, with_deviation
from training.sections import Section


def write_report(
    folder: Path,
    config: Config,
    prepared: Prepared,
    protocols: Sequence[ProtocolReport],
    sections: Sequence[Section] = (),
) -> None:
    """Writes metrics.json, loss.png, validation_ndcg.png and the plots of the sections, then report.md,
    replacing older ones.

    Does nothing if the texts are there as they would be: Matplotlib alone takes longer than all else here.
    """
    metrics = json.dumps(_metrics(config, prepared, protocols, sections), indent=1) + "\n"
    report = "\n".join(_markdown(config, prepared, protocols, sections)) + "\n"
    if _holds(folder / "metrics.json", metrics) and _holds(folder / "report.md", report):
        return
    (folder / "report.md").unlink(missing_ok=True)  # it stands for all of them
    _replace(folder / "metrics.json", metrics)
    if results := [result for protocol in protocols for result in protocol.results]:
        plot_curves(folder, results)
    for section in sections:
        for name, draw in section.plots.items():
            draw(folder / name)
    _replace(folder / "report.md", report)


def print_summary(console: Console, folder: Path, protocols: Sequence[ProtocolReport]) -> None:
    """The main figures as a table, and where the report is."""
    for protocol in protocols:
        k = protocol.cutoff
        table = Table(title=f"Test, {protocol.protocol} ({protocol.users:,} users)", title_justify="left")
        for column in ("", f"HR@{k}", f"NDCG@{k}", f"coverage@{k}"):
            table.add_column(column, justify="left" if not column else "right")
        names = [f"{metric}@{k}" for metric in ("hr", "ndcg", "coverage")]
        for evaluation in protocol.baselines:
            table.add_row(evaluation.ranker, *(f"{evaluation.metrics[name]:.4f}" for name in names))
        for result in protocol.results:
            row = (f"{result.test.metrics[name]:.4f}" for name in names)
            table.add_row(f"{result.test.ranker}, seed {result.seed}", *row)
        if len(protocol.results) > 1:
            row = (with_deviation(protocol, name) for name in names)
            table.add_row(f"mean ± sd, {len(protocol.results)} seeds", *row, style="bold")
        console.print(table)
        if not protocol.results:
            console.print("No transformer was trained for this protocol; --time-split does.")
    console.print(f"report: {folder / 'report.md'}", soft_wrap=True, highlight=False)


def _metrics(
    config: Config, prepared: Prepared, protocols: Sequence[ProtocolReport], sections: Sequence[Section]
) -> dict[str, Any]:
    return {
        "data_fingerprint": prepared.fingerprint,
        "privacy": config.privacy.model_dump(mode="json") if config.privacy.noise else None,
        "protocols": {protocol.protocol: _protocol_metrics(protocol) for protocol in protocols},
        "sections": {section.key: dict(section.figures) for section in sections},
    }


def _protocol_metrics(protocol: ProtocolReport) -> dict[str, Any]:
    return {
        "users": protocol.users,
        "baselines": {evaluation.ranker: evaluation.metrics for evaluation in protocol.baselines},
        "transformer": {
            "seeds": {
                str(result.seed): {
                    "test": result.test.metrics,
                    "validation": result.validation.metrics,
                    "best_epoch": result.best_epoch,
                    "epsilon": result.epsilon,
                    "epochs": len(result.curve),
                    "seconds": round(result.seconds, 1),
                    "cpu_seconds": round(result.cpu_seconds, 1),
                }
                for result in protocol.results
            },
            "mean": {name: protocol.mean(name) for name in protocol.results[0].test.metrics},
            "sd": {name: protocol.deviation(name) for name in protocol.results[0].test.metrics},
        }
        if protocol.results
        else None,
        "slices": {ranker: [asdict(one) for one in found] for ranker, found in protocol.slices.items()},
        "significance": [
            {"baseline": against.baseline, **asdict(against.difference)} for against in protocol.significance
        ],
    }


def _markdown(
    config: Config, prepared: Prepared, protocols: Sequence[ProtocolReport], sections: Sequence[Section]
) -> Iterator[str]:
    model, training, private = config.model, config.training, config.privacy.noise > 0
    epochs = (
        f"at most {training.epochs} epochs, stopped after {training.patience} without a better validation "
        "NDCG@10"
    )
    kept = "of the epoch with the best validation NDCG@10; the test part has no say in that."
    if private:
        epochs = f"all of {training.epochs} epochs"
        kept = "of the last epoch, here called the best: to choose one by the validation would tell of users."
    unlifted = ""
    if config.behaviour.freshness is not None:
        unlifted = " New items are lifted in service (`behaviour.freshness`), which these figures leave out."
    yield f"# {config.data.name}: evaluation"
    yield ""
    yield (
        f"{len(prepared.items):,} items. Transformer of {model.layers} × {model.width} (layers × width), "
        f"{model.heads} heads, {model.history} events of history, dropout {model.dropout}; AdamW, "
        f"learning rate {training.learning_rate}, batches of {training.batch_size} windows, {epochs}."
    )
    yield ""
    yield (
        "Every item of the catalogue is ranked for each user; items that the user had before, and those "
        f"published later, are masked. The weights are those {kept} Model and baselines go through the same "
        f"code.{unlifted}"
    )
    yield ""
    if private:
        yield _spent(config.privacy, protocols)
        yield ""
    yield (
        "Of the items shown: novelty is their mean self-information, in bits; distance is one minus the mean "
        "cosine between the categories of two items of a list; popularity is the mean percentile of their "
        "popularity (0.5 for items drawn by lot); Gini is how unequally the catalogue is shown (0: equally)."
    )
    for protocol in protocols:
        yield ""
        yield f"## {protocol.protocol.capitalize()}"
        yield ""
        yield f"{protocol.meaning} {protocol.users:,} users are judged."
        yield ""
        yield from protocol_tables(protocol)
    for section in sections:
        yield ""
        yield f"## {section.title}"
        yield ""
        yield from section.lines
        if section.plots:
            yield ""
            yield " ".join(f"![{section.title}]({name})" for name in section.plots)
    if any(protocol.results for protocol in protocols):
        yield ""
        yield "## Curves"
        yield ""
        yield "![Training loss](loss.png) ![Validation NDCG@10](validation_ndcg.png)"


def _spent(privacy: PrivacyConfig, protocols: Sequence[ProtocolReport]) -> str:
    spent = [
        f"{protocol.protocol}, seed {result.seed}: epsilon {result.epsilon:.3g}"
        for protocol in protocols
        for result in protocol.results
        if result.epsilon is not None
    ]
    return (
        f"Training is differentially private (DP-SGD, noise {privacy.noise:g}, clip {privacy.clip:g}), for "
        "adding or removing one user with all they did. What the weights of each run have spent, at delta "
        f"{privacy.delta:g}: {'; '.join(spent) or 'nothing yet'}. Runs add up. Figures, curves and baselines "
        "are not covered: see decision 17, docs/decisions/0017-private-training.md."
    )


def _holds(path: Path, text: str) -> bool:
    try:
        return path.read_text(encoding="utf-8") == text
    except (OSError, UnicodeDecodeError):
        return False


def _replace(path: Path, text: str) -> None:
    draft = path.with_name(path.name + ".draft")
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)
