"""The homework on small collections of every kind, cut off and gone on with, and what it leaves behind."""

import html
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fakes import FakeEmbedder, random_texts
from sentence_transformers import SentenceTransformer
from werkzeug import Response

from helpers.collection.collection import open_collection
from helpers.homework import deciding, handover, to_judge, tuning
from helpers.homework import run as homework
from helpers.models.embed import LocalEmbedder
from helpers.models.load import load_encoder, pair_encoder
from helpers.retrieval.first_stages import Dense
from helpers.store.files import ROOT, WorkbookError
from helpers.store.stages import Stages
from helpers.training.triplets import Triplet
from helpers.training.tune import training_set, tuned_encoder

N = 90
WORDS = random_texts(N, seed=3, words=60, length=9)
TEXTS = [f"{text} number {i} of them" for i, text in enumerate(WORDS)]
QUERIES = [" ".join([*text.split()[:3], f"number {i}"]) for i, text in enumerate(WORDS)]


@pytest.fixture
def folder(tiny_folder) -> Path:
    return tiny_folder


@pytest.fixture(autouse=True)
def _tiny(monkeypatch, folder):
    monkeypatch.setenv("ENCODER_MODEL", str(folder))
    monkeypatch.setenv("RERANKER_MODEL", "none")
    monkeypatch.setenv("TQDM_DISABLE", "1")


def beir(
    place: Path, splits: dict[str, range], texts=TEXTS, queries=QUERIES, ids=lambda i: f"d{i}", grade=lambda i: 1
) -> Path:
    (place / "qrels").mkdir(parents=True)
    rows = [json.dumps({"_id": ids(i), "text": text}) for i, text in enumerate(texts)]
    (place / "corpus.jsonl").write_text("\n".join(rows), encoding="utf-8")
    rows = [json.dumps({"_id": f"q{i}", "text": text}) for i, text in enumerate(queries)]
    (place / "queries.jsonl").write_text("\n".join(rows), encoding="utf-8")
    for split, positions in splits.items():
        lines = [f"q{i}\t{ids(i)}\t{grade(i)}" for i in positions]
        (place / "qrels" / f"{split}.tsv").write_text(
            "query-id\tcorpus-id\tscore\n" + "\n".join(lines), encoding="utf-8"
        )
    return place


def run(place, **settings) -> tuple[dict, list[str]]:
    lines: list[str] = []
    settings = {"questions": 0, "say": lines.append} | settings
    return homework.do_homework(place, **settings), lines


def made(lines: list[str]) -> list[str]:
    """The stages that were worked on, by their progress lines."""
    return [m[1].strip() for line in lines if (m := re.match(r"^ *\d+ s  (.+?)  +\d+\.\d s(?:  |$)", line))]


def checked(result: dict) -> str:
    """The page, after what holds for every report."""
    page = Path(result["report"]).read_text(encoding="utf-8")
    assert result["decision"].rstrip(".") in html.unescape(page)
    assert not re.search(r'(?:src|href)="?(?:https?:|//|/)', page)
    assert {v.name for v in result["verdicts"]} == set(deciding.VERDICTS)
    assert any(v.yes for v in result["verdicts"])
    chosen = Path(result["report"]).parent / "chosen"
    assert json.loads((chosen / "search.json").read_text())["system"] == result["chosen"]
    SentenceTransformer(str(chosen), device="cpu")
    return page


def test_a_beir_folder_with_train_and_test(tmp_path):
    place = beir(tmp_path / "both", {"train": range(60), "test": range(60, N)})
    result, lines = run(place)
    page = checked(result)
    board = pd.read_csv(Path(result["report"]).parent / "scoreboard.csv")
    assert {"BM25", "encoder", "hybrid (weighted)", "encoder + adapter", "tuned encoder"} <= set(board["system"])
    assert set(board["split"]) == {"dev", "test"}
    assert set(board[board["split"] == "test"]["n_queries"]) == {30}
    assert result["final"] == "test"
    assert result["judged"]
    assert result["failures_on"] == "dev"
    assert "training on" in "\n".join(lines)
    assert "Scoreboard on test" in page
    assert "RR@10: 1 / rank of the first right one" in page
    assert "$/1000 queries" not in page  # nothing here costs anything
    assert all(line == line.rstrip() for line in lines)
    again, kept = run(place)
    assert made(kept) == []
    assert again["decision"] == result["decision"]


