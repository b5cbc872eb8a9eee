"""The search log, redaction and the import of existing logs, on a real LanceDB table."""

import gzip
import json
import multiprocessing
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import lancedb
import pyarrow as pa
import pytest

from helpers.labels.log_files import import_log
from helpers.labels.redaction import redact
from helpers.labels.search_log import EVENTS, SCHEMAS, SearchLog, new_session
from helpers.store.files import WorkbookError

NOON = datetime(2026, 11, 2, 12, tzinfo=UTC)
SHOWN = {"d2": 0.9, "d1": 0.5}


def log_search(log, query="join two tables", **given) -> str:
    return log.search(query, SHOWN, **{"system": "BM25", "session": "s1", "time": NOON} | given)


def row(search_id, **given) -> dict:
    return {"search_id": search_id, "time": NOON, "session": "s", "system": "x", "query": "q", "doc_ids": ["d"]} | given


# The log


def test_a_search_and_its_events_come_back_field_by_field(tmp_path):
    log = SearchLog(tmp_path / "log")
    first = log_search(log)
    log.event(first, "clicked", "d1", time=NOON + timedelta(seconds=9))
    log.event(first, "thumbs_down", detail="too old", time=NOON + timedelta(seconds=5))
    assert log.searches().to_dict("records") == [
        {
            "search_id": first,
            "time": NOON,
            "session": "s1",
            "system": "BM25",
            "query": "join two tables",
            "doc_ids": ["d2", "d1"],
            "scores": [0.9, 0.5],
            "source": "live",
        }
    ]
    events = log.events()
    assert events["kind"].tolist() == ["thumbs_down", "clicked"]
    assert events["doc_id"].isna().tolist() == [True, False]
    assert events["detail"].fillna("").tolist() == ["too old", ""]
    assert events["time"].iloc[0] == NOON + timedelta(seconds=5)


def test_an_empty_log_has_its_columns(tmp_path):
    log = SearchLog(tmp_path)
    assert list(log.searches().columns) == SCHEMAS["searches"].names
    assert list(log.events().columns) == SCHEMAS["events"].names
    assert len(log.searches()) == len(log.events()) == 0


def test_nothing_is_written_before_the_log_is_used(tmp_path):
    SearchLog(tmp_path / "log")
    assert not (tmp_path / "log").exists()


def test_rows_are_sorted_by_time_and_then_id(tmp_path):
    log = SearchLog(tmp_path)
    log.add([row("b"), row("c", time=NOON - timedelta(days=1)), row("a")])
    assert log.searches()["search_id"].tolist() == ["c", "a", "b"]


def test_times_are_kept_in_utc(tmp_path):
    log = SearchLog(tmp_path)
    log_search(log, time=datetime(2026, 11, 2, 13, tzinfo=timezone(timedelta(hours=1))))
    log_search(log, time="2026-11-02T12:00:00")
    log_search(log, time="2026-11-02T07:00:00-05:00")
    assert log.searches()["time"].tolist() == [NOON, NOON, NOON]
    before = datetime.now(UTC)
    log_search(log, time=None)
    assert before <= log.searches()["time"].iloc[-1] <= datetime.now(UTC)


def test_another_writer_is_seen_at_once(tmp_path):
    reader, writer = SearchLog(tmp_path), SearchLog(tmp_path)
    assert len(reader.searches()) == 0
    log_search(writer)
    assert len(reader.searches()) == 1


def test_the_log_has_no_way_to_change_or_remove_a_row():
    public = {name for name in vars(SearchLog) if not name.startswith("_")}
    assert public == {"search", "event", "add", "searches", "events", "compact"}


def test_adding_the_same_rows_again_adds_nothing(tmp_path):
    log = SearchLog(tmp_path)
    searches = [row("a"), row("b")]
    events = [{"search_id": "a", "time": NOON, "kind": kind} for kind in EVENTS]
    assert log.add(searches, events) == 2
    assert log.add(searches, events) == 0
    assert log.add([*searches, row("c")], [*events, {**events[0], "doc_id": "d"}]) == 1
    assert (len(log.searches()), len(log.events())) == (3, len(EVENTS) + 1)


@pytest.mark.parametrize("second", [row("a", doc_ids=["e"]), row("a", system="y")])
def test_one_id_for_two_searches_is_refused(tmp_path, second):
    log = SearchLog(tmp_path)
    log.add([row("a")])
    with pytest.raises(WorkbookError, match="'a' stands for two searches"):
        log.add([second])
    with pytest.raises(WorkbookError, match="'b' stands for two searches"):
        log.add([row("b"), row("b")])
    assert len(log.searches()) == 1


