"""How far a cached user vector may lag behind its user, and whether one does.

A version is served under one of two policies. `strict`: a vector is used only if it is what the encoder would
answer now, else the row is encoded with the request. `bounded`, for encoders that would hold up every call:
a vector is used as long as it has been outdated for at most so many seconds, and is refreshed meanwhile.
Either way an event counts at once for what it excludes, and for what the ranking network reads of the
history.
"""

from __future__ import annotations

from typing import NamedTuple

from features.record import CachedAnswer, UserRecord
from gateway.versions import ServingVersion

_NS = 1_000_000_000


class Cached(NamedTuple):
    """What there is of a user for one version."""

    answer: CachedAnswer | None
    """Whose vector is of this version, however old; None: there is none."""
    lag_s: float = 0.0
    """Seconds since when that vector is not what the encoder would answer; 0: it is."""
    whole: bool = True
    """Whether it covers the whole record: if it lags, then since the last event has grown older alone."""

    def due(self, max_lag_s: float) -> bool:
        """Whether the vector is to be refreshed, of a version that lets vectors lag by `max_lag_s`.

        At once after a change of the record. Ages double after a second, and after two, and four: a vector
        that is outdated by nothing else waits for half of the time that it may lag, or each event would cost
        half a dozen encodings within a minute.
        """
        return self.lag_s > (max_lag_s / 2 if self.whole else 0.0)

    def within(self, max_lag_s: float) -> CachedAnswer | None:
        """The answer if its vector may be used."""
        return self.answer if self.lag_s <= max_lag_s else None


NOTHING = Cached(None)


def cached(record: UserRecord, version: ServingVersion, now_ns: int) -> Cached:
    """The vector that is kept of a user for `version`, and its lag at `now_ns` (Unix nanoseconds).

    It is outdated from the first change that it does not cover, and from when the last event that the version
    is told of has become so much older that the model reads its age as another one.
    """
    answer = record.answer
    if answer is None or answer.version != version.version:
        return NOTHING
    since_ns, whole = now_ns, answer.revision == record.revision
    if not whole:
        # At least a moment ago, whatever the clock of who wrote it says: another machine's may be ahead.
        since_ns = min(since_ns - 1, answer.behind_since or answer.computed_at * _NS)
    elif len(times := record.counting(version.counts).times):
        since_ns = min(since_ns, _next_age(int(times[-1]), answer.computed_at) * _NS)
    return Cached(answer, (now_ns - since_ns) / _NS, whole)


def _next_age(newest: int, computed_at: int) -> int:
    """When (Unix seconds) an event at `newest` has another age for the model than it had at `computed_at`.

    The model reads ages in doublings of seconds (`training.model.time_bucket`). Older events change theirs at
    other moments, which matters less: their doublings are longer, and each is one of many.
    """
    doublings = (max(0, computed_at - newest) + 1).bit_length()
    return newest + (1 << doublings) - 1
