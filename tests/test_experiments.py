"""The long experiments: what they compare, what is measured in them, and that the committed logs are theirs."""

import dataclasses
import json
import re
from dataclasses import asdict

import pandas as pd
import pytest
from fakes import random_texts

from helpers.collection.collection import Collection
from helpers.evaluation.measures import first_pool
from helpers.models.load import load_encoder
from helpers.retrieval.first_stages import Dense
from helpers.store.files import DATA, WorkbookError
from helpers.training import blends, experiments
from helpers.training.evidence_commands import all_pieces, make, picked
from helpers.training.experiments import results, table, table_file
from helpers.training.fitting import Recipe, Trained
from helpers.training.triplets import NEGATIVES
from helpers.training.tune import RERANKER

COMMITTED = experiments.TRAININGS


def test_the_learning_curve_has_every_size_that_is_drawn_with_three_seeds():
    trials = list(experiments.learning_curve_trials())
    drawn = {(size, seed) for size in (125, 250, 500, 1000) for seed in range(3)}
    assert {(t.size, t.recipe.seed) for t in trials} == {(0, 0), (None, 0)} | drawn


def test_the_negatives_are_those_of_notebook_05_on_the_same_questions():
    trials = list(experiments.negatives_trials())
    assert {t.negatives for t in trials} == set(NEGATIVES)
    assert {(t.size, t.recipe.epochs, t.recipe.fewest_steps) for t in trials} == {(500, 1.2, 12)}


def test_each_recipe_changes_one_thing():
    default, *others = experiments.recipe_trials()
    assert default.name == "default"
    for trial in others:
        fields = [*trial._fields, *trial.recipe.__dataclass_fields__]
        one, other = ({**t._asdict(), **vars(t.recipe)} for t in (trial, default))
        changed = {f for f in fields if one[f] != other[f]} - {"name", "recipe", "whole"}
        few = changed - {"size"}
        assert few in ({"negatives", "per_query"}, {"learning_rate"}, {"dimensions"}) or changed == {"size"}


def test_the_change_that_was_best_on_few_questions_is_tried_on_all_beside_the_default():
    every = [trial for trial in experiments.recipe_trials() if trial.size is None]
    assert [trial.recipe.learning_rate for trial in every] == [1e-4, 2e-4]
    assert all(trial.whole for trial in every)


@pytest.fixture
def small(tiny_folder, monkeypatch):
    """A collection of 80 made-up passages with train and dev queries, and an encoder of two layers for it."""
    monkeypatch.setenv("ENCODER_MODEL", str(tiny_folder))
    corpus = {f"d{i:02}": f"{text} {i}" for i, text in enumerate(random_texts(80))}
    queries = {f"q{i:02}": f"{text} about {i}" for i, text in enumerate(random_texts(60, seed=1, length=5))}
    qrels = {f"q{i:02}": {f"d{i:02}": 1} for i in range(60)}
    ids = sorted(qrels)
    splits = {"train": {q: qrels[q] for q in ids[:45]}, "dev": {q: qrels[q] for q in ids[45:]}}
    return Collection("small", corpus, queries, splits)


@pytest.fixture
def untrained(monkeypatch):
    """Every training gives back the model that it was given; the list of what was asked for."""
    asked = []

    def train(collection, rows, dev, model, recipe, name):
        asked.append((name, rows))
        start = dev(model)[dev.primary_metric]
        record = {"rows": len(rows), "step": 0, "dev": {"start": start, "best": start}, "seconds": 61.4}
        return Trained(model, collection.build, record)

    def tuned(collection, data, base):
        return Trained(load_encoder(), collection.build, {})

    monkeypatch.setattr(experiments, "finetune_encoder", train)
    monkeypatch.setattr(experiments, "finetune_late_interaction", train)
    monkeypatch.setattr(experiments, "finetune_reranker", train)
    monkeypatch.setattr(experiments, "tuned_encoder", tuned)
    return asked