def test_every_rung_is_measured_on_a_beir_folder(tmp_path, folder, monkeypatch):
    another = tmp_path / "another"
    shutil.copytree(folder, another)
    cross = tmp_path / "cross"
    pair_encoder(load_encoder(folder)).save_pretrained(str(cross))
    monkeypatch.setenv("ENCODER_MODEL", os.pathsep.join([str(folder), str(another)]))
    monkeypatch.setenv("RERANKER_MODEL", str(cross))
    place = beir(tmp_path / "all", {"train": range(50), "dev": range(50, 80), "test": range(80, N)})
    result, _ = run(place)
    page = checked(result)
    systems = [rung["system"] for rung in result["ladder"]]
    assert systems[:5] == ["encoder", "BM25", "hybrid (weighted)", "encoder + questions", "another"]
    rungs = {rung["system"]: rung for rung in result["ladder"]}
    assert rungs["encoder"]["build"] == "nothing, it is there"
    assert rungs["encoder + questions"]["build"] == "50 questions and their vectors"
    assert rungs["another"]["build"] == f"new vectors of all {N} passages"
    assert all(rung["ms"] > 0 and rung["final"] is not None for rung in rungs.values())
    assert list((Path(result["report"]).parent / "lancedb").glob("pairs_*.jsonl"))  # the cross-encoder has read dev
    assert "The ladder: what each system costs" in page
    assert rungs["another"]["dev"] == pytest.approx(rungs["encoder"]["dev"])  # it is the same encoder


def test_too_much_to_encode_or_to_read_is_left_out_with_the_setting_that_does_it_all_the_same(tmp_path, monkeypatch):
    place = beir(tmp_path / "big", {"dev": range(50, 80), "test": range(80, N)})
    monkeypatch.setattr("helpers.homework.scores.MOST_READ", 10)
    monkeypatch.delenv("RERANKER_MODEL")
    result, _ = run(place, minutes=0)
    notice = next(n for n in result["notices"] if "cross-encoder" in n)
    assert re.search(
        r"would have to read [\d,]+ pairs, .*RERANKER_MODEL=ms-marco-minilm does it all the same\.$", notice
    )


def test_what_ran_before_does_not_change_what_is_trained_on(tmp_path, monkeypatch):
    place = beir(tmp_path / "both", {"train": range(60), "dev": range(60, 75), "test": range(75, N)})
    few = {"minutes": 0.001}
    monkeypatch.setenv("WORKBOOK_BUILD", str(tmp_path / "alone"))
    alone, _ = run(place, **few)
    assert alone["training"]["size"] < 60
    monkeypatch.setenv("WORKBOOK_BUILD", str(tmp_path / "after"))
    collection = open_collection(place)  # notebook 06 comes first, and trains on all
    base = Dense(LocalEmbedder(load_encoder(), "encoder"), collection.build / "lancedb").index(collection.corpus)
    tuned_encoder(collection, training_set(collection, []), base)
    after, _ = run(place, **few)
    assert plain(after) == plain(alone)
    assert after["training"]["size"] == alone["training"]["size"]


def test_no_minutes_train_nothing_and_less_is_refused(tmp_path):
    place = beir(tmp_path / "both", {"train": range(60), "test": range(60, N)})
    result, _ = run(place, minutes=0)
    checked(result)
    assert result["training"]["size"] == 0
    assert result["trained_on"] == "nothing was tuned, as --minutes 0 asks"
    assert not (Path(result["report"]).parent / "models").exists()
    for minutes in (-1, float("nan"), float("inf")):
        with pytest.raises(WorkbookError, match="is no time to train for"):
            run(place, minutes=minutes)