@pytest.mark.parametrize(
    ("searches", "events", "says"),
    [
        ([row("a", user="u")], [], "no field 'user'"),
        ([{"session": "s", "system": "x", "query": "q"}], [], "lacks doc_ids"),
        ([row("a", scores=[1.0, 2.0])], [], "1 passages with 2 scores"),
        ([row("a", source="guessed")], [], "live, simulated, imported"),
        ([row("a", time=datetime(2026, 11, 2))], [], "no time zone"),
        ([row("a", time="yesterday")], [], "'yesterday' is not a time"),
        ([row("a", query=7)], [], "stores text, not int"),
        ([row("a", doc_ids=[7])], [], "does not fit the table searches"),
        ([row("a")], [{"search_id": "a", "kind": "liked"}], "kind 'liked'.* clicked, cited"),
        ([row("a")], [{"search_id": "a", "kind": "clicked", "docid": "d"}], "no field 'docid'"),
        ([row("a")], [{"kind": "clicked"}], "lacks search_id"),
    ],
)
def test_a_wrong_row_is_named_and_nothing_is_stored(tmp_path, searches, events, says):
    log = SearchLog(tmp_path)
    with pytest.raises(WorkbookError, match=says):
        log.add([row("good"), *searches], events)
    assert len(log.searches()) == len(log.events()) == 0


def test_ranked_is_a_dict_of_scores(tmp_path):
    with pytest.raises(WorkbookError, match=r"as Retriever\.search returns"):
        SearchLog(tmp_path).search("q", ["d1"], system="x", session="s")


def test_compact_keeps_every_row_in_fewer_files(tmp_path):
    log = SearchLog(tmp_path)
    for _ in range(6):
        log.event(log_search(log), "clicked", "d1")
    before = log.searches(), log.events()
    assert log.compact() == 2  # one file a table
    assert log.searches().equals(before[0])
    assert log.events().equals(before[1])


def test_a_folder_that_cannot_be_used_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(WorkbookError, match=r"file cannot be read or written"):
        log_search(SearchLog(tmp_path / "file"))


def test_another_table_of_that_name_is_refused(tmp_path):
    lancedb.connect(tmp_path).create_table("searches", pa.table({"x": [1]}))
    with pytest.raises(WorkbookError, match="a folder of its own"):
        log_search(SearchLog(tmp_path))


def test_sessions_are_random():
    assert len({new_session() for _ in range(100)}) == 100


# Several writers


def _write(folders, writer: int, ready) -> None:
    """Opens each log at the same moment as the others, so that all of them want to create it."""
    for folder in folders:
        log = SearchLog(folder)
        ready.wait(60)
        log.event(log.search(f"{writer}", SHOWN, system="x", session="s"), "clicked", "d1")
        log.add([row(f"{writer}-{i}", query=f"{writer}-{i}") for i in range(3)])
        if writer == 0:
            log.compact()


def test_no_row_of_several_processes_is_lost(tmp_path):
    context = multiprocessing.get_context("spawn")
    ready = context.Barrier(3)
    folders = [tmp_path / str(i) for i in range(8)]
    others = [context.Process(target=_write, args=(folders, i, ready)) for i in (1, 2)]
    for other in others:
        other.start()
    _write(folders, 0, ready)
    for other in others:
        other.join(60)
    assert [other.exitcode for other in others] == [0, 0]
    queries = sorted(f"{writer}{i}" for writer in range(3) for i in ("", "-0", "-1", "-2"))
    for folder in folders:
        searches, events = SearchLog(folder).searches(), SearchLog(folder).events()
        assert sorted(searches["query"]) == queries
        assert set(events["search_id"]) == set(searches.loc[searches["query"].str.len() == 1, "search_id"])
        assert len(events) == 3
        assert not list(folder.glob(".*"))  # the tables that lost the race are gone


def test_a_log_that_another_creates_in_the_same_moment_is_used(tmp_path, monkeypatch):
    rename, moments = Path.rename, []

    def another_is_quicker(self, target):
        monkeypatch.setattr(Path, "rename", rename)
        log_search(SearchLog(tmp_path), "theirs")
        moments.append(target)
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", another_is_quicker)
    log = SearchLog(tmp_path)
    log_search(log, "ours")
    assert moments == [tmp_path / "searches.lance"]
    assert sorted(log.searches()["query"]) == ["ours", "theirs"]
    assert not list(tmp_path.glob(".*"))


