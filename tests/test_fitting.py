"""Training: what is kept of it, what is frozen, and what becomes of one that was done before, fails or is cut off."""

import copy
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections import namedtuple
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from fakes import random_texts
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.evaluation import BaseEvaluator

from helpers.collection.collection import Collection
from helpers.evaluation.choosing import DevRetrieval
from helpers.models.load import load_trained, model_key
from helpers.store.files import WorkbookError, fingerprint
from helpers.training.fitting import Recipe, fit, mixed, prepared
from helpers.training.losses import loss_for

# A query is the first words of its passage and its number: 60 to train on, 30 for dev.
TEXTS = [f"{text} {i}" for i, text in enumerate(random_texts(90, words=90, length=8))]
QUERIES = [" ".join(text.split()[:3] + text.split()[-1:]) for text in TEXTS]
ROWS = Dataset.from_dict({"anchor": QUERIES[:60], "positive": TEXTS[:60]})
TOY = Collection("toy", {f"d{i}": text for i, text in enumerate(TEXTS)})
DEV = DevRetrieval(
    {f"q{i}": QUERIES[i] for i in range(60, 90)}, {f"q{i}": {f"d{i}": 1} for i in range(60, 90)}, TOY.corpus
)

# 16 steps, dev asked after 4, 8, 12 and 16; QUICK: 2 steps, asked after the second.
RECIPE = Recipe(
    epochs=0,
    fewest_steps=16,
    batch_size=8,
    learning_rate=2e-3,
    frozen_embeddings=False,
    dimensions=(),
    evaluations=4,
    patience=2,
)
QUICK = replace(RECIPE, fewest_steps=2, evaluations=1)
RISING = {-1: 0.1, 2: 0.2, 4: 0.2, 8: 0.3, 12: 0.4, 16: 0.5}
START = -1


class Told(BaseEvaluator):
    """Dev answers what it is told to answer after each step.

    ``asked`` holds the steps it was asked after, ``seen`` the weights that it was asked about;
    ``before(model, step)`` comes first.
    """

    def __init__(self, answers=RISING, before=lambda model, step: None):
        super().__init__()
        self.primary_metric, self.key = "dev_ndcg@10", "told"
        self.answers, self.before = answers, before
        self.asked: list[int] = []
        self.seen: dict[int, dict[str, torch.Tensor]] = {}

    def __call__(self, model, output_path=None, epoch=-1, steps=START):
        self.before(model, steps)
        self.asked.append(steps)
        self.seen[steps] = weights(model)
        return {self.primary_metric: self.answers[steps]}