def test_an_adapter_is_trained_anew_when_any_dev_judgment_changes(tmp_path):
    stages = Stages(tmp_path, lambda line: None)
    corpus = {f"d{i}": text for i, text in enumerate(TEXTS[:40])}
    pairs = [Triplet(f"q{i}", QUERIES[i], f"d{i}") for i in range(36)]
    dev, qrels = {"a": QUERIES[37], "b": QUERIES[38]}, {"a": {"d37": 1}, "b": {"d38": 1}}
    stages.run("adapter", tuning._adapter, pairs, FakeEmbedder(), corpus, dev, qrels)
    stages.run("adapter", tuning._adapter, pairs, FakeEmbedder(), corpus, dev, qrels | {"b": {"d39": 1}})
    assert stages.made == ["adapter", "adapter"]


def test_a_beir_folder_with_test_only_never_trains_on_it(tmp_path):
    result, _ = run(beir(tmp_path / "one", {"test": range(40)}))
    checked(result)
    assert result["final"] == "test"
    assert result["training"]["size"] == 0
    assert any("no dev queries" in notice for notice in result["notices"])
    assert not (Path(result["report"]).parent / "models").exists()


NOUNS = """\
anchor basket candle dragon engine feather garden hammer island jacket kitchen ladder mirror needle orange pencil
quarry ribbon saddle ticket umbrella violin window yogurt zipper bridge castle desert eagle forest guitar helmet\
""".split()


