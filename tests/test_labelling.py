"""From vectors to labels, on toy vectors where the answer is known;
tuning on descriptions and on labels with a tiny encoder.
"""

import copy
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from helpers.course.labelling import (
    DRAWS,
    LABEL_RECIPE,
    RECIPE,
    SHOTS,
    agreement,
    clusters,
    dev_of,
    draw,
    hits,
    knn,
    probe,
    probe_curve,
    rule_curve,
    tune_on_descriptions,
    tune_on_labels,
)
from helpers.course.transactions import NEW, Transactions, open_transactions
from helpers.store.files import WorkbookError

AXES = np.eye(3)


def around(*axes: int, n: int = 20, seed: int = 0) -> np.ndarray:
    """n vectors near each of these axes, one axis after the other; far apart from those of the others."""
    rng = np.random.default_rng(seed)
    return np.vstack([AXES[axis] + 0.05 * rng.standard_normal((n, 3)) for axis in axes])


# Hits


def test_hits_by_hand():
    qrels = {"q1": {"a": 1}, "q2": {"b": 2}, "q3": {"c": 1}, "q4": {"a": 0, "b": 1}, "q5": {"a": 1}}
    run = {
        "q1": {"b": 0.2, "a": 0.9, "c": 0.5},  # a, c, b
        "q2": {"a": 0.9, "b": 0.5, "c": 0.1},  # b is second
        "q3": {"a": 0.9, "b": 0.5, "c": 0.1},  # c is third
        "q4": {"a": 0.9, "c": 0.5, "b": 0.1},  # a is judged and not right
        "other": {"a": 1.0},
    }  # q5 found nothing
    assert hits(qrels, run, 1).to_dict() == {"q1": 1.0, "q2": 0.0, "q3": 0.0, "q4": 0.0, "q5": 0.0}
    assert hits(qrels, run, 2).to_dict() == {"q1": 1.0, "q2": 1.0, "q3": 0.0, "q4": 0.0, "q5": 0.0}
    assert hits(qrels, run, 9).to_dict() == {"q1": 1.0, "q2": 1.0, "q3": 1.0, "q4": 1.0, "q5": 0.0}


def test_of_equal_scores_the_id_decides():
    tie = {"q": {"b": 0.5, "a": 0.5, "c": 0.7}}  # c, a, b
    assert [hits({"q": {"a": 1}}, tie, k)["q"] for k in (1, 2)] == [0, 1]
    assert [hits({"q": {"b": 1}}, tie, k)["q"] for k in (2, 3)] == [0, 1]


def test_hits_of_no_query_are_none():
    assert hits({}, {"q": {"a": 1.0}}, 5).empty


# Neighbours


def on_circle(*cosines: float) -> np.ndarray:
    """Vectors of length 1 with these cosines to (1, 0)."""
    return np.array([[c, np.sqrt(1 - c * c)] for c in cosines])


@pytest.mark.parametrize(
    ("cosines", "k", "expected"),
    [
        ((1.0, 0.6, 0.6), 1, "a"),
        ((1.0, 0.6, 0.6), 2, "a"),  # 1 against 0.6
        ((1.0, 0.6, 0.6), 3, "b"),  # 1 against 0.6 + 0.6
        ((1.0, 0.4, 0.4), 3, "a"),  # 1 against 0.4 + 0.4, though b has two votes
        ((0.4, 0.9, 0.1), 1, "b"),
    ],
)
def test_neighbours_vote_by_their_similarity(cosines, k, expected):
    assert knn(on_circle(*cosines), ["a", "b", "b"], np.array([[1.0, 0.0]]), k).tolist() == [expected]


def test_the_length_of_a_vector_does_not_count():
    vectors = np.array([[9.0, 0.0], [0.0, 0.1]])
    assert knn(vectors, ["a", "b"], np.array([[0.1, 0.2], [0.2, 0.1]]), k=1).tolist() == ["b", "a"]


def test_more_neighbours_than_there_are_rows_are_all_rows():
    assert knn(on_circle(1.0, 0.6, 0.6), ["a", "b", "b"], np.array([[1.0, 0.0]]), k=50).tolist() == ["b"]


def test_what_is_right_behind_a_vector_has_hardly_a_vote():
    vectors = np.array([[-1.0, 0.0], [-1.0, 0.0], [-1.0, 0.0], [0.1, 1.0]])
    assert knn(vectors, ["a", "a", "a", "b"], np.array([[1.0, 0.0]]), k=4).tolist() == ["b"]


