"""The long experiments: what they compare, that they go on where they stopped, and that the committed logs are theirs."""

from typing import ClassVar

import pandas as pd
import pytest

from helpers import comparisons, experiments, reranking_experiments
from helpers.collection import Collection
from helpers.evaluation import evaluate, first_pool
from helpers.store import DATA
from helpers.triplets import NEGATIVES

COMMITTED = {
    "learning-curve": experiments.learning_curve,
    "negatives": experiments.negatives,
    "recipes": experiments.recipes,
}


def test_the_learning_curve_has_every_size_that_is_drawn_with_three_seeds():
    trials = list(experiments.learning_curve())
    drawn = {(size, seed) for size in (125, 250, 500, 1000) for seed in range(3)}
    assert {(t.size, t.recipe.seed) for t in trials} == {(0, 0), (None, 0)} | drawn


def test_the_negatives_are_those_of_notebook_05_on_the_same_questions():
    trials = list(experiments.negatives())
    assert {t.negatives for t in trials} == set(NEGATIVES)
    assert {(t.size, t.recipe.epochs, t.recipe.fewest_steps) for t in trials} == {(500, 1.2, 12)}


def test_each_recipe_changes_one_thing():
    default, *others = experiments.recipes()
    assert default.name == "default"
    for trial in others:
        fields = [*trial._fields, *trial.recipe.__dataclass_fields__]
        one, other = ({**t._asdict(), **vars(t.recipe)} for t in (trial, default))
        changed = {f for f in fields if one[f] != other[f]} - {"name", "recipe", "whole"}
        few = changed - {"size"}
        assert few in ({"negatives", "per_query"}, {"learning_rate"}, {"dimensions"}) or changed == {"size"}


def test_the_change_that_was_best_on_few_questions_is_tried_on_all_beside_the_default():
    every = [trial for trial in experiments.recipes() if trial.size is None]
    assert [trial.recipe.learning_rate for trial in every] == [1e-4, 2e-4]
    assert all(trial.whole for trial in every)


class FakeBench:
    """Answers without training; counts how often it is asked."""

    asked: ClassVar[list] = []

    def __init__(self, collection):
        self.key = "k"

    def run(self, trial):
        self.asked.append(trial.name)
        if len(self.asked) == 3:
            raise KeyboardInterrupt
        return {"name": trial.name, "seed": trial.recipe.seed, "ndcg@10": 0.5}


def test_an_experiment_that_is_cut_off_goes_on_and_repeats_nothing(monkeypatch, capsys):
    monkeypatch.setattr(experiments, "Bench", FakeBench)
    monkeypatch.setattr(FakeBench, "asked", [])
    tiny = Collection("tiny", {"a": "apple"})
    with pytest.raises(KeyboardInterrupt):
        experiments.run("negatives", tiny)
    assert len(experiments.results("negatives", tiny)) == 2
    table = experiments.run("negatives", tiny)
    assert len(table) == 6
    assert len(FakeBench.asked) == 3 + 4
    experiments.run("negatives", tiny)
    assert len(FakeBench.asked) == 7


def test_an_experiment_that_was_not_run_has_no_results():
    assert experiments.results("negatives", Collection("tiny", {"a": "apple"})).empty


@pytest.mark.parametrize("name", COMMITTED)
def test_the_committed_log_holds_trials_of_this_code_and_dev_scores(name):
    log = pd.read_csv(DATA / "results" / f"{name}.csv", dtype={"name": str})
    expected = {(t.name, t.recipe.seed) for t in COMMITTED[name]()}
    assert {(row["name"], row["seed"]) for _, row in log.iterrows()} <= expected
    assert not log.duplicated(["name", "seed"]).any()
    assert log["small dev"].dropna().between(0, 1).all()


def test_the_committed_learning_curve_has_every_size():
    log = pd.read_csv(DATA / "results" / "learning-curve.csv", dtype={"name": str})
    assert {"0", "125", "250", "500", "1000", "all"} == set(log["name"])


def test_the_committed_attempts_at_reranking_are_those_of_the_code():
    log = pd.read_csv(DATA / "results" / "rerankers.csv")
    assert set(log["name"]) <= {a.name for a in reranking_experiments.attempts()}


def test_the_frontier_keeps_what_nothing_beats_in_both():
    table = pd.DataFrame({"ms": [1, 5, 5, 9, 20], "ndcg@10": [0.2, 0.4, 0.3, 0.4, 0.5]}, index=list("abcde"))
    assert list(comparisons.efficient(table).index) == ["a", "b", "e"]  # d is slower than b and no better


def test_the_first_pool_is_what_was_judged_before_the_tuned_systems(pydocs_collection):
    both = pydocs_collection.qrels["test"]
    first = first_pool(pydocs_collection, "test")
    assert first.keys() == both.keys()
    assert sum(map(len, first.values())) == 6_277  # data/README.md
    assert all(both[q][d] == grade for q, docs in first.items() for d, grade in docs.items())
    assert evaluate(first, {q: dict.fromkeys(docs, 1.0) for q, docs in first.items()})["judged@10"] == 1.0


def test_a_collection_of_ones_own_has_no_first_pool():
    assert first_pool(Collection("mine", {"a": "apple"}), "test") is None