def test_no_row_is_lost_when_many_threads_create_the_log(tmp_path):
    for attempt in range(5):
        folder = tmp_path / str(attempt)
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda i, f=folder: log_search(SearchLog(f), f"query {i}"), range(16)))
        assert set(SearchLog(folder).searches()["search_id"]) == set(found)


def test_two_may_compact_at_once(tmp_path):
    log = SearchLog(tmp_path)
    for _ in range(20):
        log_search(log)
    with ThreadPoolExecutor(4) as pool:
        assert all(list(pool.map(lambda _: SearchLog(tmp_path).compact(), range(4))))
    assert len(log.searches()) == 20


# Redaction

PERSONAL = {
    "mail anna.maria+x@example.co.uk now": "mail [email] now",
    "<müller@firma.de>, b@x.org": "<[email]>, [email]",
    "call +49 (0)30 1234567 or +1 415-555-2671": "call [phone] or [phone]",
    "+4915112345678": "[phone]",
    "0049 30 1234567": "[phone]",
    "(415) 555-2671, 415-555-2671, 1-800-555-0199.": "[phone], [phone], [phone].",
    "020 7946 0958; 07700 900123; 030/1234567": "[phone]; [phone]; [phone]",
    "01 23 45 67 89 or 01.23.45.67.89": "[phone] or [phone]",
    "tel 555 1234 567, call me on 4155552671": "tel [phone], call me on [phone]",
    "4111 1111 1111 1111 and 378282246310005": "[card] and [card]",
    "5500-0000-0000-0004 exp 12/28": "[card] exp 12/28",
    "4111 1111 1111 1111 123": "[card] 123",
    "DE89 3704 0044 0532 0130 00 please": "[iban] please",
    "GB82WEST12345698765432 EUR 20": "[iban] EUR 20",
    "sk-proj-abc123DEF456ghi789 fails": "[key] fails",
    "ghp_0123456789abcdefghijABCDEFGHIJ012345": "[key]",
    "AKIAIOSFODNN7EXAMPLE": "[key]",
    "xoxb-123456789012-abcdefghij": "[key]",
    "Authorization: Bearer abcdef1234567890": "Authorization: Bearer [key]",
    "api_key=9f86d081884c7d659a2feaa0c55ad015": "api_key=[key]",
    '{"token": "dGhpcyBpcyBhIHNlY3JldDEyMw=="}': '{"token": "[key]"}',
    "password=hunter2 does not work": "password=[key] does not work",
    "-----BEGIN RSA PRIVATE KEY-----\nMIIE": "[key]",
}
HARMLESS = """numpy 1.26.4|2026-11-22|2026-11-22 10:30:00|2026-11-22 2026-11-23|01-02-2026 03:04|shape (1200, 384)|1,200
200000 rows|reshape 256 512 1024|100 200 300 400 500|10 000 000|4155552671|2147483647|9223372036854775807|1700000000000
3.14159265358979|192.168.100.200|127.0.0.1:8080|1e-10|x+12345678|+1 -1|0.15 0.25|01 02 03 04 05 06|0110100110|09:15:30
A@B.T|a@b.sum()|user@host|sort(key=lambda x: x[1])|max_tokens=200000|key error in dict|primary key: id\
|bearer authentication
reset password: the user cannot log in|sk-learn-contrib|550e8400-e29b-41d4-a716-446655440000|phone numbers, 2000000 rows
ISO 8601|4111 1111 1111 1112|DE89 3704 1044 1532 1130 01|978-3-16-148410-0|float64 1234567890123|step_2_token|utf-8"""


@pytest.mark.parametrize(("text", "redacted"), PERSONAL.items())
def test_personal_data_and_secrets_are_taken_out(text, redacted):
    assert redact(text) == redacted
    assert redact(redacted) == redacted


@pytest.mark.parametrize("text", HARMLESS.replace("\n", "|").split("|"))
def test_harmless_figures_and_code_stay(text):
    assert redact(text) == text


def test_query_detail_and_session_are_redacted_before_they_are_stored(tmp_path):
    log = SearchLog(tmp_path)
    for session in ("anna@example.org", "anna@example.org", "bob@example.org"):
        found = log_search(log, "bill of anna@example.org", session=session)
    log.event(found, "thumbs_down", detail="call me: +49 30 1234567")
    log.add([row("a", query="card 4111 1111 1111 1111")], [{"search_id": "a", "kind": "copied", "detail": "b@x.org"}])
    assert set(log.searches()["query"]) == {"bill of [email]", "card [card]"}
    assert set(log.events()["detail"]) == {"call me: [phone]", "[email]"}
    assert log.searches()["session"].nunique() == 3  # Anna's two, Bob's, and "s"
    stored = b"".join(file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())
    assert b"bill of" in stored
    assert not any(secret in stored for secret in (b"example.org", b"1234567", b"4111 1111", b"b@x.org"))