def weights(model) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def changed(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> list[str]:
    assert one.keys() == other.keys()
    return [name for name in one if not torch.equal(one[name], other[name])]


def one_sentence(error) -> bool:
    """It ends with its only full stop that a blank or nothing follows."""
    return re.findall(r"[.!?](?=\s|$)|\n", str(error.value)) == ["."] and str(error.value).endswith(".")


@pytest.fixture(scope="module")
def folder(tiny_folder) -> Path:
    return tiny_folder


@pytest.fixture(scope="module")
def loaded(tiny) -> SentenceTransformer:
    return tiny


@pytest.fixture
def encoder(loaded) -> SentenceTransformer:
    """Untrained, and the test's own."""
    return copy.deepcopy(loaded)


@pytest.fixture
def again(loaded):
    """Another of the same, each time it is called."""
    return lambda: copy.deepcopy(loaded)


@pytest.fixture(scope="module")
def toy(loaded, tmp_path_factory):
    """A training that helps: 34 steps, dev asked after 8, 16, 24, 32 and 34."""
    recipe = replace(RECIPE, epochs=4.5, patience=9)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORKBOOK_BUILD", str(tmp_path_factory.mktemp("toy")))
        return fit(TOY, "encoder", copy.deepcopy(loaded), ROWS, DEV, recipe), recipe


# What is kept


def test_training_improves_dev_on_a_toy_task(toy, loaded):
    trained, _ = toy
    dev = trained.record["dev"]
    assert dev["start"] == DEV(loaded)["dev_ndcg@10"]
    assert dev["best"] > dev["start"] + 0.02
    assert dev["best"] == max(point["dev"] for point in dev["curve"])
    assert DEV(trained.model)["dev_ndcg@10"] == dev["best"]
    assert not trained.loaded


def test_run_json_says_all_that_went_into_the_training_and_came_of_it(toy):
    trained, recipe = toy
    record = json.loads((trained.folder / "run.json").read_text())
    assert record == json.loads(json.dumps(trained.record))
    assert (record["name"], record["collection"], record["rows"]) == ("encoder", "toy", 60)
    assert record["data"] == fingerprint(ROWS.to_dict())
    assert record["columns"] == ["anchor", "positive"]
    assert record["recipe"] == json.loads(json.dumps(asdict(recipe)))
    assert [point["step"] for point in record["dev"]["curve"]] == [8, 16, 24, 32, 34]
    assert record["step"] == max(record["dev"]["curve"], key=lambda point: point["dev"])["step"]
    assert record["seconds"] > 0
    assert record["peak_mib"] > 50  # Python with torch alone takes more
    assert record["versions"] == {p: version(p) for p in ("torch", "transformers", "sentence-transformers", "datasets")}
    assert re.fullmatch(r"[0-9a-f]{16}", record["key"])


def test_folder_holds_card_and_weights_and_nothing_else_is_left(toy):
    trained, _ = toy
    assert [path.name for path in trained.folder.parent.iterdir()] == ["encoder"]
    assert not list(trained.folder.rglob("*.part"))
    assert not list(trained.folder.rglob("checkpoint-*"))
    assert not changed(weights(load_trained(trained.folder, SentenceTransformer)), weights(trained.model))
    card, dev = (trained.folder / "README.md").read_text(), trained.record["dev"]
    assert card.startswith("---\nlibrary_name: sentence-transformers\n")
    for said in ("# encoder", "`tiny`", "60 rows", "`toy`", f"{dev['start']:.3f} before, {dev['best']:.3f} after"):
        assert said in card


@pytest.mark.parametrize(
    ("answers", "best"),
    [((0.3, 0.5, 0.4, 0.2), 8), ((0.3, 0.2, 0.3, 0.3), 4)],
    ids=["falls again", "equal: the first"],
)
def test_step_that_dev_likes_best_is_kept(encoder, answers, best):
    told = Told({START: 0.1, **dict(zip((4, 8, 12, 16), answers, strict=True))})
    trained = fit(TOY, "m", encoder, ROWS, told, replace(RECIPE, patience=9))
    assert [(point["step"], point["dev"]) for point in trained.record["dev"]["curve"]] == list(
        zip((4, 8, 12, 16), answers, strict=True)
    )
    assert (trained.record["step"], trained.record["dev"]["best"]) == (best, max(answers))
    assert not changed(weights(trained.model), told.seen[best])
    assert all(changed(told.seen[best], seen) for step, seen in told.seen.items() if step != best)


def test_training_at_learning_rate_0_gives_the_base_model_back(encoder, again):
    trained = fit(TOY, "m", encoder, ROWS, DEV, replace(QUICK, learning_rate=0.0))
    assert (trained.record["step"], trained.record["weight"]) == (0, 0.0)
    assert not changed(weights(trained.model), weights(again()))
    assert model_key(trained.model) == model_key(again())


def test_training_that_only_makes_dev_worse_gives_the_base_model_back(encoder, again):
    told = Told({START: 0.5, 2: 0.4})
    trained = fit(TOY, "m", encoder, ROWS, told, replace(QUICK, weights=(1.0, 0.5)))
    assert told.asked == [START, 2]  # no average is tried
    assert (trained.record["step"], trained.record["weight"]) == (0, 0.0)
    assert (trained.record["dev"]["start"], trained.record["dev"]["best"]) == (0.5, 0.5)
    assert changed(told.seen[2], weights(again()))
    assert not changed(weights(trained.model), weights(again()))
    assert not changed(weights(load_trained(trained.folder, SentenceTransformer)), weights(again()))
    assert "0.500 before, 0.500 after (step 0 of" in (trained.folder / "README.md").read_text()


# Done before, or not


def test_same_inputs_load_what_was_trained(toy, loaded, monkeypatch):
    trained, recipe = toy
    monkeypatch.setenv("WORKBOOK_BUILD", str(trained.folder.parents[2]))
    before = {path: path.stat().st_mtime_ns for path in trained.folder.rglob("*")}
    other = fit(TOY, "encoder", copy.deepcopy(loaded), ROWS, DEV, recipe)
    assert other.loaded
    assert other.folder == trained.folder
    assert other.record == json.loads(json.dumps(trained.record))
    assert model_key(other.model) == model_key(trained.model)
    assert {path: path.stat().st_mtime_ns for path in trained.folder.rglob("*")} == before


def test_what_is_loaded_asks_dev_nothing(encoder, again):
    fit(TOY, "m", encoder, ROWS, Told(), QUICK)
    told = Told()
    assert fit(TOY, "m", again(), ROWS, told, QUICK).loaded
    assert told.asked == []


def test_any_change_of_rows_recipe_weights_or_dev_trains_anew(encoder, again):
    other_weights, other_dev = again(), Told()
    with torch.no_grad():
        other_weights[0].model.encoder.layer[1].output.dense.bias[0] += 1e-3
    other_dev.key = "told something else"
    one_word = Dataset.from_dict({"anchor": QUERIES[:60], "positive": [*TEXTS[:59], f"{TEXTS[59]} more"]})
    first = fit(TOY, "m", encoder, ROWS, Told(), QUICK)
    keys = {first.record["key"]}
    for model, rows, dev, recipe in (
        (again(), one_word, Told(), QUICK),
        (again(), ROWS, Told(), replace(QUICK, weight_decay=0.02)),
        (other_weights, ROWS, Told(), QUICK),
        (again(), ROWS, other_dev, QUICK),
    ):
        trained = fit(TOY, "m", model, rows, dev, recipe)
        assert not trained.loaded
        assert dev.asked == [START, 2]
        keys.add(trained.record["key"])
        assert json.loads((trained.folder / "run.json").read_text())["key"] == trained.record["key"]
    assert len(keys) == 5


def test_what_was_trained_under_another_name_is_not_loaded(encoder, again):
    fit(TOY, "one", encoder, ROWS, Told(), QUICK)
    assert not fit(TOY, "two", again(), ROWS, Told(), QUICK).loaded


def test_folder_whose_run_json_is_damaged_is_trained_anew(encoder, again):
    trained = fit(TOY, "m", encoder, ROWS, Told(), QUICK)
    (trained.folder / "run.json").write_text('{"key": "')
    assert not fit(TOY, "m", again(), ROWS, Told(), QUICK).loaded
    assert fit(TOY, "m", again(), ROWS, Told(), QUICK).loaded


def test_same_seed_gives_the_same_weights_and_another_seed_others(encoder, again):
    one = fit(TOY, "one", encoder, ROWS, Told(), QUICK)
    torch.manual_seed(123)
    torch.rand(5)  # nothing of what happened before counts
    two = fit(TOY, "two", again(), ROWS, Told(), QUICK)
    three = fit(TOY, "three", again(), ROWS, Told(), replace(QUICK, seed=1))
    assert not changed(weights(one.model), weights(two.model))
    assert changed(weights(one.model), weights(three.model))


# What the recipe says


def test_training_stops_when_dev_rises_no_more(encoder):
    told = Told({START: 0.1, 4: 0.5, 8: 0.4, 12: 0.5, 16: 0.9})
    trained = fit(TOY, "m", encoder, ROWS, told, RECIPE)
    assert told.asked == [START, 4, 8, 12]  # 8 and 12 bring no gain: two answers, and 16 never comes
    assert trained.record["step"] == 4


@pytest.mark.parametrize(("fewest", "steps"), [(7, 7), (3, 5)])
def test_few_rows_make_the_fewest_steps_and_many_their_epochs(encoder, fewest, steps):
    told = Told(dict.fromkeys(range(-1, 8), 0.5))
    recipe = replace(RECIPE, epochs=1, batch_size=4, fewest_steps=fewest, evaluations=1)
    fit(TOY, "m", encoder, ROWS.select(range(20)), told, recipe)  # an epoch is 20 / 4 = 5 steps
    assert told.asked == [START, steps]


EMBEDDINGS, FIRST, SECOND = "word_embeddings.weight", "encoder.layer.0.", "encoder.layer.1."


@pytest.mark.parametrize(("layers", "embeddings"), [(0, True), (1, False), (2, True)])
def test_what_is_frozen_does_not_change_and_all_else_does(encoder, again, layers, embeddings):
    recipe = replace(QUICK, frozen_layers=layers, frozen_embeddings=embeddings)
    base, trained = weights(again()), fit(TOY, "m", encoder, ROWS, Told(), recipe)
    moved = changed(base, weights(trained.model))
    assert any(EMBEDDINGS in name for name in moved) is not embeddings
    assert any(FIRST in name for name in moved) is (layers < 1)
    assert any(SECOND in name for name in moved) is (layers < 2)
    assert any("LayerNorm" in name and "embeddings" in name for name in moved)


def state_of(model) -> tuple:
    dropouts = {name: module.p for name, module in model.named_modules() if isinstance(module, torch.nn.Dropout)}
    return dropouts, model.max_seq_length, {name: p.requires_grad for name, p in model.named_parameters()}


def test_dropout_length_and_freezing_last_as_long_as_the_training(encoder):
    before, during = state_of(encoder), []
    assert set(before[0].values()) == {0.1}
    assert before[1] == 64
    told = Told(before=lambda model, step: during.append(state_of(model)))
    fit(
        TOY,
        "m",
        encoder,
        ROWS,
        told,
        replace(QUICK, dropout=0.3, max_tokens=32, frozen_layers=1, frozen_embeddings=True),
    )
    assert state_of(encoder) == before
    dropouts, length, trainable = during[1]
    assert set(dropouts.values()) == {0.3}
    assert length == 32
    frozen = {name for name, trained in trainable.items() if not trained}
    assert frozen == {name for name in trainable if EMBEDDINGS in name or FIRST in name}


def test_a_longer_input_than_the_model_takes_is_not_asked_for(encoder):
    with prepared(encoder, replace(RECIPE, max_tokens=500)):
        assert encoder.max_seq_length == 64


def test_model_is_as_before_after_a_training_that_was_broken_off(encoder):
    before = state_of(encoder)
    with pytest.raises(KeyboardInterrupt):
        fit(
            TOY,
            "m",
            encoder,
            ROWS,
            Told(before=stop_at(2)),
            replace(QUICK, dropout=0.3, max_tokens=32, frozen_layers=2),
        )
    assert state_of(encoder) == before


def test_what_was_frozen_before_stays_frozen_afterwards(encoder):
    encoder[0].model.pooler.requires_grad_(False)
    before = state_of(encoder)
    with prepared(encoder, RECIPE):
        pass
    assert state_of(encoder) == before


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_dropout_of_the_recipe_is_what_the_model_does(encoder, dropout):
    def once():
        with torch.no_grad():
            return encoder(encoder.preprocess(TEXTS[:4]))["sentence_embedding"]

    with prepared(encoder.train(), replace(RECIPE, dropout=dropout)):
        assert torch.equal(once(), once()) is (dropout == 0)


def test_mixed_weights_lie_between_both_by_their_share():
    tuned = {"w": torch.tensor([1.0, 3.0]), "positions": torch.tensor([0, 1])}
    base = {"w": torch.tensor([0.0, 1.0]), "positions": torch.tensor([0, 1])}
    # 0.25 · (1, 3) + 0.75 · (0, 1) = (0.25, 1.5)
    assert mixed(tuned, base, 0.25)["w"].tolist() == [0.25, 1.5]
    assert mixed(tuned, base, 0.0)["w"].tolist() == [0.0, 1.0]
    assert mixed(tuned, base, 1.0)["w"].tolist() == [1.0, 3.0]
    assert mixed(tuned, base, 0.25)["positions"].tolist() == [0, 1]


class ToldInOrder(Told):
    """Answers in the order of the list, whatever it is asked after; ``seen`` has the number of the call."""

    def __call__(self, model, output_path=None, epoch=-1, steps=START):
        return super().__call__(model, steps=len(self.asked))


@pytest.mark.parametrize(
    ("answers", "weight"),
    [([0.1, 0.3, 0.5, 0.4], 0.5), ([0.1, 0.3, 0.4, 0.5], 0.25), ([0.1, 0.3, 0.3, 0.2], 1.0)],
    ids=["half", "a quarter", "tuned alone"],
)
def test_dev_chooses_the_average_with_the_base_model(encoder, again, answers, weight):
    told, base = ToldInOrder(answers), weights(again())
    trained = fit(TOY, "m", encoder, ROWS, told, replace(QUICK, weights=(1.0, 0.5, 0.25)))
    assert told.asked == [0, 1, 2, 3]  # the start, the only checkpoint, one half, one quarter
    assert (trained.record["weight"], trained.record["dev"]["best"]) == (weight, max(answers))
    tuned = told.seen[1]
    assert not changed(told.seen[2], mixed(tuned, base, 0.5))
    assert not changed(told.seen[3], mixed(tuned, base, 0.25))
    assert not changed(weights(trained.model), mixed(tuned, base, weight))
    assert not changed(weights(load_trained(trained.folder, SentenceTransformer)), weights(trained.model))


# Which loss


def texts_of(column) -> list[tuple[int, ...]]:
    """What makes two texts of a batch the same: their tokens."""
    rows = zip(column["input_ids"].tolist(), column["attention_mask"].tolist(), strict=True)
    return [tuple(token for token, there in zip(*row, strict=True) if there) for row in rows]


@pytest.fixture
def batches(monkeypatch) -> list:
    """(the loss's class, the columns, the labels) of each batch that is trained on."""
    seen = []

    def spied(*arguments):
        loss = loss_for(*arguments)
        loss.register_forward_pre_hook(
            lambda module, args: seen.append((type(module).__name__, list(args[0]), args[1]))
        )
        return loss

    monkeypatch.setattr("helpers.training.fitting.loss_for", spied)
    return seen


# 16 anchors in 4 texts of which each stands 4 times, in groups of 8 rows a batch.
TWICE = Dataset.from_dict(
    {"anchor": [QUERIES[i % 4] for i in range(16)], "positive": TEXTS[:16], "negative": TEXTS[16:32]}
)
LABELLED = Dataset.from_dict({"text": TEXTS[:24], "label": [i % 6 for i in range(24)]})


def test_ranking_is_the_loss_that_is_not_named_and_naming_it_changes_nothing(encoder, again, batches):
    one = fit(TOY, "m", encoder, ROWS, Told(), QUICK)
    assert one.record["loss"] == "ranking"
    assert {kind for kind, _, _ in batches} == {"RankingLoss"}
    assert fit(TOY, "m", again(), ROWS, Told(), QUICK, "ranking").loaded


def test_another_loss_trains_anew_and_to_other_weights(encoder, again, batches):
    one = fit(TOY, "m", encoder, TWICE, Told(), QUICK)
    two = fit(TOY, "m", again(), TWICE, Told(), QUICK, "triplet")
    assert not two.loaded
    assert [kind for kind, _, _ in batches] == ["RankingLoss"] * 2 + ["AnchoredLoss"] * 2
    assert json.loads((two.folder / "run.json").read_text())["loss"] == two.record["loss"] == "triplet"
    assert one.record["key"] != two.record["key"]
    assert changed(weights(one.model), weights(two.model))
    assert fit(TOY, "m", again(), TWICE, Told(), QUICK, "triplet").loaded


def test_ranking_has_no_text_twice_in_a_batch_and_triplets_may_have(encoder, again, batches):
    recipe = replace(QUICK, batch_size=4)
    fit(TOY, "one", encoder, TWICE, Told(), recipe)
    for _, columns, _ in batches:
        assert len(set(texts_of(columns[0]))) == len(columns[0]["input_ids"])
    batches.clear()
    fit(TOY, "two", again(), TWICE, Told(), replace(recipe, batch_size=8), "triplet")  # 8 rows, 4 different texts
    assert [len(columns[0]["input_ids"]) for _, columns, _ in batches] == [8, 8]
    assert all(len(columns) == 3 and len(set(texts_of(columns[0]))) <= 4 for _, columns, _ in batches)


def test_labels_come_at_least_twice_in_a_batch_with_others(encoder, again, batches):
    trained = fit(TOY, "m", encoder, LABELLED, Told(), QUICK, "labels")
    assert {kind for kind, _, _ in batches} == {"LabelLoss"}
    for _, columns, labels in batches:
        assert len(columns) == 1
        counts = labels.unique(return_counts=True)[1].tolist()
        assert sum(counts) == 8
        assert min(counts) >= 2
        assert len(counts) >= 2
    assert trained.record["columns"] == ["text", "label"]
    assert changed(weights(trained.model), weights(again()))


# Cut off


def stop_at(step):
    """What stops a training as the stop button of a notebook does, when dev is asked after this step."""

    def stop(model, asked_after):
        if asked_after == step:
            raise KeyboardInterrupt

    return stop


@pytest.fixture(scope="module")
def uninterrupted(loaded, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORKBOOK_BUILD", str(tmp_path_factory.mktemp("uninterrupted")))
        return fit(TOY, "m", copy.deepcopy(loaded), ROWS, Told(), RECIPE)


def is_the_same_training(trained, uninterrupted) -> bool:
    """The same dev curve and the same weights, to the last bit."""
    assert trained.record["dev"] == uninterrupted.record["dev"]
    assert trained.record["step"] == uninterrupted.record["step"] == 16
    return not changed(weights(trained.model), weights(uninterrupted.model))


# Writes a file "asked" when it is asked after 12 steps, and then waits to be killed.
CHILD = """
import sys, time
from pathlib import Path
from test_fitting import *

def wait(model, step):
    if step == 12:
        Path(sys.argv[2]).touch()
        time.sleep(600)

fit(TOY, "m", SentenceTransformer(sys.argv[1], device="cpu"), ROWS, Told(before=wait), RECIPE)
"""


@pytest.mark.slow
def test_training_that_was_killed_goes_on_at_its_checkpoint_and_ends_as_if_it_had_not_been(
    folder, encoder, tmp_path, uninterrupted
):
    asked, part = tmp_path / "asked", tmp_path / "build" / "toy" / "models" / "m.part"
    threads = str(torch.get_num_threads())  # with another number sums are added in another order: other last bits
    settings = {**os.environ, "PYTHONPATH": str(Path(__file__).parent), "OMP_NUM_THREADS": threads}
    command = [sys.executable, "-c", CHILD, str(folder), str(asked)]
    with subprocess.Popen(command, env=settings, stderr=subprocess.PIPE, text=True) as process:
        while not asked.exists() and process.poll() is None:
            time.sleep(0.05)
        process.kill()
        errors = process.stderr.read()
    assert process.returncode == -signal.SIGKILL, errors
    assert [path.name for path in part.glob("checkpoint-*")] == ["checkpoint-8"]
    assert not part.with_name("m").exists()
    told = Told()
    trained = fit(TOY, "m", encoder, ROWS, told, RECIPE)
    assert told.asked == [12, 16]  # neither the start nor what was asked before the checkpoint
    assert [point["step"] for point in trained.record["dev"]["curve"]] == [4, 8, 12, 16]
    assert is_the_same_training(trained, uninterrupted)
    assert not part.exists()


@pytest.fixture(scope="module")
def interrupted(loaded, tmp_path_factory):
    """The build folder of a training that was stopped when dev was asked after 12 steps, given back in this state."""
    build = tmp_path_factory.mktemp("interrupted")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORKBOOK_BUILD", str(build))
        with pytest.raises(KeyboardInterrupt):
            fit(TOY, "m", copy.deepcopy(loaded), ROWS, Told(before=stop_at(12)), RECIPE)
    kept = build.with_name("kept")
    build.rename(kept)

    def restored() -> Path:
        shutil.rmtree(build, ignore_errors=True)
        shutil.copytree(kept, build)
        return build

    return restored


@pytest.fixture
def part(interrupted, monkeypatch) -> Path:
    build = interrupted()
    monkeypatch.setenv("WORKBOOK_BUILD", str(build))
    return build / "toy" / "models" / "m.part"


def test_training_that_was_stopped_goes_on_with_the_seconds_it_had_spent(part, encoder, uninterrupted):
    (part / "spent.json").write_text('{"seconds": 1000.0}')
    told = Told()
    trained = fit(TOY, "m", encoder, ROWS, told, RECIPE)
    assert told.asked == [12, 16]
    assert 1000 < trained.record["seconds"] < 1100
    assert is_the_same_training(trained, uninterrupted)


def test_checkpoint_of_another_training_is_not_gone_on_with(part, encoder):
    told = Told()
    fit(TOY, "m", encoder, ROWS, told, QUICK)
    assert told.asked == [START, 2]


def nothing(checkpoint):
    shutil.rmtree(checkpoint)
    checkpoint.mkdir()


def half_an_optimizer(checkpoint):
    for name in ("scheduler.pt", "rng_state.pth", "trainer_state.json"):
        (checkpoint / name).unlink()
    cut_short(checkpoint / "optimizer.pt")


def no_state(checkpoint):
    (checkpoint / "trainer_state.json").unlink()


def half_a_state(checkpoint):
    cut_short(checkpoint / "trainer_state.json")


def cut_short(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("left", [nothing, half_an_optimizer, no_state, half_a_state])
def test_training_that_was_killed_while_it_wrote_a_checkpoint_goes_on_at_the_one_before(
    part, encoder, uninterrupted, left
):
    shutil.copytree(part / "checkpoint-8", part / "checkpoint-12")
    left(part / "checkpoint-12")
    told = Told()
    trained = fit(TOY, "m", encoder, ROWS, told, RECIPE)
    assert told.asked == [12, 16]
    assert is_the_same_training(trained, uninterrupted)


def test_training_that_was_killed_while_it_wrote_its_first_checkpoint_starts_anew(part, encoder, uninterrupted):
    (part / "checkpoint-8").rename(part / "checkpoint-4")
    no_state(part / "checkpoint-4")
    told = Told()
    trained = fit(TOY, "m", encoder, ROWS, told, RECIPE)
    assert told.asked[-4:] == [4, 8, 12, 16]
    assert is_the_same_training(trained, uninterrupted)


def test_training_that_was_stopped_keeps_count_of_the_answers_without_gain(encoder, again):
    answers = {START: 0.1, 4: 0.5, 8: 0.4, 12: 0.3, 16: 0.9}
    with pytest.raises(KeyboardInterrupt):
        fit(TOY, "m", encoder, ROWS, Told(answers, before=stop_at(12)), RECIPE)
    told = Told(answers)
    trained = fit(TOY, "m", again(), ROWS, told, RECIPE)
    assert told.asked == [12]  # the second answer without gain, as if it had not been stopped
    assert trained.record["step"] == 4


# Failed


def test_full_disk_is_one_sentence_before_the_training_begins(encoder, again, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")(10**12, 10**12 - 2**20, 2**20)
    monkeypatch.setattr("helpers.training.fitting.shutil.disk_usage", lambda path: usage)
    told = Told()
    # 10 numbers of 4 bytes a weight, of about a million weights: the word embeddings alone are 30,522 · 32.
    with pytest.raises(WorkbookError, match=r"need about \d\d MiB .* has 1 MiB free: .*WORKBOOK_BUILD") as error:
        fit(TOY, "m", encoder, ROWS, told, QUICK)
    assert one_sentence(error)
    assert told.asked == []
    assert not (tmp_path / "build" / "toy" / "models" / "m").exists()
    assert not changed(weights(encoder), weights(again()))


def test_disk_that_is_full_when_a_checkpoint_is_saved_is_one_sentence(encoder, tmp_path, monkeypatch):
    def full(*args, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(encoder, "save_pretrained", full)
    with pytest.raises(WorkbookError, match=r"^Cannot store .*No space left on device.*free some space") as error:
        fit(TOY, "m", encoder, ROWS, Told(), QUICK)
    assert one_sentence(error)
    assert not (tmp_path / "build" / "toy" / "models" / "m").exists()


# Of a checkpoint the weights are 4.0 MB and the optimizer's two numbers a weight 8.0 MB.
@pytest.mark.parametrize("megabytes", [1, 5], ids=["weights", "optimizer"])
def test_disk_on_which_a_checkpoint_finds_no_room_is_one_sentence_and_the_next_run_ends_well(
    encoder, again, tmp_path, uninterrupted, megabytes
):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (megabytes * 10**6, limits[1]))
    try:
        with pytest.raises(WorkbookError, match=r"^Cannot store .*free some space") as error:
            fit(TOY, "m", encoder, ROWS, Told(), RECIPE)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "\n" not in str(error.value)  # what the library said may be quoted in it
    assert not (tmp_path / "build" / "toy" / "models" / "m").exists()
    assert is_the_same_training(fit(TOY, "m", again(), ROWS, Told(), RECIPE), uninterrupted)


def test_error_of_another_kind_is_not_called_a_full_disk(encoder):
    def fails(model, step):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        fit(TOY, "m", encoder, ROWS, Told(before=fails), QUICK)


def spoiled(encoder):
    with torch.no_grad():
        encoder[0].model.encoder.layer[0].attention.self.query.weight[0, 0] = float("nan")
    return encoder, RECIPE


def too_fast(encoder):
    return encoder, replace(RECIPE, learning_rate=1e9)


@pytest.mark.parametrize("diverging", [spoiled, too_fast])
def test_loss_that_is_not_a_number_is_one_sentence(encoder, tmp_path, diverging):
    model, recipe = diverging(encoder)
    with pytest.raises(WorkbookError, match=r"loss is no longer a number.*lower the learning rate") as error:
        fit(TOY, "m", model, ROWS, DEV, recipe)
    assert one_sentence(error)
    assert not (tmp_path / "build" / "toy" / "models" / "m").exists()


def test_training_that_fails_leaves_the_model_of_the_one_before_in_its_place(encoder, again):
    before = fit(TOY, "m", encoder, ROWS, Told(), QUICK)
    model, recipe = too_fast(again())
    with pytest.raises(WorkbookError):
        fit(TOY, "m", model, ROWS, Told(), recipe)
    after = fit(TOY, "m", again(), ROWS, Told(), QUICK)
    assert after.loaded
    assert model_key(after.model) == model_key(before.model)


@pytest.mark.parametrize("loss", ["triplet", "labels"])
def test_no_loss_trains_on_when_it_is_not_a_number(encoder, loss):
    columns = {"anchor": QUERIES[:60], "positive": TEXTS[:60], "negative": TEXTS[1:61]}
    rows = {"triplet": columns, "labels": {"text": TEXTS[:60], "label": [i % 4 for i in range(60)]}}[loss]
    with torch.no_grad():
        encoder[0].model.get_input_embeddings().weight.fill_(float("nan"))
    with pytest.raises(WorkbookError, match="no longer a number"):
        fit(TOY, "m", encoder, Dataset.from_dict(rows), Told({START: 0.1, 2: 0.2}), QUICK, loss)