# A linear probe


def test_the_probe_tells_apart_what_a_plane_separates():
    labels = ["a"] * 20 + ["b"] * 20 + ["c"] * 20
    said = probe(around(0, 1, 2), labels, around(2, 0, 1, n=5, seed=1))
    assert said.tolist() == ["c"] * 5 + ["a"] * 5 + ["b"] * 5


def test_a_class_with_few_rows_counts_as_much_as_one_with_many():
    # 30 rows at −1 and one at +1: with classes balanced, the border is halfway, at 0.
    said = probe(np.array([[-1.0]] * 30 + [[1.0]]), ["many"] * 30 + ["few"], np.array([[-0.05], [0.05]]))
    assert said.tolist() == ["many", "few"]


# Draws


def test_a_draw_has_so_many_of_each_label_and_no_position_twice():
    labels = ["b", "a", "b", "c", "b", "a", "b"]
    for seed in range(10):
        chosen = draw(labels, 2, seed).tolist()
        assert Counter(labels[i] for i in chosen) == {"a": 2, "b": 2, "c": 1}  # c has no second row
        assert len(set(chosen)) == 5
    assert sorted(draw(labels, 9, 0).tolist()) == list(range(7))


def test_same_seed_draws_the_same_and_others_draw_every_row():
    labels = ["a", "b"] * 5
    assert draw(labels, 2, 3).tolist() == draw(labels, 2, 3).tolist()
    assert {i for seed in range(40) for i in draw(labels, 1, seed).tolist()} == set(range(10))


# Curves


def test_the_probe_curve_is_perfect_where_classes_are_apart():
    labels, truth = ["a"] * 20 + ["b"] * 20, ["b"] * 4 + ["a"] * 4
    curve = probe_curve(around(0, 1), labels, around(1, 0, n=4, seed=1), truth)
    assert curve.columns.tolist() == ["shots", "draw", "accuracy"]
    assert list(zip(curve["shots"], curve["draw"], strict=True)) == [(n, d) for n in SHOTS for d in range(DRAWS)]
    assert set(curve["accuracy"]) == {1.0}


def test_accuracy_by_hand():
    # The probe says b, b, b, b, a, a, a, a; three of the eight are said to be otherwise.
    truth = ["b", "b", "b", "a", "a", "a", "b", "b"]
    curve = probe_curve(around(0, 1), ["a"] * 20 + ["b"] * 20, around(1, 0, n=4, seed=1), truth, shots=(2, 4))
    assert curve["shots"].unique().tolist() == [2, 4]
    assert set(curve["accuracy"]) == {5 / 8}


def test_the_probe_is_given_no_more_than_the_shots():
    vectors, labels = around(0, 1), ["a"] * 20 + ["b"] * 20
    given = []
    asked = np.zeros((1, 3))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "helpers.course.labelling.probe", lambda v, said, a: given.append((v, list(said))) or np.array(["a"])
        )
        probe_curve(vectors, labels, asked, ["a"], shots=(1, 4))
    assert [len(v) for v, _ in given] == [2] * DRAWS + [8] * DRAWS
    where = {tuple(v): label for v, label in zip(vectors, labels, strict=True)}
    assert all(where[tuple(v)] == label for vs, said in given for v, label in zip(vs, said, strict=True))
    assert len({v[0].tobytes() for v, _ in given[:DRAWS]}) > 1


def rule_toy(asked, truth, **options):
    """Old labels a and b near axes 0 and 1, four examples of the rule near axis 2."""
    return rule_curve(around(0, 1), ["a"] * 20 + ["b"] * 20, around(2, n=4, seed=2), AXES[asked], truth, **options)


def test_a_rule_that_has_its_own_place_is_learned_from_one_example():
    curve = rule_toy([2, 0, 1, 2], [True, False, False, True])
    assert curve.columns.tolist() == ["shots", "draw", "precision", "recall", "f1"]
    assert curve["shots"].tolist() == [1] * DRAWS + [2] * DRAWS + [4] * DRAWS  # of 8 and 16 there are not enough
    assert curve["draw"].tolist() == list(range(DRAWS)) * 3
    assert (curve[["precision", "recall", "f1"]] == 1).all(axis=None)


