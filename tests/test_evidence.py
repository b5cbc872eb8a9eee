"""Committed evidence: bad rows are refused; making it goes on where it stopped; one piece is made again to compare."""

import gzip
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from helpers.collection.collection import Collection
from helpers.store import evidence
from helpers.store.evidence import Piece, as_row, read_evidence, read_run, write_row, write_run
from helpers.store.files import WorkbookError
from helpers.training import evidence_commands, experiments
from helpers.training.evidence_commands import check, expected, head, main, make, picked

KEYS = {("0", 0): "aaaa", ("125", 0): "bbbb", ("125", 1): "cccc"}
REMAKE = "make evidence ONLY=curve"
ROWS = [
    {"name": "0", "seed": 0, "rows": 0, "ndcg@10": 0.1 + 0.2, "small dev": None},
    {"name": "125", "seed": 0, "rows": 125, "ndcg@10": np.float64(1 / 3), "small dev": 0.4},
]


@pytest.fixture
def table(tmp_path):
    """A table of two good rows; the third is not made yet."""
    file = tmp_path / "results" / "curve.csv"
    for row in ROWS:
        write_row(file, as_row(row, KEYS[row["name"], row["seed"]]), KEYS)
    return file


def test_a_table_reads_back_as_it_was_written(table):
    found = read_evidence(table, KEYS, REMAKE)
    assert list(found["name"]) == ["0", "125"]
    assert found["ndcg@10"].tolist() == [0.1 + 0.2, 1 / 3]
    assert found["rows"].tolist() == [0, 125]
    assert found["small dev"].isna().tolist() == [True, False]


def test_a_table_that_is_not_there_or_has_no_row_yet_is_empty(tmp_path):
    assert read_evidence(tmp_path / "none.csv", KEYS, REMAKE).empty
    (tmp_path / "head.csv").write_text("name,seed,key,check\n")
    assert read_evidence(tmp_path / "head.csv", KEYS, REMAKE).empty


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("0.4,bbbb", "0.5,bbbb"),  # a value
        ("125,0,125,", "125,0,126,"),  # a count
        ("0.4,bbbb", ",bbbb"),  # a value taken away
        ("small dev", "large dev"),  # what it says it is
        ("\n0,0,0,", "\n0,1,0,"),  # the seed
        ("125,0,125,", "125,1,125,"),  # one good row passed off as another
        ("bbbb", "cccc"),  # the key
    ],
)
def test_a_row_that_was_edited_by_hand_is_refused_with_the_command_that_makes_it(table, old, new):
    text = table.read_text()
    assert text.count(old) == 1
    table.write_text(text.replace(old, new))
    with pytest.raises(
        WorkbookError, match=r"curve\.csv: the row .* was edited by hand.*`make evidence ONLY=curve`\.$"
    ):
        read_evidence(table, KEYS, REMAKE)


def test_a_cell_too_many_is_an_edit(table):
    table.write_text(table.read_text().rstrip("\n") + ",7\n")
    with pytest.raises(WorkbookError, match="edited by hand"):
        read_evidence(table, KEYS, REMAKE)


def test_a_table_without_keys_is_refused(table):
    pd.DataFrame([{"name": "125", "seed": 0, "ndcg@10": 0.9}]).to_csv(table, index=False)
    with pytest.raises(WorkbookError, match="edited by hand"):
        read_evidence(table, KEYS, REMAKE)


def test_a_stale_row_is_refused_with_the_command_that_makes_it(table):
    with pytest.raises(
        WorkbookError, match=r"'125', seed 0, is stale: .*; make it anew with `make evidence ONLY=curve`\.$"
    ):
        read_evidence(table, KEYS | {("125", 0): "another"}, REMAKE)


def test_a_row_that_belongs_to_no_trial_is_refused(table):
    known = {row: key for row, key in KEYS.items() if row != ("125", 0)}
    with pytest.raises(WorkbookError, match=r"'125', seed 0, belongs to nothing that is measured any more.*ONLY=curve"):
        read_evidence(table, known, REMAKE)


