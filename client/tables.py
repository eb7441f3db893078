"""The answers of the gateway as people read them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from client.riptide.v1 import recommender_pb2 as pb


def page_table(items: Sequence[pb.RecommendedItem]) -> Table:
    """Rank, score, item and, where one was asked for, the reason; one row for each item."""
    explained = any(item.HasField("reason") for item in items)
    table = Table(
        "rank", "score", "item", "title", "categories", *(["because of"] if explained else []), box=None
    )
    for item in items:
        # Text: a title with [brackets] is not markup.
        row: list[str | Text] = [str(item.rank), f"{item.score:.3f}", Text(item.item_id), Text(item.title)]
        row.append(Text(", ".join(item.categories)))
        if explained:
            row.append(Text(item.reason.title or item.reason.item_id))
        table.add_row(*row)
    return table


def origin_line(answer: pb.RecommendResponse | pb.SimilarItemsResponse) -> Text:
    """Which version answered and for which cohort, and why the page is not the model's full answer."""
    line = Text(f"{answer.model.name} version {answer.model.version}")
    if isinstance(answer, pb.SimilarItemsResponse):
        return line.append(f", request {answer.request_id}")
    if answer.cohort:  # an older gateway names none
        line.append(f" ({answer.cohort})")
    line.append(f", request {answer.request_id}")
    if answer.degraded:
        line.append(f", degraded: {degraded_name(answer.degraded)}", style="yellow")
    return line


def degraded_name(reason: pb.DegradedReason) -> str:
    """`COLD_START` for DEGRADED_REASON_COLD_START; a reason of a newer gateway as its number."""
    try:
        return pb.DegradedReason.Name(reason).removeprefix("DEGRADED_REASON_")
    except ValueError:
        return str(reason)


def event_name(kind: pb.EventType) -> str:
    """`click` for EVENT_TYPE_CLICK; a type of a newer gateway as its number."""
    try:
        return pb.EventType.Name(kind).removeprefix("EVENT_TYPE_").lower()
    except ValueError:
        return str(kind)


def stages_line(stages: pb.StageTimes) -> Text:
    """Milliseconds of each stage."""
    parts = [f"{field.name} {getattr(stages, field.name):.2f}" for field in pb.StageTimes.DESCRIPTOR.fields]
    return Text(f"milliseconds: {', '.join(parts)}")


def history_table(events: Sequence[pb.DescribedEvent]) -> Table:
    """Events in the order given."""
    table = Table("time", "type", "weight", "item", "title", box=None)
    for event in events:
        table.add_row(
            when(event.time),
            event_name(event.type),
            f"{event.weight:g}",
            Text(event.item_id),
            Text(event.title),
        )
    return table


def when(time: int) -> str:
    """Unix seconds as a date and a time of day, UTC."""
    return datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%d %H:%M:%S")


def for_people(answer: object) -> RenderableType:
    """What the command line prints for an answer."""
    match answer:
        case pb.RecommendResponse():
            return Group(page_table(answer.items), origin_line(answer), stages_line(answer.stages_ms))
        case pb.SimilarItemsResponse():
            return Group(page_table(answer.items), origin_line(answer))
        case pb.RecordEventsResponse():
            return Text(f"{answer.recorded} recorded, {answer.duplicates} stored already")
        case pb.ForgetUserResponse():
            return Text("forgotten" if answer.existed else "nothing was stored")
        case pb.DescribeUserResponse():
            facts = [f"user {answer.user_id}: {len(answer.events)} events"]
            facts += [f"{name}: {value}" for name, value in sorted(answer.attributes.items())]
            if answer.user_vector:
                facts.append(f"vector of {len(answer.user_vector)}, version {answer.user_vector_version}")
            if answer.last_page_item_ids:
                facts.append(f"last page: {', '.join(answer.last_page_item_ids)}")
            facts += [f"experiment {one.arm}, first met {when(one.time)}" for one in answer.exposures]
            if answer.excluded_from_training:
                facts.append("left out of training")
            return Group(history_table(answer.events), *(Text(fact) for fact in facts))
    raise TypeError(f"no table for {type(answer).__name__}")
