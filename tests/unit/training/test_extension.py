"""Items that join an export without training: a shop of axes and bows, whose users want one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from features.catalog import Catalog
from features.schema import item_key
from training.__main__ import main

CONFIG = """
[data]
name = "shop"
min_events_per_user = 3
[data.events]
path = "events.csv"
[data.items]
path = "items.csv"
columns = { item_id = "sku", title = "name", categories = "kind", published = "listed" }
[model]
layers = 1
width = 16
heads = 2
history = 8
dropout = 0.1
text = "none"
[ranker]
train = false
[training]
epochs = 20
batch_size = 16
learning_rate = 0.01
warmup_steps = 5
"""
HEADER = "sku,name,kind,listed,embedding:image"
KINDS = ("axe", "bow")
EACH = 30
NEW = ("axe-new,New axe,axe,,1 0.1 0", "bow-new,New bow,bow|sale,1690000000,0 0.1 1")


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shop, trained and exported. Axe-29 was never bought by anybody."""
    folder = tmp_path_factory.mktemp("shop")
    rng = np.random.default_rng(3)
    events = ["user_id,item_id,time"]
    for user in range(80):
        kind = KINDS[user % 2]
        bought = rng.permutation(EACH - 1)[:10]
        events += [f"{kind}-fan-{user},{kind}-{i},{1_700_000_000 + 60 * n}" for n, i in enumerate(bought)]
    rows = [
        f"{kind}-{i},{kind.title()} {i},{kind},1650000000,{'1 0.1 0' if kind == 'axe' else '0 0.1 1'}"
        for kind in KINDS
        for i in range(EACH)
    ]
    write(folder / "events.csv", *events)
    write(folder / "items.csv", HEADER, *rows)
    (folder / "shop.toml").write_text(CONFIG)
    assert command(folder, "run") == 0
    return folder


@pytest.fixture
def copy(shop: Path, tmp_path: Path) -> Path:
    """The trained shop, to change."""
    shutil.copytree(shop, tmp_path / "shop")
    return tmp_path / "shop"


