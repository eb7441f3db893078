"""A user on the exclusion list is nowhere in what a model is trained on."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from features.schema import feature_key
from tests.unit.training.preparing import NOON, config, log, run
from training.baselines import count
from training.config import Config
from training.dataset import open_prepared
from training.facts import gather_facts
from training.splits import LeaveOneOut
from training.user_features import MIN_USERS
from training.windows import newest_windows, training_windows

STAY = [f"u{i}" for i in range(MIN_USERS)]
GONE = [f"gone{i}" for i in range(MIN_USERS)]  # as many as let an attribute be learned of
# Nobody else has these.
SECRET_ITEM, SECRET_COUNTRY, SECRET_TIME = "i5", "atlantis", NOON + 777


def prepared(folder: Path, excluded):
    events = log(
        *(f"{user},i{i % 5},{NOON + 10 * i}" for user in STAY for i in range(6)),
        *(f"{user},{SECRET_ITEM},{SECRET_TIME}" for user in GONE),
        *(f"{user},i{i},{NOON + 1000 + i}" for user in GONE for i in range(4)),
    )
    items = "item_id,title\n" + "".join(f"i{i},Item {i}\n" for i in range(6))
    users = "user_id,country\n" + "".join(f"{user},somewhere\n" for user in STAY)
    users += "".join(f"{user},{SECRET_COUNTRY}\n" for user in GONE)
    done = run(folder, events, config(), items=items, users=users, excluded=excluded)
    return open_prepared(done.folder)


def seen(data):
    """Everything that training reads, as text, and the windows by themselves."""
    settings = Config.model_validate(
        {"data": {"name": "log"}, "model": {"text": "none", "user_attributes": True}}
    )
    counts = count((LeaveOneOut().training_part(h) for h in data.histories()), len(data.items))
    facts = gather_facts(settings, data, counts, data.folder / "cache")
    given = (data, LeaveOneOut(), facts.vocabulary)
    batches = list(training_windows(*given, history=4, batch_size=8, seed=1).as_numpy_iterator())
    windows = {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}
    return counts, facts, windows, newest_windows(*given, history=4, seed=1)


def test_an_excluded_user_is_in_no_window_vocabulary_or_count(tmp_path: Path):
    data = prepared(tmp_path, frozenset(GONE))
    index = [item.item_id for item in data.items].index(SECRET_ITEM) + 1
    counts, facts, windows, newest = seen(data)
    for some in (windows, newest):
        assert index not in some["items"]
        assert SECRET_TIME not in some["times"]
    assert len(newest["items"]) == counts.users == len(STAY)
    assert counts.item_users[index - 1] == counts.first_times[index - 1] == 0
    assert not facts.items.had[index]
    assert facts.item_times[index] == 0
    assert facts.vocabulary.index(np.array([feature_key("country", SECRET_COUNTRY)])).tolist() == [0]
    assert facts.vocabulary.size == 2
    assert SECRET_COUNTRY not in (data.folder / "users.parquet").read_bytes().decode("latin-1")
    assert [history.user_id for history in data.histories()] == STAY


def test_the_same_user_is_in_all_of_it_before(tmp_path: Path):
    """Else the test above could not fail."""
    data = prepared(tmp_path, frozenset())
    index = [item.item_id for item in data.items].index(SECRET_ITEM) + 1
    counts, facts, windows, newest = seen(data)
    for some in (windows, newest):
        assert index in some["items"]
        assert SECRET_TIME in some["times"]
    assert len(newest["items"]) == counts.users == len(STAY) + len(GONE)
    assert counts.item_users[index - 1] == len(GONE)
    assert facts.items.had[index]
    assert facts.vocabulary.size == 3
    assert SECRET_COUNTRY in (data.folder / "users.parquet").read_bytes().decode("latin-1")