def test_precision_recall_and_f1_of_a_rule_by_hand():
    # Said of the first three: 1 of 3 is right. Of the two that it concerns, 1 is found. 2 · 1/3 · 1/2 / (5/6) = 0.4.
    curve = rule_toy([2, 2, 2, 0], [True, False, False, True], shots=(2,))
    for row in curve[["precision", "recall", "f1"]].to_numpy():
        assert row.tolist() == pytest.approx([1 / 3, 1 / 2, 0.4])


def test_a_rule_that_is_never_said_scores_zero():
    curve = rule_toy([0, 1], [True, False], shots=(1,))
    assert (curve[["precision", "recall", "f1"]] == 0).all(axis=None)


# Clusters


def test_clusters_are_the_groups_that_lie_apart():
    found = clusters(around(0, 1, 2), 3)
    assert len(set(found)) == 3
    assert all(len(set(found[start : start + 20])) == 1 for start in (0, 20, 40))
    assert clusters(around(0, 1, 2), 3).tolist() == found.tolist()


@pytest.mark.filterwarnings("error")  # a notebook would show it
@pytest.mark.parametrize("n", [6, 20])  # more than different vectors, more than rows
def test_there_are_no_more_clusters_than_different_vectors(n):
    found = clusters(np.repeat(AXES[:2], 4, axis=0).astype(np.float32), n)
    assert len(set(found)) == 2
    assert len(set(found[:4])) == len(set(found[4:])) == 1


def test_perfect_clusters_agree_fully_whatever_their_numbers():
    table = agreement(["a"] * 30 + ["b"] * 30, [7] * 30 + [2] * 30, resamples=100)
    assert table.index.tolist() == ["NMI", "ARI"]
    assert table.columns.tolist() == ["value", "low", "high"]
    assert table.to_numpy() == pytest.approx(np.ones((2, 3)))


def test_agreement_by_hand():
    # Every label in every cluster once: nothing in common.
    # No pair is together in both, of 2 and 2 expected are 2 · 2 / 6: ARI = (0 − 2/3) / (2 − 2/3) = −1/2.
    values = agreement(["a", "a", "b", "b"], [0, 1, 0, 1], resamples=5)["value"]
    assert values["NMI"] == pytest.approx(0, abs=1e-9)
    assert values["ARI"] == pytest.approx(-0.5)
    # One b strays: in both together is 1 pair, of labels 2, of clusters 3 (of 6 pairs each):
    # ARI = (1 − 1) / (2.5 − 1) = 0.
    assert agreement(["a", "a", "b", "b"], [0, 0, 0, 1], resamples=5).loc["ARI", "value"] == pytest.approx(0)


def strayed(n: int) -> tuple[list[str], list[int]]:
    """n rows of three labels, one in five in a random cluster."""
    rng = np.random.default_rng(0)
    truth = rng.integers(3, size=n)
    found = np.where(rng.random(n) < 0.2, rng.integers(3, size=n), truth)
    return ["abc"[t] for t in truth], found.tolist()


def test_the_interval_holds_the_value_and_is_narrower_for_more_rows():
    few, many = agreement(*strayed(60), resamples=100), agreement(*strayed(960), resamples=100)
    for table in (few, many):
        assert (table["low"] < table["value"]).all()
        assert (table["value"] < table["high"]).all()
    # 16 times the rows: a quarter of the width.
    width = (many["high"] - many["low"]) / (few["high"] - few["low"])
    assert width.to_numpy() == pytest.approx([0.25, 0.25], abs=0.12)


def test_same_seed_gives_the_same_interval_and_another_seed_another():
    one, two, other = (agreement(*strayed(60), seed=seed, resamples=20) for seed in (1, 1, 2))
    assert one.equals(two)
    assert one["value"].equals(other["value"])
    assert not one["low"].equals(other["low"])


def test_labels_and_clusters_of_other_rows_are_one_sentence():
    with pytest.raises(WorkbookError, match=r"^3 labels and 2 clusters: they have to be of the same rows\.$"):
        agreement(["a", "b", "a"], [0, 1])


# Tuning


@pytest.fixture
def encoder(tiny, monkeypatch):
    """What the module loads: another tiny encoder, untrained, each time."""
    monkeypatch.setattr("helpers.course.labelling.load_encoder", lambda: copy.deepcopy(tiny))