@pytest.mark.parametrize("only", ["learning-curve/0", "learning-curve/all", "negatives", "recipes", "rerankers"])
def test_a_piece_has_the_columns_that_it_is_measured_in(only, small, untrained):
    made = picked(all_pieces(small), only)
    make(small, all_pieces(small), only, say=lambda line: None)
    log = results(only.partition("/")[0], small).set_index(["name", "seed"])
    assert len(log) == len(made)
    for piece in made:
        row = log.loc[(piece.name, piece.seed)].dropna()
        assert all(0 <= row[column] <= 1 for column in piece.measured)
        numbers = set(row.index) & {"small dev", *experiments.WHOLE, "alone", "mixed", "first stage"}
        assert numbers == set(piece.measured) - {"start"}
        assert row["seconds"] == (61 if piece.name != "0" and "untrained" not in piece.name else 0)
    if only == "negatives":
        counts = [sum(len(row.negative_ids) for row in rows) for _, rows in untrained]
        of_kind = dict(zip(NEGATIVES, counts, strict=True))
        assert (of_kind["in-batch"], of_kind["random"]) == (0, 45)
        assert all(of_kind[kind] > 0 for kind in ("bm25-hard", "encoder-hard", "mixed"))


def test_a_bench_is_made_when_a_piece_is_and_not_before(small, untrained, monkeypatch):
    monkeypatch.setattr(Dense, "index", lambda *_: pytest.fail("something was indexed"))
    pieces = all_pieces(small)
    assert len(pieces) == 14 + 6 + 7 + 5 + 7
    assert results("negatives", small).empty
    with pytest.raises(pytest.fail.Exception, match="was indexed"):
        pieces[0].make()


def test_the_trainings_of_two_experiments_that_are_one_share_its_model(small, untrained):
    default = next(experiments.recipe_trials())
    in_batch = next(trial for trial in experiments.negatives_trials() if trial.negatives == "in-batch")
    trials = experiments.learning_curve_trials()
    curve = next(trial for trial in trials if (trial.name, trial.recipe.seed) == ("500", 0))
    assert default.model == in_batch.model == curve.model != next(experiments.negatives_trials()).model
    every = [trial.model for trial in experiments.recipe_trials() if trial.size is None]
    assert every[0] == "encoder-tuned" != every[1]


def quick(collection) -> set[tuple[str, str]]:
    return {(piece.table, piece.name) for piece in all_pieces(collection) if piece.quick}


def trained_before(collection, name, recipe):
    folder = collection.build / "models" / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.json").write_text(json.dumps({"recipe": asdict(recipe)}))


def test_quick_is_what_trains_on_few_questions_and_what_the_notebooks_have_trained_already(small):
    few = quick(small)
    assert {name for table, name in few if table == "learning-curve"} == {"0", "125", "250", "500"}
    assert {name for table, name in few if table == "negatives"} == set(NEGATIVES)
    assert {table for table, _ in few} == {"learning-curve", "negatives", "recipes", "texts"}
    assert {name for table, name in few if table == "texts"} == {"untrained", "adapter: made"}
    trained_before(small, "encoder-tuned", Recipe(warmup=0.9))  # an older recipe's: it would be trained anew
    assert quick(small) == few
    trained_before(small, "encoder-tuned", Recipe())
    more = quick(small)
    untrained = {("rerankers", a.name) for a in experiments.reranker_attempts() if a.questions == 0}
    assert more - few == {("learning-curve", "all"), ("recipes", "all questions")} | untrained
    trained_before(small, "late-interaction-tuned", RERANKER.recipe)
    assert quick(small) - more == {("rerankers", "late interaction, tuned")}


def test_only_the_encoder_as_it_is_has_to_come_out_nearly_the_same(small):
    strict = {(p.table, p.name) for p in all_pieces(small) if p.tolerance < 0.03}
    assert strict == {("learning-curve", "0"), ("texts", "untrained")}


def test_texts_are_tried_with_two_methods_and_three_seeds_and_authors_alone_by_the_adapter():
    tried = list(blends.blends())
    assert tried[0] == blends.Blend("untrained")
    every = {(method, texts, seed) for method in blends.METHODS for texts in blends.BLENDS for seed in range(3)}
    left_out = {("query-side", ("authors",), seed) for seed in range(3)}
    assert {(b.method, b.texts, b.seed) for b in tried[1:]} == every - left_out
    assert len(tried) == 1 + len(every - left_out)