def test_a_row_that_stands_there_twice_is_refused(table):
    table.write_text(table.read_text() + table.read_text().splitlines()[-1] + "\n")
    with pytest.raises(WorkbookError, match="'125', seed 0, stands there twice"):
        read_evidence(table, KEYS, REMAKE)


def test_what_is_no_table_is_said(table):
    table.write_bytes(b"name,seed\n\xff\xfe,0\n")
    with pytest.raises(WorkbookError, match=r"curve\.csv is no table"):
        read_evidence(table, KEYS, REMAKE)


def test_a_file_in_the_workbooks_folder_is_named_from_there_on():
    assert evidence.display_path(evidence.RESULTS / "recipes.csv") == "data/results/recipes.csv"


def test_a_row_takes_the_place_of_its_own_and_leaves_the_others_and_brings_its_columns(table):
    better = {"name": "0", "seed": 0, "rows": 0, "ndcg@10": 0.5, "recall@10": 0.7}
    write_row(table, as_row(better, "aaaa"), KEYS)
    found = read_evidence(table, KEYS, REMAKE)
    assert list(found["name"]) == ["0", "125"]
    assert found["ndcg@10"].tolist() == [0.5, 1 / 3]
    assert found["recall@10"].dropna().tolist() == [0.7]
    assert list(found.columns[-2:]) == ["key", "check"]


def test_writing_a_row_does_not_whitewash_another(table):
    table.write_text(table.read_text().replace("0.4,bbbb", "0.5,bbbb"))
    write_row(table, as_row({"name": "125", "seed": 1}, "cccc"), KEYS)
    with pytest.raises(WorkbookError, match=r"'125', seed 0, was edited"):
        read_evidence(table, KEYS, REMAKE)


def test_writing_a_row_drops_those_that_belong_to_nothing(table):
    known = {("0", 0): "aaaa", ("125", 1): "cccc"}
    write_row(table, as_row({"name": "125", "seed": 1}, "cccc"), known)
    assert list(read_evidence(table, known, REMAKE)["seed"]) == [0, 1]


RUN = {
    "q1": {"b": 0.1 + 0.2, "a": float(np.float32(0.1)), "é\t,\"'": 1e-17},
    "q 2": {},
    "q3": {"a": -3.0},
}


def test_a_run_reads_back_exactly_and_in_order(tmp_path):
    write_run(tmp_path / "runs" / "bm25.tsv.gz", RUN, "k1")
    found = read_run(tmp_path / "runs" / "bm25.tsv.gz", "k1", REMAKE)
    assert found == RUN
    assert [list(docs) for docs in found.values()] == [list(docs) for docs in RUN.values()]
    assert list(found) == list(RUN)


def test_scores_of_numpy_are_kept_as_numbers(tmp_path):
    write_run(tmp_path / "run.tsv.gz", {"q": {"a": np.float32(0.1), "b": 2}}, "k1")
    assert read_run(tmp_path / "run.tsv.gz", "k1", REMAKE) == {"q": {"a": float(np.float32(0.1)), "b": 2.0}}


def test_the_same_run_gives_the_same_bytes_at_any_time_under_any_name(tmp_path, monkeypatch):
    write_run(tmp_path / "one.tsv.gz", RUN, "k1")
    monkeypatch.setattr("time.time", lambda: 1.0)
    write_run(tmp_path / "two.tsv.gz", RUN, "k1")
    assert (tmp_path / "one.tsv.gz").read_bytes() == (tmp_path / "two.tsv.gz").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["one.tsv.gz", "two.tsv.gz"]


def test_a_run_that_is_not_there_is_empty(tmp_path):
    assert read_run(tmp_path / "none.tsv.gz", "k1", REMAKE) == {}