def test_a_hook_of_ones_own_replaces_the_default(tmp_path):
    log = SearchLog(tmp_path, redact=lambda text: text.replace("Anna", "[name]"))
    log_search(log, "orders of Anna")
    assert log.searches()["query"].tolist() == ["orders of [name]"]


@pytest.mark.parametrize(
    ("hook", "says"), [(lambda text: 1 / 0, "failed .ZeroDivisionError"), (lambda text: None, "returned NoneType")]
)
def test_a_broken_hook_stops_the_write(tmp_path, hook, says):
    log = SearchLog(tmp_path, redact=hook)
    for write in (
        lambda: log_search(log),
        lambda: log.event("a", "clicked", detail="note"),
        lambda: log.add([row("a")]),
        lambda: log.add([], [{"search_id": "a", "kind": "clicked", "detail": "note"}]),
    ):
        with pytest.raises(WorkbookError, match=says):
            write()
    assert len(log.searches()) == len(log.events()) == 0


# Existing logs

COLUMNS = {"query": "q", "time": "ts", "session": "user", "results": "docs", "clicked": "click"}
CSV = """q,ts,user,docs,click
join two tables,2026-11-02T12:00:00,u1,d1 d2 d3,d2
"cut, please",2026-11-02T13:00:00+01:00,u1,d4|d5,
sort rows,1793534400,,"[""d 6"", ""d7""]",d 6|d7
"""


def write(tmp_path, name, text):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def test_a_csv_log_is_read_by_its_own_columns(tmp_path):
    log = SearchLog(tmp_path / "log")
    assert import_log(write(tmp_path, "old.csv", CSV), log, COLUMNS) == 3
    searches = log.searches().set_index("query")
    assert searches["doc_ids"].to_dict() == {
        "join two tables": ["d1", "d2", "d3"],
        "cut, please": ["d4", "d5"],
        "sort rows": ["d 6", "d7"],
    }
    # 1793534400 s = 20,758 days and 12 hours after 1970-01-01, which is 2026-11-01 12:00
    assert searches["time"].to_dict() == {
        "join two tables": NOON,
        "cut, please": NOON,
        "sort rows": NOON - timedelta(days=1),
    }
    assert set(searches["source"]) == set(searches["system"]) == {"imported"}
    assert not any(searches["scores"])
    assert searches.loc["join two tables", "session"] == searches.loc["cut, please", "session"] == "u1"
    assert searches.loc["sort rows", "session"] == searches.loc["sort rows", "search_id"]
    clicks = log.events().merge(log.searches()[["search_id", "query"]], on="search_id")
    assert sorted(zip(clicks["query"], clicks["doc_id"], strict=True)) == [
        ("join two tables", "d2"),
        ("sort rows", "d 6"),
        ("sort rows", "d7"),
    ]


def test_a_jsonl_log_with_scores_and_opinions(tmp_path):
    rows = [
        {"text": "a", "hits": ["d1", 2], "s": [2, 1.5], "up": True, "again": "no", "by": "BM25"},
        {"text": "b", "hits": [], "s": None, "up": 0},
    ]
    path = tmp_path / "old.jsonl.gz"
    path.write_bytes(gzip.compress("\n".join(map(json.dumps, rows)).encode()))
    log = SearchLog(tmp_path / "log")
    columns = {
        "query": "text",
        "results": "hits",
        "scores": "s",
        "thumbs_up": "up",
        "reformulated": "again",
        "system": "by",
    }
    assert import_log(path, log, columns) == 2
    first, second = log.searches().to_dict("records")  # without a time: in the order of the file
    assert (first["query"], first["doc_ids"], first["scores"], first["system"]) == (
        "a",
        ["d1", "2"],
        [2.0, 1.5],
        "BM25",
    )
    assert (second["query"], second["doc_ids"], second["scores"]) == ("b", [], [])
    assert log.events()[["search_id", "kind"]].to_numpy().tolist() == [[first["search_id"], "thumbs_up"]]


@pytest.mark.parametrize("columns", [COLUMNS, {"query": "q", "clicked": "click"}], ids=["times", "no times"])
def test_importing_a_file_twice_adds_nothing_twice(tmp_path, columns):
    log = SearchLog(tmp_path / "log")
    path = write(tmp_path, "old.csv", CSV)
    assert import_log(path, log, columns) == 3
    before = log.searches(), log.events()
    assert import_log(path, log, columns) == 0
    assert log.searches().equals(before[0])
    assert log.events().equals(before[1])
    grown = write(tmp_path, "renamed.csv", CSV + "new,2026-11-03,u2,d1,d1\n")
    assert import_log(grown, log, columns) == 1
    assert (len(log.searches()), len(log.events())) == (4, 4)