class Service:
    """A server like OpenAI's.

    It writes a question of a passage's words and others, and judges by the words that are shared.
    """

    def __init__(self, server):
        self.asked = 0
        server.expect_request("/v1/chat/completions", method="POST").respond_with_handler(self.handle)

    def handle(self, request):
        body = request.get_json()
        self.asked += 1
        told = body["messages"][-1]["content"]
        if "Passage: " in told:
            query, passage = (part.split() for part in re.match(r"Query: (.*?)\s+Passage: (.*)", told, re.S).groups())
            answer = {"reason": "words", "grade": 2 if query[0] in passage[:1] and query[-1] in passage else 0}
        else:
            passage = told.split("] ", 1)[1].split()
            number = int(next(w for w in passage if w.isdigit()))
            nouns = [NOUNS[number // step % len(NOUNS)] for step in (1, 7, 31)]
            text = f"{nouns[0]} {passage[0]} {nouns[1]} {number} {nouns[2]}"
            answer = {"queries": [{"kind": "keyword", "text": text}]}
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": json.dumps(answer)}}
        return Response(
            json.dumps(
                {"id": "1", "object": "chat.completion", "created": 1, "model": body["model"], "choices": [choice]}
            ),
            content_type="application/json",
        )


@pytest.fixture
def service(httpserver, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "localhost,127.0.0.1")
    monkeypatch.setenv("OPENAI_BASE_URL", httpserver.url_for("/v1"))
    monkeypatch.setenv("LLM_MODEL", "gpt-4.1-nano")
    return Service(httpserver)


def documents(place: Path, n: int) -> Path:
    place.mkdir(parents=True)
    for i in range(n):
        (place / f"page {i}.md").write_text(
            f"# {WORDS[i].title()}\n\n{TEXTS[i]} and more words that follow it here.\n", encoding="utf-8"
        )
    return place


def test_documents_alone_say_what_to_collect(tmp_path):
    result, _ = run(documents(tmp_path / "docs", 20))
    page = checked(result)
    assert result["final"] is None
    assert result["decision"] == "Collect more data first."
    assert "queries.jsonl" in page


@pytest.mark.slow
def test_documents_with_a_language_model_get_questions_to_train_choose_and_rehearse(tmp_path, service, monkeypatch):
    monkeypatch.delenv("ENCODER_MODEL")  # to the untrained one all questions are near-duplicates
    place = documents(tmp_path / "data" / "docs", N)  # beside the build folder, which has Markdown too
    result, _ = run(place, questions=400)
    checked(result)
    assert result["final"] == "test"
    assert not result["judged"]
    assert result["decision"].startswith("Collect more data first")
    assert service.asked == N
    said = {row[0]: row[1] for row in result["sources"]}
    assert said["test questions"] > 5
    assert said["dev questions"] > 5
    assert result["failures_on"] == "synthetic dev"
    assert result["picks"][0] == "hybrid (weighted)"
    assert any("goes to the test unchosen" in notice for notice in result["notices"])
    asked = service.asked
    run(place, questions=400)
    assert service.asked == asked


def test_a_csv_with_a_text_column(tmp_path):
    pd.DataFrame({"nr": range(30), "text": TEXTS[:30]}).to_csv(tmp_path / "table.csv", index=False)
    result, _ = run(tmp_path / "table.csv")
    checked(result)
    assert "30 passages" in result["summary"]


def log_rows(n: int, objects: bool) -> list[dict]:
    """Each search shows its passage second, after another one, and somebody clicked it."""
    shown = [[(i + 7) % N, i, (i + 13) % N] for i in range(n)]
    return [
        {
            "query": QUERIES[i],
            "time": f"2026-11-02T09:{i % 60:02d}:00",
            "session": f"s{i}",
            "clicked": [f"d{i}"],
            "results": [{"id": f"d{j}", "text": TEXTS[j]} for j in docs] if objects else [f"d{j}" for j in docs],
        }
        for i, docs in enumerate(shown)
    ]


def write_log(file: Path, rows: list[dict]) -> Path:
    file.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return file


def test_a_search_log_with_its_passages(tmp_path):
    result, _ = run(write_log(tmp_path / "searches.jsonl", log_rows(N, True)))
    page = checked(result)
    assert result["final"] == "test"
    assert any("favour the system that was logged" in notice for notice in result["notices"])
    assert "From the search log" in page
    assert QUERIES[result_index(result)] in page


def test_clicks_are_no_judgments_until_a_person_has_judged(tmp_path):
    log = write_log(tmp_path / "searches.jsonl", log_rows(N, True))
    result, _ = run(log, minutes=0)
    page = checked(result)
    assert not result["judged"]
    assert result["decision"].startswith("Collect more data first")
    assert "The test labels are clicks" in page
    file = Path(result["report"]).parent / "homework" / "to_judge.csv"
    table = pd.read_csv(file, dtype=str, keep_default_na=False)
    asked = table["query"].nunique()
    assert asked == to_judge.MOST_TO_JUDGE
    table["grade"] = [
        "2" if f"number {q.split()[-1]} " in f"{t} " else "0"
        for q, t in zip(table["query"], table["text"], strict=True)
    ]
    table.to_csv(file, index=False)
    result, _ = run(log, minutes=0)
    assert ["queries with clicks, judged by you", asked, "reviews.jsonl"] in [list(row) for row in result["sources"]]
    assert result["judged"]


def result_index(result: dict) -> int:
    return QUERIES.index(result["queue"][0]["query"])


def test_a_search_log_beside_documents_trains_and_does_not_test(tmp_path):
    place = beir(tmp_path / "both", {"test": range(60, N)})
    log = write_log(tmp_path / "log.jsonl", log_rows(50, False))
    result, _ = run(place, log=log)
    assert {row[0]: row[1] for row in result["sources"]}["test queries with judgments"] == 30
    assert any("50 with a click" in notice for notice in result["notices"])


def test_a_log_without_passages_says_what_is_missing(tmp_path):
    log = write_log(tmp_path / "log.jsonl", log_rows(5, False))
    with pytest.raises(
        WorkbookError,
        match=r"without the passages' texts: put corpus\.jsonl beside it, or run make homework COLLECTION=",
    ):
        run(log)
    with pytest.raises(WorkbookError, match=r"open the collection that was searched"):
        run(documents(tmp_path / "docs", 5), log=log)


def test_ids_of_any_kind_grades_to_four_and_few_queries(tmp_path):
    ids = [str(i) if i % 3 == 0 else f"a/b {i}" if i % 3 == 1 else f"ünï#{i}" for i in range(N)]
    place = beir(tmp_path / "odd", {"all": range(30)}, ids=ids.__getitem__, grade=lambda i: i % 4 + 1)
    result, _ = run(place)
    checked(result)
    assert result["training"]["size"] == 0
    assert "too few" in result["trained_on"]


def test_documents_of_two_words(tmp_path):
    texts = [f"{a} {b}" for a in "red blue green black white".split() for b in "shirt coat hat shoe sock scarf".split()]
    place = beir(
        tmp_path / "labels",
        {"train": range(20), "test": range(20, 30)},
        texts=texts,
        queries=[f"a {t.split()[0]} one, the {t.split()[1]}" for t in texts],
    )
    checked(run(place)[0])


def test_a_single_passage_and_a_single_query(tmp_path):
    checked(run(beir(tmp_path / "one", {"test": range(1)}, texts=TEXTS[:1], queries=QUERIES[:1]))[0])


def test_queries_without_judgments_are_labelled_by_a_judge_that_is_not_yet_trusted(tmp_path, service):
    place = beir(tmp_path / "unjudged", {})
    result, _ = run(place)
    checked(result)
    assert not result["judged"]
    assert any("can be trusted" in notice for notice in result["notices"])
    assert any("labelled by" in row[0] and row[1] > 30 for row in result["sources"])


def test_queries_without_judgments_and_without_a_judge_are_put_into_a_csv_that_counts_when_filled_in(tmp_path):
    place = beir(tmp_path / "unjudged", {}, queries=QUERIES[:40])
    result, _ = run(place)
    assert any("need labels" in notice for notice in result["notices"])
    file = Path(result["report"]).parent / "homework" / "to_judge.csv"
    table = pd.read_csv(file, dtype=str, keep_default_na=False)
    assert list(table.columns) == ["query", "doc", "text", "grade"]
    assert table["query"].nunique() == 40
    table["grade"] = [
        "2" if f"number {q.split()[-1]} " in f"{t} " else "0"
        for q, t in zip(table["query"], table["text"], strict=True)
    ]
    table.to_csv(file, index=False)
    judged = table[table["grade"] == "2"]["query"].nunique()
    result, _ = run(place)
    assert ["queries judged by you", 40, "reviews.jsonl"] in [list(row) for row in result["sources"]]
    assert result["final"] == "test"
    assert 0 < sum(result["n"].values()) < judged
    table.loc[0, "grade"] = "5"
    table.to_csv(file, index=False)
    with pytest.raises(WorkbookError, match="'5' is no grade: write 0, 1 or 2"):
        run(place)


def test_long_passages_are_cut_and_found_by_their_best_chunk(tmp_path):
    long = [f"{TEXTS[i]}. " + " ".join(f"{TEXTS[(i * 7 + j) % N]}." for j in range(12)) for i in range(40)]
    place = beir(tmp_path / "long", {"train": range(32), "test": range(32, 40)}, texts=long, queries=QUERIES[:40])
    result, _ = run(place)
    page = checked(result)
    assert "not the encoder alone" in page
    assert "ranks by its best one" in result["beside"]  # what the loaded model does not do by itself
    assert any("the encoder reads 64 tokens" in notice for notice in result["notices"])
    runs = json.loads(next((Path(result["report"]).parent / "runs").glob("BM25*test.json")).read_text())
    assert {d for docs in runs.values() for d in docs} <= {f"d{i}" for i in range(40)}


def plain(result: dict) -> dict:
    """The result without what a clock decides."""
    kept = {k: v for k, v in result.items() if k not in ("cost", "report", "training")}
    kept["ladder"] = [{k: v for k, v in rung.items() if k not in ("ms", "build")} for rung in result["ladder"]]
    return json.loads(json.dumps(kept, default=str))


def scores(result: dict) -> pd.DataFrame:
    board = pd.read_csv(Path(result["report"]).parent / "scoreboard.csv")
    return board.drop(columns=["ms_per_query"]).sort_values(["system", "split"]).reset_index(drop=True)


class Killed(BaseException):
    pass


@pytest.mark.slow
def test_cut_off_at_three_points_it_ends_the_same_and_repeats_no_finished_work(tmp_path, monkeypatch):
    splits = {"train": range(64), "test": range(64, N)}
    monkeypatch.setenv("WORKBOOK_BUILD", str(tmp_path / "whole"))
    whole, lines = run(beir(tmp_path / "both", splits))
    monkeypatch.setenv("WORKBOOK_BUILD", str(tmp_path / "pieces"))
    worked: list[str] = []
    for point in ("near-duplicates", "training on ", "latency: BM25"):
        seen: list[str] = []

        def say(line: str, seen: list[str] = seen, point: str = point) -> None:
            seen.append(line)
            if point in line and "kept" not in line:
                raise Killed

        with pytest.raises(Killed):
            run(tmp_path / "both", say=say)
        worked += made(seen)
    last, rest = run(tmp_path / "both")
    worked += made(rest)
    assert sorted(worked) == sorted(made(lines))
    assert plain(last) == plain(whole)
    pd.testing.assert_frame_equal(scores(last), scores(whole))


@pytest.mark.slow
def test_killed_by_the_system_in_the_middle_of_a_training_it_goes_on(tmp_path, folder):
    place = beir(tmp_path / "both", {"train": range(64), "test": range(64, N)})
    env = {**os.environ, "PYTHONPATH": str(ROOT), "WORKBOOK_BUILD": str(tmp_path / "build")}
    command = [sys.executable, "-m", "helpers.homework", str(place), "--questions", "0"]
    process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True, stderr=subprocess.DEVNULL)
    before = []
    for line in process.stdout:
        before.append(line.rstrip())
        if "adapter: encoder" in line:
            process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    after = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=True).stdout
    assert not set(made(before)) & set(made(after.splitlines()))
    assert "Decision: " in after
    assert re.search(r"^Report: .*report\.html$", after, re.M)