@pytest.fixture(scope="module")
def extended(shop: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shop with a new item of each kind."""
    folder = tmp_path_factory.mktemp("extended") / "shop"
    shutil.copytree(shop, folder)
    assert extend(folder, *NEW) == 0
    return folder


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def command(folder: Path, name: str, *more: str) -> int:
    return main([name, "--config", f"{folder}/shop.toml", "--state-dir", f"{folder}/var", *more])


def extend(folder: Path, *rows: str, header: str = HEADER, more: tuple[str, ...] = ()) -> int:
    return command(folder, "extend", "--items", str(write(folder / "new.csv", header, *rows)), *more)


def export(folder: Path) -> Path:
    return folder / "var/exports/shop"


def described(folder: Path) -> dict:
    return json.loads((export(folder) / "training.json").read_text())


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


class Shown:
    """An export, asked by item ids."""

    def __init__(self, folder: Path) -> None:
        self.catalog = Catalog(export(folder) / "catalog.lmdb")
        self.model = tf.saved_model.load(str(export(folder) / "model.savedmodel"))
        with np.load(export(folder) / "golden.npz") as golden:
            self._golden = {name: golden[name] for name in golden.files}

    def page(self, history: list[str], time: int = 1_700_001_000, **asked) -> dict[str, float]:
        """Ids and scores, best first; what is in the history is left out."""
        inputs = {n[3:]: a[:1].copy() for n, a in self._golden.items() if n.startswith("in:")}
        keys = np.array([item_key(item) for item in history], np.int64)
        length, categories = inputs["history_keys"].shape[1], self.catalog.categories
        for name, values in (
            ("history_keys", keys),
            ("history_times", time - 60 * np.arange(len(keys))[::-1] - 60),
            ("history_types", np.full(len(keys), 8)),
        ):
            inputs[name] = np.zeros((1, length), inputs[name].dtype)
            inputs[name][0, length - len(keys) :] = values
        inputs["request_time"][:] = time
        inputs["user_vector_fresh"][:] = 0
        inputs["exclude_keys"] = keys[None]
        wanted = asked.get("category")
        allowed = [wanted is None or c == wanted for c in categories] + [wanted is None]
        inputs["allowed_categories"] = np.array([allowed])
        answer = self.model.signatures["recommend"](**{n: tf.constant(a) for n, a in inputs.items()})
        page = zip(answer["item_keys"].numpy()[0].tolist(), answer["scores"].numpy()[0].tolist(), strict=True)
        return {self.catalog.get(key).item_id: score for key, score in page if key}

    def neighbours(self, item: str) -> list[str]:
        keys, _ = self.catalog.neighbours(item_key(item))
        return [self.catalog.get(key).item_id for key in keys.tolist()]

    def table(self, name: str) -> np.ndarray:
        """A table of the SavedModel with a row for each item, padding first."""
        return getattr(self.model, name).numpy()


HISTORY = ["axe-3", "axe-5", "axe-8"]


def test_a_new_item_is_recommended_to_those_who_want_its_like(extended: Path) -> None:
    page = list(Shown(extended).page(HISTORY))
    assert page.index("axe-new") < EACH
    assert page.index("bow-new") > EACH - len(HISTORY)
    assert set(Shown(extended).neighbours("axe-new")[:10]) <= {f"axe-{i}" for i in range(EACH)}
    assert set(Shown(extended).neighbours("bow-new")[:10]) <= {f"bow-{i}" for i in range(EACH)}


def test_a_category_that_came_with_a_new_item_can_be_asked_for(extended: Path) -> None:
    shown = Shown(extended)
    assert shown.catalog.categories == ("axe", "bow", "sale")
    assert described(extended)["widths"]["C"] == 4
    assert list(shown.page(HISTORY, category="sale")) == ["bow-new"]
    assert "bow-new" in shown.page(HISTORY, category="bow")


def test_nobody_took_a_new_item_and_it_is_there_since_it_was_published_or_added(extended: Path) -> None:
    shown = Shown(extended)
    assert shown.catalog.popular.tolist()[-2:] == [item_key("axe-new"), item_key("bow-new")]
    added, published = shown.table("_item_times")[-2:].tolist()
    assert published == 1_690_000_000
    assert added > 1_750_000_000
    popularity = shown.table("_popularity")[1:]  # theirs is that of a usual item: nobody was asked
    assert popularity[-2:] == pytest.approx([popularity[:-2].mean()] * 2)


def test_a_new_item_is_not_recommended_before_it_is_published(copy: Path) -> None:
    assert extend(copy, "axe-new,New axe,axe,1800000000,1 0.1 0") == 0
    shown = Shown(copy)
    assert "axe-new" not in shown.page(HISTORY, time=1_799_999_999)
    assert "axe-new" in shown.page(HISTORY, time=1_800_000_000)


def test_the_other_items_are_what_they_were(shop: Path, extended: Path) -> None:
    before, after = Shown(shop), Shown(extended)
    for name in ("_keys", "_vectors", "_levels", "_item_times", "_popularity"):
        known = before.table(name)
        assert np.array_equal(after.table(name)[: len(known)], known), name
    earlier, now = before.page(HISTORY), after.page(HISTORY)
    assert len(now) == len(earlier) + 2
    assert [item for item in now if item in earlier] == list(earlier)
    assert [now[item] for item in earlier] == pytest.approx(list(earlier.values()), abs=1e-6)


def test_the_golden_requests_are_of_the_extended_model(extended: Path) -> None:
    assert described(extended)["parity"] < 1e-4
    assert described(extended)["items"] == 2 * EACH + 2
    with np.load(export(extended) / "golden.npz") as golden:
        assert golden["in:allowed_categories"].shape[1] == 4
        assert item_key("axe-new") in golden["out:item_keys"]


def test_a_second_extension_keeps_what_the_first_one_added(extended: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(extended, tmp_path / "shop"))
    assert extend(folder, "axe-newer,Newer axe,axe,,1 0.1 0") == 0
    before, after = Shown(extended), Shown(folder)
    keys = [item_key("axe-new"), item_key("bow-new"), item_key("axe-newer")]
    assert after.table("_keys")[-3:].tolist() == keys
    for name in ("_vectors", "_levels", "_item_times"):
        assert after.table(name)[:-1] == pytest.approx(before.table(name), abs=1e-6), name
    assert described(folder)["parity"] < 1e-4


def test_what_the_catalogue_has_already_is_counted_and_left_alone(
    extended: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(shutil.copytree(extended, tmp_path / "shop"))
    files = contents(export(folder))
    capsys.readouterr()
    assert extend(folder, *NEW, "axe-1,Axe 1,axe,,") == 0
    said = capsys.readouterr().out
    assert "0 items added, 0 changed, 3 known as they are" in said
    assert "(reused)" in said
    assert contents(export(folder)) == files


def test_a_changed_item_is_shown_and_filtered_as_the_file_says_and_keeps_what_was_learned_of_it(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = Shown(copy)
    assert extend(copy, "axe-1,Sharper axe,axe|sale,,0 0.1 1", "axe-2,Axe 2,axe,1660000000,1 0.1 0") == 0
    assert "0 items added, 2 changed (what is shown of them; those with a history keep their vectors)" in (
        capsys.readouterr().out
    )
    after = Shown(copy)
    item = after.catalog.get(item_key("axe-1"))
    assert (item.title, item.categories) == ("Sharper axe", ("axe", "sale"))
    assert list(after.page(HISTORY, category="sale")) == ["axe-1"]
    assert np.array_equal(after.table("_vectors"), before.table("_vectors"))
    changed = np.flatnonzero(after.table("_item_times") != before.table("_item_times"))
    assert after.table("_keys")[changed].tolist() == [item_key("axe-2")]
    assert after.table("_item_times")[changed].tolist() == [1_660_000_000]


def test_a_changed_item_without_a_history_gets_the_vector_of_what_it_is_now(copy: Path) -> None:
    assert extend(copy, "axe-29,Bow after all,bow,,0 0.1 1", "axe-new,New axe,axe,,1 0.1 0") == 0
    assert set(Shown(copy).neighbours("axe-29")[:10]) <= {f"bow-{i}" for i in range(EACH)}
    assert extend(copy, "axe-new,It is a bow,bow,,0 0.1 1") == 0
    assert set(Shown(copy).neighbours("axe-new")[:10]) <= {"axe-29", *(f"bow-{i}" for i in range(EACH))}


def test_rows_that_cannot_be_used_are_dropped_by_the_rules_of_the_items_file(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert extend(copy, NEW[0], ",No id,axe,,", NEW[0]) == 0
    said = capsys.readouterr().out
    assert "1 items added" in said
    assert "1 × item id is missing" in said
    assert "1 × duplicate item" in said
    quarantine = (copy / "var/new-items/shop/quarantine.csv").read_text()
    assert ",3,item id is missing," in quarantine
    assert ",4,duplicate item," in quarantine


def test_vectors_that_the_model_does_not_know_or_that_the_file_lacks_are_said(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert extend(copy, "axe-new,New,axe,,1 2", header="sku,name,kind,listed,embedding:audio") == 0
    said = capsys.readouterr().out
    assert "embedding:audio says nothing to this model" in said
    assert "embedding:image, with which the model was trained, is no column" in said
    assert described(copy)["items"] == 2 * EACH + 1


def test_run_and_export_keep_what_was_added_to_the_export_of_the_same_run(
    extended: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(shutil.copytree(extended, tmp_path / "shop"))
    files = contents(export(folder))
    for name in ("run", "export"):
        capsys.readouterr()
        assert command(folder, name) == 0
        assert "(reused)" in capsys.readouterr().out
        assert contents(export(folder)) == files
    # Another setting of the served graph makes the export anew, of the same run.
    (folder / "shop.toml").write_text(CONFIG.replace("history = 8", "history = 8\npage_size = 150"))
    assert command(folder, "export") == 0
    assert described(folder)["model"]["page_size"] == 150
    assert described(folder)["items"] == 2 * EACH + 2


def test_a_later_training_says_how_many_added_items_are_gone_and_what_to_do(
    extended: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(shutil.copytree(extended, tmp_path / "shop"))
    with (folder / "items.csv").open("a") as items:
        items.write(NEW[1] + "\n")
    capsys.readouterr()
    assert command(folder, "run") == 0
    assert "1 item that had been added to the export before, without training, is not in this one: " in (
        said := capsys.readouterr().out
    )
    assert "put them into the items file" in said
    assert described(folder)["items"] == 2 * EACH + 1
    assert not (export(folder) / "added.parquet").exists()
    assert command(folder, "run") == 0
    assert "had been added" not in capsys.readouterr().out


def prepare_anew(folder: Path) -> None:
    with (folder / "events.csv").open("a") as events:
        events.write("axe-fan-0,axe-28,1700009000\naxe-fan-0,axe-27,1700009060\n")
    assert command(folder, "prepare") == 0


def configure(folder: Path) -> None:
    (folder / "shop.toml").write_text(CONFIG.replace("epochs = 20", "epochs = 21"))


def forget_run(folder: Path) -> None:
    shutil.rmtree(folder / "var/runs")


def forget_mapping(folder: Path) -> None:
    """As a run whose catalogue had too little to learn from leaves it."""
    path = folder / "var/runs/shop/seed-1/items.npz"
    with np.load(path) as saved:
        np.savez(path, vectors=saved["vectors"], levels=saved["levels"])


def nothing(folder: Path) -> None:
    pass


@pytest.mark.parametrize(
    ("rows", "change", "more", "says"),
    [
        (None, nothing, (), "new.csv cannot be read: No such file or directory"),
        ((",No id,axe,,",), nothing, (), "none of its 1 rows can be used: 1 × item id is missing"),
        (("a,A,axe,,1 2",), nothing, (), "'embedding:image' holds vectors of 2 numbers, and the model"),
        (NEW, nothing, ("--seed", "2"), "is of seed 1, not of seed 2"),
        (NEW, prepare_anew, (), "has been prepared anew since"),
        (NEW, configure, (), "not of a finished run of this configuration"),
        (NEW, forget_run, (), "run `make train` first"),
        (NEW, forget_mapping, (), "new items could not be given vectors"),
    ],
)  # fmt: skip
def test_a_refusal_is_one_sentence_and_leaves_the_export_as_it_was(
    copy: Path, capsys: pytest.CaptureFixture[str], rows, change, more, says
) -> None:
    change(copy)
    files = contents(export(copy))
    capsys.readouterr()
    if rows is None:
        assert command(copy, "extend", "--items", str(copy / "new.csv"), *more) == 2
    else:
        assert extend(copy, *rows, more=more) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1
    assert contents(export(copy)) == files


def test_two_ids_with_one_key_are_refused(
    copy: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = item_key
    monkeypatch.setattr(
        "features.catalog.item_key", lambda item: real("axe-1" if item == "axe-new" else item)
    )
    files = contents(export(copy))
    capsys.readouterr()
    assert extend(copy, *NEW) == 2
    assert "'axe-1' and 'axe-new': two item ids with one key" in capsys.readouterr().err
    assert contents(export(copy)) == files


def test_without_an_export_there_is_nothing_to_extend(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "shop.toml").write_text(CONFIG)
    assert extend(tmp_path, *NEW) == 2
    error = capsys.readouterr().err
    assert "there is no export to extend; run `make train` first" in error
    assert error.count("\n") == 1