def test_rows_alike_are_different_searches(tmp_path):
    log = SearchLog(tmp_path / "log")
    path = write(tmp_path, "old.csv", "q\nsame\nsame\n")
    assert import_log(path, log, {"query": "q"}) == 2
    assert import_log(path, log, {"query": "q"}) == 0


def test_an_import_cut_off_before_its_events_is_made_whole(tmp_path, monkeypatch):
    log = SearchLog(tmp_path / "log")
    path = write(tmp_path, "old.csv", CSV)
    append = SearchLog._append

    def only_searches(self, name, rows):
        if name == "events":
            raise KeyboardInterrupt
        append(self, name, rows)

    monkeypatch.setattr(SearchLog, "_append", only_searches)
    with pytest.raises(KeyboardInterrupt):
        import_log(path, log, COLUMNS)
    monkeypatch.undo()
    assert (len(log.searches()), len(log.events())) == (3, 0)
    assert import_log(path, log, COLUMNS) == 0
    assert (len(log.searches()), len(log.events())) == (3, 3)


def test_imported_queries_and_users_are_redacted(tmp_path):
    log = SearchLog(tmp_path / "log")
    import_log(write(tmp_path, "old.csv", "q,user\nbill of a@b.org,a@b.org\n"), log, {"query": "q", "session": "user"})
    found = log.searches().iloc[0]
    assert found["query"] == "bill of [email]"
    assert "@" not in found["session"]


@pytest.mark.parametrize(
    ("name", "text", "columns", "says"),
    [
        (
            "a.csv",
            CSV,
            {"query": "question"},
            r"a\.csv, line 1: missing column 'question' for query \(found q, ts, user",
        ),
        ("a.csv", CSV, {"results": "docs"}, "does not say where the query is"),
        ("a.csv", CSV, {"query": "q", "clicks": "click"}, "'clicks', which the search log does not have: use query"),
        ("a.csv", "q,ts\na,2026-11-02\nb,soon\n", {"query": "q", "time": "ts"}, r"line 3, column 'ts': .*found 'soon'"),
        ("a.csv", "q,ts\na,12\n", {"query": "q", "time": "ts"}, r"line 2, column 'ts': .*found '12'"),
        ("a.csv", 'q\n"two\nlines"\n" "\n', {"query": "q"}, "line 4, column 'q': the query is empty"),
        ("a.csv", "q,d\na,[1\n", {"query": "q", "results": "d"}, r"line 2, column 'd': expected ids, found '\[1'"),
        (
            "a.csv",
            "q,d,s\na,d1 d2,3\n",
            {"query": "q", "results": "d", "scores": "s"},
            "line 2, column 's': 1 scores for 2",
        ),
        ("a.csv", "q,u\na,maybe\n", {"query": "q", "thumbs_up": "u"}, "line 2, column 'u': expected yes or no"),
        ("a.csv", "q,d\na,d1,d2\n", {"query": "q"}, "line 2: more cells"),
        ("a.csv", "q,d\na,d\na\n", {"query": "q"}, "line 3: fewer cells"),
        ("a.csv", 'q\n"a\n', {"query": "q"}, "line 2: broken csv"),
        ("a.csv", "q\n", {"query": "q"}, "has no rows"),
        ("a.txt", "q\na\n", {"query": "q"}, "neither .csv nor .jsonl"),
        ("a.jsonl", '{"q": "a"}\n{"q": \n', {"query": "q"}, "line 2: broken JSON"),
        ("a.jsonl", '{"q": "a"}\n{"x": "b"}\n', {"query": "q"}, "line 2, column 'q': the query is empty"),
        ("a.jsonl", '{"q": "a", "d": {"id": 1}}\n', {"query": "q", "results": "d"}, "line 1, column 'd': expected ids"),
    ],
)
def test_errors_of_an_import_name_file_line_and_column(tmp_path, name, text, columns, says):
    log = SearchLog(tmp_path / "log")
    with pytest.raises(WorkbookError, match=says):
        import_log(write(tmp_path, name, text), log, columns)
    assert len(log.searches()) == 0


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(WorkbookError, match=r"gone\.csv cannot be read"):
        import_log(tmp_path / "gone.csv", SearchLog(tmp_path), {"query": "q"})