@pytest.fixture
def given(encoder, monkeypatch) -> list:
    """What the trainings were asked to do; nothing is trained."""
    asked = []
    monkeypatch.setattr("helpers.course.labelling.fit", lambda *arguments: asked.append(arguments))
    return asked


QUICK = replace(RECIPE, epochs=0, fewest_steps=2, batch_size=8, learning_rate=2e-3, evaluations=1)
SAID = {"rent": "Rooms.", "pantry": "Coffee and tea.", "legal": "Lawyers.", "insurance": "Premiums."}


@pytest.fixture
def toy() -> Transactions:
    """Per category six rows to train on, two for dev and two for test; insurance is new, whatever a split may hold."""
    texts = {f"{c}{n}": f"{c} bill number {n}" for c in SAID for n in range(10)}
    labels = {i: i.rstrip("0123456789") for i in texts}
    bounds = {"train": range(6), "dev": range(6, 8), "test": range(8, 10)}
    splits = {s: [f"{c}{n}" for c in SAID for n in numbers] for s, numbers in bounds.items()}
    return Transactions("toy", texts, labels, dict(texts), dict(SAID), splits, new=("insurance",))


TUNED = pytest.mark.parametrize(("tune", "name"), [(tune_on_descriptions, "pairs"), (tune_on_labels, "labels")])


@TUNED
def test_tuning_runs_and_is_loaded_the_second_time(toy, encoder, tiny, tmp_path, tune, name):
    trained = tune(toy, QUICK)
    assert not trained.loaded
    assert trained.folder == tmp_path / "build" / "toy" / "models" / name
    assert trained.record["rows"] == 18  # three known categories of six
    assert trained.record["dev"]["curve"][-1]["step"] == 2
    assert trained.record["loss"] == {"pairs": "ranking", "labels": "labels"}[name]
    again = tune(toy, QUICK)
    assert again.loaded
    assert again.record["key"] == trained.record["key"]
    mine, kept = trained.model.state_dict(), again.model.state_dict()
    assert all(torch.equal(mine[k], kept[k]) for k in mine)


def test_descriptions_are_the_positives_of_known_train_rows(toy, given):
    tune_on_descriptions(toy, QUICK)
    _, _, _, dataset, _, recipe = given[0]
    ids = [f"{c}{n}" for c in ("rent", "pantry", "legal") for n in range(6)]
    assert dataset["anchor"][:] == [toy.texts[i] for i in ids]
    assert dataset["positive"][:] == ["Rooms."] * 6 + ["Coffee and tea."] * 6 + ["Lawyers."] * 6
    assert recipe == QUICK


def test_labels_are_numbers_in_alphabetical_order_and_no_description_is_among_the_rows(toy, given):
    tune_on_labels(toy, QUICK)
    _, _, _, dataset, _, recipe, loss = given[0]
    assert dataset["text"][:] == [f"{c} bill number {n}" for c in ("rent", "pantry", "legal") for n in range(6)]
    assert dataset["label"][:] == [2] * 6 + [1] * 6 + [0] * 6  # legal, pantry, rent
    assert dataset.column_names == ["text", "label"]
    assert (recipe, loss) == (QUICK, "labels")


@TUNED
def test_the_recipe_of_the_module_is_the_default(toy, given, tune, name):
    tune(toy)
    assert given[0][1] == name
    assert given[0][5] == {"pairs": RECIPE, "labels": LABEL_RECIPE}[name]


@TUNED
def test_dev_never_has_a_new_category_nor_a_row_of_train_or_test(toy, given, tune, name):
    tune(toy, QUICK)
    dev = given[0][4]
    assert dev.corpus == {c: text for c, text in SAID.items() if c != "insurance"}
    assert dev.qrels == {f"{c}{n}": {c: 1} for c in ("rent", "pantry", "legal") for n in (6, 7)}
    assert dev.queries == {i: toy.texts[i] for i in dev.qrels}


def test_dev_of_the_shipped_transactions_has_no_new_category(monkeypatch):
    monkeypatch.delenv("TRANSACTIONS", raising=False)
    data = open_transactions()
    dev = dev_of(data)
    assert dev.queries.keys() == dev.qrels.keys() == set(data.splits["dev"])
    assert set(data.descriptions) - set(dev.corpus) == set(NEW)
    assert not {c for docs in dev.qrels.values() for c in docs} & set(NEW)
    assert not set(dev.queries.values()) & {data.texts[i] for i in data.splits["train"]}