@pytest.mark.parametrize(("old", "new"), [("-3.0", "-2.0"), ("q3\ta", "q3\tb"), ("key=k1", "key=k2"), ("# key", "key")])
def test_a_run_that_was_edited_is_refused(tmp_path, old, new):
    file = tmp_path / "run.tsv.gz"
    write_run(file, RUN, "k1")
    text = gzip.decompress(file.read_bytes()).decode()
    assert text.count(old) == 1
    file.write_bytes(gzip.compress(text.replace(old, new).encode()))
    with pytest.raises(WorkbookError, match=r"run\.tsv\.gz was edited by hand.*`make evidence ONLY=curve`\.$"):
        read_run(file, "k2" if "k2" in new else "k1", REMAKE)


def test_a_stale_or_damaged_run_is_refused(tmp_path):
    file = tmp_path / "run.tsv.gz"
    write_run(file, RUN, "k1")
    with pytest.raises(WorkbookError, match=r"run\.tsv\.gz is stale: .*`make evidence ONLY=curve`\.$"):
        read_run(file, "k2", REMAKE)
    file.write_bytes(file.read_bytes()[:40])
    with pytest.raises(WorkbookError, match=r"run\.tsv\.gz is damaged .*`make evidence ONLY=curve`\.$"):
        read_run(file, "k1", REMAKE)


TINY = Collection("tiny", {"a": "apple"})


class Maker:
    """Six pieces of two tables; ``made`` names those that were worked on, and the ``stop``-th is where it is killed."""

    def __init__(self, stop: int = 0, shift: float = 0.0, quick: bool = True):
        self.made, self.stop, self.shift = [], stop, shift
        ids = [("curve", str(size), seed) for size in (0, 125) for seed in (0, 1)] + [
            ("kinds", "a b", 0),
            ("kinds", "b", 0),
        ]
        self.pieces = [
            Piece(t, n, s, f"key of {t} {n} {s}", lambda i=i: self._make(i), ("ndcg", "recall"), 0.03, quick)
            for i, (t, n, s) in enumerate(ids)
        ]

    def _make(self, i: int) -> dict:
        self.made.append(i)
        if len(self.made) == self.stop:
            raise KeyboardInterrupt
        return {"rows": i, "ndcg": 0.1 * i + self.shift, "recall": 0.5, "seconds": len(self.made)}


def tables(collection: Collection) -> list[Path]:
    return sorted((collection.build / "results").glob("*.csv"))


def results_of(collection: Collection) -> dict[str, str]:
    return {file.name: file.read_text() for file in tables(collection)}


def read(collection: Collection, maker: Maker, table: str) -> pd.DataFrame:
    return read_evidence(collection.build / "results" / f"{table}.csv", expected(maker.pieces, table), REMAKE)


def quiet(line: str) -> None:
    pass


def test_evidence_that_is_cut_off_goes_on_repeats_nothing_and_comes_out_the_same():
    whole, other = Maker(), Collection("other", {"a": "apple"})
    make(other, whole.pieces, say=quiet)
    cut = Maker(stop=3)
    with pytest.raises(KeyboardInterrupt):
        make(TINY, cut.pieces, say=quiet)
    make(TINY, cut.pieces, say=quiet)
    assert cut.made == [0, 1, 2, 2, 3, 4, 5]

    def values(collection):
        found = [read(collection, whole, table) for table in ("curve", "kinds")]
        return [table.drop(columns=["seconds", "check"]).to_dict("records") for table in found]

    assert values(TINY) == values(other)
    assert [len(rows) for rows in values(TINY)] == [4, 2]
    make(TINY, cut.pieces, say=quiet)
    assert len(cut.made) == 7


def test_each_piece_is_told_with_its_time_and_its_value_before_and_now():
    lines = []
    make(TINY, Maker().pieces, "curve/125", lines.append)
    make(TINY, [replace(p, key="newer") for p in Maker(shift=0.25).pieces], "curve/125", lines.append)
    make(TINY, [replace(p, key="newer") for p in Maker().pieces], "curve/125", lines.append)
    assert [" ".join(line.split()) for line in lines[::2]] == [
        "curve/125, seed 0 0 s ndcg none before, 0.2 now",
        "curve/125, seed 0 0 s ndcg 0.2 before, 0.45 now",
        "curve/125, seed 0 kept ndcg 0.45 before, 0.45 now",
    ]