def test_the_command_line_ends_in_one_sentence(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["homework", str(tmp_path / "nowhere")])
    assert homework.main() == 1
    assert "There is no collection" in capsys.readouterr().err


# What is handed over


def test_the_model_with_an_adapter_gives_the_vectors_that_were_measured(tmp_path, folder):
    from helpers.models.embed import unit

    encoder = SentenceTransformer(str(folder), device="cpu")
    matrix = np.random.default_rng(0).standard_normal((32, 32)).astype(np.float32)
    search = {"key": "1", "system": "encoder + adapter", "decision": "Tune.", "beside": ""}
    handover.hand_over(tmp_path / "chosen", encoder, matrix, search)
    loaded = SentenceTransformer(str(tmp_path / "chosen"), device="cpu")
    expected = unit(unit(encoder.encode_query(QUERIES[:3])) @ matrix)
    np.testing.assert_allclose(loaded.encode_query(QUERIES[:3]), expected, atol=1e-5)
    np.testing.assert_allclose(loaded.encode_document(TEXTS[:3]), unit(encoder.encode_document(TEXTS[:3])), atol=1e-5)


def test_the_three_lines_run(tmp_path, folder, monkeypatch):
    encoder = SentenceTransformer(str(folder), device="cpu")
    handover.hand_over(tmp_path / "chosen", encoder, None, {"key": "1", "system": "x", "decision": "", "beside": ""})
    monkeypatch.chdir(tmp_path)
    names = {"passages": TEXTS[:20]}
    lines = handover.loading("chosen")
    assert all(code.count("\n") == 2 for code in lines.values())
    for code in lines.values():
        exec(code, names)
    assert len(names["hits"]) == 10
    assert names["scores"].shape == (1, 1)


def test_costs_by_hand():
    # 1,000 passages in 50 s; text-embedding-3-small costs 0.02 dollars a million tokens:
    # 500,000 of them 0.01, 1,000 queries of 10 tokens 0.0002
    found = handover.costs(1000, 500_000, 10, 50.0)
    assert found["passages_per_second"] == 20
    assert found["api_usd_index"] == pytest.approx(0.01)
    assert found["api_usd_1000_queries"] == pytest.approx(0.0002)
