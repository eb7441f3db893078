"""Who calls. Options of the same names (`--browsing 70`) say how many of each there are among a hundred."""

from __future__ import annotations

import math
import random
import time
import uuid

from client.riptide.v1 import recommender_pb2 as pb
from loadtest._caller import Caller

_PAGE = 10
_MOST = 100
"""What the contract allows to ask for."""
_STAY = 7 / 8
"""Of a session's pages, the share that is followed by another: eight pages on average."""
_CLICK = 0.3
"""Of the pages, the share that is clicked on."""
_DIVERSE, _DIVERSITY = 0.1, 0.3
"""The share of the pages that are asked for with diversity, and how much of it."""


class Browsing(Caller):
    """A known user: a page, a look, now and then a click, and the next page, which the click has changed.

    Those who were more active in the data come more often, by a law of Zipf.
    """

    def begin(self) -> None:
        """With somebody."""
        self._user = self.visitors.draw()

    def visit(self, due: float) -> None:
        """One page, and now and then a click on it."""
        user = self._user
        if random.random() > _STAY:
            self.begin()
        diversity = _DIVERSITY if random.random() < _DIVERSE else 0.0
        page = self.page(due, pb.RecommendRequest(user_id=user, limit=_PAGE, diversity=diversity))
        if page is not None and random.random() < _CLICK:
            self.look()
            item = clicked([item.item_id for item in page.items])
            self.record(user, [item], pb.EVENT_TYPE_CLICK)

    def record(self, user: str, items: list[str], kind: pb.EventType) -> None:
        """Events of this moment."""
        now = int(time.time())
        events = [pb.Event(user_id=user, item_id=item, type=kind, time=now) for item in items]
        self.call("RecordEvents", self.stub.RecordEvents, pb.RecordEventsRequest(events=events))


class Heavy(Browsing):
    """One of the most active hundredth: long histories, pages of fifty, five items of each read at once."""

    pause_share = 0.2

    def begin(self) -> None:
        """With one of the most active."""
        self._user = self.visitors.draw_active()

    def visit(self, due: float) -> None:
        """One page, and the events of those that were read, in one call."""
        user = self._user
        if random.random() > _STAY:
            self.begin()
        page = self.page(due, pb.RecommendRequest(user_id=user, limit=5 * _PAGE))
        if page is not None:
            self.look()
            read = random.sample([item.item_id for item in page.items], k=min(5, len(page.items)))
            self.record(user, read, pb.EVENT_TYPE_READ)


class Anonymous(Caller):
    """Somebody of whom nothing is known, each time another one, who looks at one page and goes.

    Nothing is recorded of them: a load test should leave no users behind that never were.
    """

    def visit(self, due: float) -> None:
        """One page of what is popular."""
        self.page(due, pb.RecommendRequest(user_id=f"visitor-{uuid.uuid4().hex}", limit=_PAGE))


class Bulk(Caller):
    """A program, such as one that writes mails: all there is, with reasons, for one user after the other."""

    pause_share = 0.1

    def begin(self) -> None:
        """Somewhere in the list."""
        self._place = random.randrange(len(self.visitors.ids))

    def visit(self, due: float) -> None:
        """The longest page, for the next in the list."""
        self._place = (self._place + 1) % len(self.visitors.ids)
        user = self.visitors.ids[self._place]
        self.page(due, pb.RecommendRequest(user_id=user, limit=_MOST, explain=True))


class Similar(Caller):
    """A page, and from item to item: what is like the best, what is like that, three times."""

    def visit(self, due: float) -> None:
        """One page, and three calls of SimilarItems."""
        page = self.page(due, pb.RecommendRequest(user_id=self.visitors.draw(), limit=_PAGE))
        items = page.items if page is not None else []
        for _ in range(3):
            if not items:
                return
            self.look()
            request = pb.SimilarItemsRequest(item_id=random.choice(items).item_id, limit=_PAGE)
            answer = self.call("SimilarItems", self.stub.SimilarItems, request)
            items = answer.items if answer is not None else []


class Plain(Caller):
    """A page of ten for a known user, and nothing else: what a generator can replay that knows no users."""

    def visit(self, due: float) -> None:
        """One page."""
        self.page(due, pb.RecommendRequest(user_id=self.visitors.draw(), limit=_PAGE))


def clicked(items: list[str]) -> str:
    """One of them, the earlier the likelier: by 1 / log2(1 + rank), as NDCG has it."""
    looked_at = [1 / math.log2(1 + rank) for rank in range(1, len(items) + 1)]
    return random.choices(items, looked_at)[0]