def test_only_what_is_stale_is_made_again():
    make(TINY, Maker().pieces, say=quiet)
    again = Maker(shift=0.25)
    again.pieces[4] = replace(again.pieces[4], key="newer")
    make(TINY, again.pieces, say=quiet)
    assert again.made == [4]
    assert read(TINY, again, "kinds")["ndcg"].tolist() == [0.65, 0.5]


def test_a_committed_table_that_was_spoiled_is_put_right_from_what_is_kept():
    maker = Maker()
    make(TINY, maker.pieces, say=quiet)
    good = results_of(TINY)
    curve, kinds = tables(TINY)
    curve.write_text(good["curve.csv"].replace("125", "126", 1))
    kinds.unlink()
    make(TINY, maker.pieces, say=quiet)
    assert results_of(TINY) == good
    assert len(maker.made) == 6


def test_what_is_kept_is_made_again_when_it_was_edited():
    maker = Maker()
    make(TINY, maker.pieces, say=quiet)
    kept = TINY.build / "evidence" / "kinds.csv"
    kept.write_text(kept.read_text().replace("0.5,0.5", "0.9,0.5"))
    make(TINY, maker.pieces, say=quiet)
    assert maker.made[6:] == [5]
    assert read(TINY, maker, "kinds")["ndcg"].tolist() == [0.4, 0.5]


def test_only_picks_a_table_or_a_part_of_a_name_and_says_what_there_is():
    pieces = Maker().pieces
    assert picked(pieces, "") == pieces
    assert [p.name for p in picked(pieces, "kinds")] == ["a b", "b"]
    assert [p.name for p in picked(pieces, "kinds/a")] == ["a b"]
    assert [p.name for p in picked(pieces, "kinds/b")] == ["b"]  # a whole name is that one alone
    assert [(p.name, p.seed) for p in picked(pieces, "curve/12")] == [("125", 0), ("125", 1)]
    for unknown in ("125", "kind", "kinds/c"):
        with pytest.raises(WorkbookError, match=rf"no evidence '{unknown}': name a table \(curve, kinds\)"):
            picked(pieces, unknown)


def checked(shift: float = 0.0, commit: str = "c0ffee", say=quiet, **changes) -> Maker:
    """Make everything, then check it with makers that give other numbers; the second maker."""
    make(TINY, Maker().pieces, say=quiet)
    second = Maker(shift=shift)
    second.pieces = [replace(piece, **changes) for piece in second.pieces]
    check(TINY, second.pieces, commit, say)
    return second


def test_check_makes_the_one_piece_that_the_commit_chooses():
    commits = [f"{i:040x}" for i in range(60)]
    chosen = [checked(commit=commit).made for commit in commits[:8]]
    assert all(len(made) == 1 for made in chosen)
    assert [checked(commit=commit).made for commit in commits[:8]] == chosen
    assert {checked(commit=commit).made[0] for commit in commits} == set(range(6))


def test_check_takes_none_but_quick_pieces_that_are_committed():
    make(TINY, Maker().pieces, "kinds", say=quiet)
    maker = Maker()
    maker.pieces[4] = replace(maker.pieces[4], quick=False)
    for i in range(12):
        check(TINY, maker.pieces, str(i), quiet)
    assert set(maker.made) == {5}
    with pytest.raises(WorkbookError, match="No committed evidence can be made again in minutes"):
        check(TINY, Maker(quick=False).pieces, "c0ffee", quiet)


@pytest.mark.parametrize("shift", [0.0, 0.029, -0.029])
def test_check_passes_within_the_tolerance_and_shows_both_values(shift):
    lines = []
    i = checked(shift, say=lines.append).made[0]
    assert len(lines) == 1
    assert f"ndcg {0.1 * i} committed, {0.1 * i + shift} now" in lines[0]