def test_a_blend_is_scored_on_dev_and_a_query_side_training_too(small, monkeypatch):
    recipe = dataclasses.replace(blends.QUERY_SIDE, epochs=1, batch_size=16, evaluations=1)
    monkeypatch.setattr(blends, "QUERY_SIDE", recipe)
    monkeypatch.setattr(blends, "SEEDS", (0,))
    make(small, all_pieces(small), "texts", say=lambda line: None)
    log = blends.text_results(small).set_index("name")
    assert list(log.index) == ["untrained", "adapter: made", "query-side: made"]
    assert log["dev"].between(0, 1).all()
    assert (log["dev"] >= log.loc["untrained", "dev"] - 1e-4).all()  # dev chose, and may choose no training
    assert list(log["questions"]) == [0, 45, 45]
    monkeypatch.setattr(blends, "QUERY_SIDE", dataclasses.replace(recipe, scale=10.0))
    assert blends.text_results(small).empty  # stale


def test_the_keys_of_rerankers_change_with_the_recipe_of_their_first_stage(monkeypatch):
    before = {name: experiments.keys(name, "shared") for name in experiments.EXPERIMENTS}
    monkeypatch.setattr(experiments, "Recipe", lambda **changes: Recipe(**({"warmup": 0.9} | changes)))
    for name in ("rerankers", "learning-curve"):
        after = experiments.keys(name, "shared")
        assert after.keys() == before[name].keys()
        assert not set(after.values()) & set(before[name].values())


def test_every_row_has_a_key_of_its_own():
    found = [key for name in experiments.EXPERIMENTS for key in experiments.keys(name, "shared").values()]
    assert len(set(found)) == len(found) == 32


def test_another_collection_or_encoder_has_its_tables_in_the_build_folder(monkeypatch, pydocs_collection):
    assert table_file("recipes", pydocs_collection) == DATA / "results" / "recipes.csv"
    own = Collection("tiny", {"a": "apple"})
    assert table_file("recipes", own) == own.build / "results" / "recipes.csv"
    monkeypatch.setenv("ENCODER_MODEL", "all-MiniLM-L6-v2")
    assert table_file("recipes", pydocs_collection) == DATA / "results" / "recipes.csv"
    monkeypatch.setenv("ENCODER_MODEL", "someone/else")
    assert table_file("recipes", pydocs_collection) == pydocs_collection.build / "results" / "recipes.csv"


def test_stale_results_of_ones_own_collection_name_the_command_with_the_collection(small, untrained, monkeypatch):
    make(small, all_pieces(small), "negatives/random", say=lambda line: None)
    assert len(results("negatives", small)) == 1
    changed = dataclasses.replace(small, corpus={**small.corpus, "d79": "something else"})
    monkeypatch.setenv("COLLECTION", "my docs")
    with pytest.raises(WorkbookError, match=r"is stale.*`make evidence COLLECTION='my docs' ONLY=negatives`"):
        table("negatives", changed)


def test_a_notebook_shows_nothing_of_stale_or_missing_results_but_a_sentence(small, untrained, capsys):
    assert results("negatives", small).empty
    assert capsys.readouterr().out.startswith("Skipped: `make evidence ")
    make(small, all_pieces(small), "negatives/random", say=lambda line: None)
    assert len(results("negatives", small)) == 1
    assert capsys.readouterr().out == ""
    changed = dataclasses.replace(small, corpus={**small.corpus, "d79": "something else"})
    assert results("negatives", changed).empty
    assert re.match(r"Refused: .*is stale.*\n$", capsys.readouterr().out)


def test_an_experiment_that_was_not_run_has_no_results():
    assert results("negatives", Collection("tiny", {"a": "apple"})).empty


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
    assert set(log["name"]) <= {a.name for a in experiments.reranker_attempts()}


def test_the_first_pool_is_what_was_judged_of_the_described_queries_before_other_systems_came(pydocs_collection):
    described, judged = pydocs_collection.split("test/described")
    first = first_pool(pydocs_collection, "test")
    assert set(first) == set(described)
    assert all(first[q].items() <= judged[q].items() for q in first)
    counts = [sum(len(docs) for docs in qrels.values()) for qrels in (first, judged)]
    assert counts[0] < 0.6 * counts[1]
    twos = [sum(grade == 2 for docs in qrels.values() for grade in docs.values()) for qrels in (first, judged)]
    assert 0.5 * twos[1] < twos[0] < twos[1]


def test_a_collection_of_ones_own_has_no_first_pool():
    assert first_pool(Collection("mine", {"a": "apple"}), "test") is None
