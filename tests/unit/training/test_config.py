"""The TOML configuration: what is read, and how a fault is told."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from features.schema import EventType
from training.config import load_config
from training.errors import TrainingError
from training.model_config import ModelConfig, Size

CONFIGS = Path(__file__).parents[3] / "training" / "configs"


def write(folder: Path, text: str) -> Path:
    path = folder / "run.toml"
    path.write_text(text, encoding="utf-8")
    return path


def fault(folder: Path, text: str) -> str:
    with pytest.raises(TrainingError) as caught:
        load_config(write(folder, text))
    return str(caught.value)


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.toml")), ids=lambda path: path.stem)
def test_every_configuration_that_is_shipped_is_valid(path: Path) -> None:
    assert load_config(path).data.name


def test_the_large_configuration_is_eight_layers_of_256_over_200_events() -> None:
    model = load_config(CONFIGS / "movielens-large.toml").model
    assert (model.layers, model.width, model.history) == (8, 256, 200)


def test_event_types_are_given_by_name_in_any_case(tmp_path: Path) -> None:
    text = '[data]\nname = "shop"\n[data.events]\ndefault_type = "view"\ntypes = { bought = "Purchase" }\n'
    events = load_config(write(tmp_path, text)).data.events
    assert events.default_type is EventType.VIEW
    assert events.types == {"bought": EventType.PURCHASE}


def test_a_file_is_looked_for_beside_its_configuration(tmp_path: Path) -> None:
    text = '[data]\nname = "a"\nevents.path = "log/events.csv"\nitems.path = "/there/items.csv"\n'
    data = load_config(write(tmp_path, text)).data
    assert data.events.path == tmp_path / "log" / "events.csv"
    assert data.items.path == Path("/there/items.csv")
    assert data.users.path is None


def test_a_day_is_a_toml_date_and_starts_in_utc(tmp_path: Path) -> None:
    events = load_config(
        write(tmp_path, '[data]\nname = "a"\n[data.events]\nearliest = 2000-01-01\n')
    ).data.events
    assert events.earliest == date(2000, 1, 1)
    assert events.earliest_time() == 946_684_800


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[data]\nname = "a"\nminimum = 3\n', ["data.minimum", "not a known key"]),
        ("[model]\nlayers = 2\n", ["data", "missing"]),
        ('[data]\nname = "a"\nsource = "movielens-100k"\nitems.path = "i.csv"\n', ["items.path", '"files"']),
        # The contract lets a caller ask for 100 items and exclude 500.
        ('[data]\nname = "a"\n[model]\npage_size = 99\n', ["model.page_size", "100"]),
        ('[data]\nname = "a"\n[model]\nexclude_width = 512\n', ["model.exclude_width", "not a known key"]),
        ('[data]\nname = "../a"\n', ["data.name", "'../a'"]),
        ('[data]\nname = "a"\n[model]\nwidth = 65\n', ["model", "multiple of heads"]),
        (
            '[data]\nname = "a"\nmin_events_per_user = 0\n',
            ["data.min_events_per_user", "greater than or equal to 1"],
        ),
        ('[data]\nname = "a"\n[data.events.types]\nx = "BUY"\n', ["data.events.types", "'BUY'", "PURCHASE"]),
        ('[data]\nname = "a"\n[data.events]\nexposures = ["seen"]\n', ["data.events", "columns.type"]),
        (
            '[data]\nname = "a"\n[data.events]\n'
            'columns.type = "t"\ntypes.seen = "VIEW"\nexposures = ["seen"]\n',
            ["data.events", "'seen'", "both in exposures and in types"],
        ),
        ('[data]\nname = "a"\n[data.events]\nencoding = "klingon"\n', ["data.events.encoding", "klingon"]),
        ('[data]\nname = "a"\n[data.events]\ndelimiter = "::"\n', ["data.events.delimiter", "1 character"]),
        (
            '[data]\nname = "a"\n[data.events]\ndefault_weight = nan\n',
            ["data.events.default_weight", "finite"],
        ),
        ('[data]\nname = "a"\n[data.users.columns.attributes]\nUser_ID = "x"\n', ["attributes", "user_id"]),
        ('[data]\nname = "a"\n[model]\npage_size = 500\n', ["ranker", "model.page_size, 500, not 100"]),
        (
            '[data]\nname = "a"\n[behaviour]\nconsumes = ["BUY"]\n',
            ["behaviour.consumes", "'BUY'"],
        ),
        (
            '[data]\nname = "a"\n[behaviour]\nconsumes = ["LIKE", "VIEW"]\nevent_weights.VIEW = 0\n',
            ["behaviour", "VIEW", "weight of 0", "consumes"],
        ),
        ("[data\n", ["not valid TOML", "line 1"]),
    ],
)
def test_a_fault_is_told_with_the_file_and_the_key(tmp_path: Path, text: str, words: list[str]) -> None:
    message = fault(tmp_path, text)
    assert "\n" not in message
    for word in ["run.toml", *words]:
        assert word in message


@pytest.mark.parametrize(
    ("behaviour", "ignored", "consuming"),
    [
        ("", (), None),
        ("consumes = []", (), ()),
        ("event_weights.VIEW = 0\nconsumes = ['PURCHASE']", ("VIEW",), ("PURCHASE",)),
        (
            "event_weights = { VIEW = 0, PLAY = 0.0, READ = 2 }",
            ("VIEW", "PLAY"),
            ("CLICK", "READ", "LIKE", "SAVE", "SHARE", "RATE", "ADD_TO_CART", "PURCHASE"),
        ),
    ],
)
def test_what_counts_consumes_if_nothing_is_said(
    tmp_path: Path, behaviour: str, ignored: tuple[str, ...], consuming: tuple[str, ...] | None
) -> None:
    read = load_config(write(tmp_path, f'[data]\nname = "a"\n[behaviour]\n{behaviour}\n')).behaviour
    assert (read.ignored, read.consuming) == (ignored, consuming)


def test_several_faults_are_one_sentence_that_says_how_many(tmp_path: Path) -> None:
    assert "and 2 more" in fault(tmp_path, '[data]\nname = "a"\nx = 1\ny = 1\nz = 1\n')


def test_a_missing_file_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"absent\.toml cannot be read: No such file"):
        load_config(tmp_path / "absent.toml")


@pytest.mark.parametrize(("size", "slowly"), [("small", False), ("base", False), ("large", True)])
def test_the_large_size_alone_encodes_too_slowly_for_requests(size: Size, slowly: bool) -> None:
    assert ModelConfig(size=size).encodes_slowly is slowly