@pytest.mark.parametrize(("shift", "tolerance"), [(0.031, 0.03), (-0.031, 0.03), (0.003, 0.002), (float("nan"), 0.03)])
def test_check_fails_outside_of_it_with_a_sentence(shift, tolerance):
    lines = []
    sentence = rf"ndcg is .* when made again and .*\.csv, more than {tolerance} apart; .*`make evidence ONLY=\w+`\.$"
    with pytest.raises(WorkbookError, match=sentence):
        checked(shift, say=lines.append, tolerance=tolerance)
    assert len(lines) == 1


def test_check_looks_at_every_measured_column_and_misses_none_that_is_gone():
    with pytest.raises(WorkbookError, match=r"recall is 0\.60000 when made again and 0\.50000"):
        checked(make=lambda: {"ndcg": 0.0, "recall": 0.6}, measured=("recall",))
    with pytest.raises(WorkbookError, match="mrr is nan"):
        checked(measured=("recall", "mrr"))


def test_check_writes_neither_the_table_nor_what_is_kept():
    make(TINY, Maker().pieces, say=quiet)
    files = {file: file.read_bytes() for file in TINY.build.rglob("*") if file.is_file()}
    checked(0.02)
    assert {file: file.read_bytes() for file in TINY.build.rglob("*") if file.is_file()} == files


def test_check_refuses_a_bad_row_even_where_another_piece_is_chosen():
    make(TINY, Maker().pieces, say=quiet)
    maker = Maker()
    tables(TINY)[0].write_text(results_of(TINY)["curve.csv"].replace("0.5", "0.6", 1))
    for i in range(6):
        with pytest.raises(WorkbookError, match=r"edited by hand.*`make evidence ONLY=curve`"):
            check(TINY, maker.pieces, str(i), quiet)
    assert maker.made == []


@pytest.fixture
def no_pairs(monkeypatch):
    """The commands without the cross-encoder's pairs; what they were called with is returned."""
    called = []
    monkeypatch.setattr(evidence_commands, "make_pairs", lambda collection, say: called.append("make"))
    monkeypatch.setattr(evidence_commands, "check_pairs", lambda collection, commit, say: called.append(commit))
    return called


def test_pairs_are_made_with_all_or_alone_and_are_checked_too(no_pairs, monkeypatch, capsys):
    monkeypatch.setattr(evidence_commands, "open_collection", lambda *name: TINY)
    monkeypatch.setattr(evidence_commands, "all_pieces", lambda collection: Maker().pieces)
    assert (main(["make", "--only", "pairs"]), no_pairs) == (0, ["make"])
    assert capsys.readouterr().out == ""
    assert (main(["make", "--only", "curve"]), no_pairs) == (0, ["make"])
    assert (main(["make"]), no_pairs) == (0, ["make", "make"])
    assert (main(["check", "--commit", "c0ffee"]), no_pairs) == (0, ["make", "make", "c0ffee"])


def test_the_command_line_ends_with_1_and_a_sentence(monkeypatch, capsys, no_pairs):
    monkeypatch.setattr(evidence_commands, "open_collection", lambda *name: TINY)
    monkeypatch.setattr(evidence_commands, "all_pieces", lambda collection: Maker().pieces)
    assert main(["make", "--only", "nothing"]) == 1
    assert "There is no evidence 'nothing'" in capsys.readouterr().err
    assert main(["make"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 6
    assert main(["check"]) == 0
    monkeypatch.setattr(evidence_commands, "all_pieces", lambda collection: Maker(shift=1).pieces)
    assert main(["check", "--commit", "c0ffee"]) == 1
    shown = capsys.readouterr()
    assert "committed, " in shown.out
    assert "more than 0.03 apart" in shown.err


def test_make_that_is_killed_says_that_it_goes_on(monkeypatch, capsys, no_pairs):
    monkeypatch.setattr(evidence_commands, "open_collection", lambda *name: TINY)
    monkeypatch.setattr(evidence_commands, "all_pieces", lambda collection: Maker(stop=3).pieces)
    assert main(["make"]) == 130
    assert "run again to go on" in capsys.readouterr().err
    assert len(results_of(TINY)["curve.csv"].splitlines()) == 1 + 2


def test_check_is_of_the_default_collection_and_make_of_the_chosen_one(monkeypatch, no_pairs):
    asked = []
    monkeypatch.setattr(evidence_commands, "open_collection", lambda *name: asked.append(name) or TINY)
    monkeypatch.setattr(evidence_commands, "all_pieces", lambda collection: Maker().pieces)
    assert (main(["make"]), main(["check"])) == (0, 0)
    assert asked == [(), ("pydocs",)]


def test_the_commit_that_is_checked_out_chooses_unless_another_is_named(monkeypatch, no_pairs):
    asked = []
    monkeypatch.setattr(evidence_commands, "open_collection", lambda *name: TINY)
    monkeypatch.setattr(evidence_commands, "all_pieces", lambda collection: Maker().pieces)
    monkeypatch.setattr(evidence_commands, "check", lambda collection, pieces, commit, say: asked.append(commit))
    monkeypatch.setattr(evidence_commands, "head", lambda: "checked out")
    assert (main(["check"]), main(["check", "--commit", "c0ffee"])) == (0, 0)
    assert asked == ["checked out", "c0ffee"]


def test_without_git_the_data_files_choose(tmp_path, monkeypatch):
    monkeypatch.setattr(evidence_commands, "ROOT", tmp_path)
    monkeypatch.setattr(evidence_commands, "DATA", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    (tmp_path / "a.csv").write_text("1")
    first = head()
    assert head() == first
    (tmp_path / "a.csv").write_text("2")
    assert head() != first


@pytest.fixture(scope="module")
def shared(pydocs_collection):
    """The key that all committed tables share, from the packaged encoder and the default collection."""
    return experiments.shared_key(pydocs_collection)


@pytest.mark.parametrize("name", experiments.EXPERIMENTS)
def test_the_committed_tables_are_good(name, shared):
    file = evidence.RESULTS / f"{name}.csv"
    found = read_evidence(file, experiments.keys(name, shared), f"make evidence ONLY={name}")
    rows = file.read_text(encoding="utf-8").splitlines()[1:]
    assert len(found) == len(rows)


@pytest.mark.parametrize("name", ["learning-curve", "negatives", "recipes"])
def test_a_changed_recipe_makes_the_committed_rows_stale(name, shared, monkeypatch):
    trials = list(experiments.EXPERIMENTS[name]())
    changed = [trial._replace(recipe=replace(trial.recipe, warmup=0.2)) for trial in trials]
    monkeypatch.setitem(experiments.EXPERIMENTS, name, lambda: iter(changed))
    with pytest.raises(
        WorkbookError, match=rf"data/results/{name}\.csv: the row .* is stale.*`make evidence ONLY={name}`"
    ):
        read_evidence(evidence.RESULTS / f"{name}.csv", experiments.keys(name, shared), f"make evidence ONLY={name}")


def test_a_changed_passage_query_or_judgment_makes_every_row_stale(pydocs_collection, shared):
    corpus, queries, dev = pydocs_collection.corpus, pydocs_collection.queries, pydocs_collection.qrels["dev"]
    doc, query = next(iter(corpus)), next(iter(dev))
    passage = replace(pydocs_collection, corpus={**corpus, doc: corpus[doc] + "!"})
    asked = replace(pydocs_collection, queries={**queries, query: queries[query] + "!"})
    graded = {query: {**dev[query], next(iter(dev[query])): 7}}
    judged = replace(pydocs_collection, qrels={**pydocs_collection.qrels, "dev": {**dev, **graded}})
    made = {experiments.shared_key(collection) for collection in (passage, asked, judged)}
    assert len(made | {shared}) == 4
    assert not set(experiments.keys("recipes", shared).values()) & set(
        experiments.keys("recipes", experiments.shared_key(judged)).values()
    )
