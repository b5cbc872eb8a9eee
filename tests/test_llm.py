"""Language models: asked over real HTTP through the openai SDK, or stand-ins; remembered on disk, within a budget."""

import json
import logging
import os
import signal
import socket
import traceback
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, Event
from typing import Literal

import pytest
from fakes import KEY, failure
from pydantic import BaseModel, ConfigDict
from werkzeug import Response

from helpers.models import llm as llm_module
from helpers.models import services, smollm
from helpers.models.llm import LLM, Endpoint, InProcess, Reply, estimate_usd, open_llm, parse, small_llm
from helpers.models.smollm import SmolLM2
from helpers.store.files import WorkbookError

PRICED = "gpt-4.1-mini"  # in data/prices.csv: $0.40 a million tokens in, $1.60 a million out


class Verdict(BaseModel):
    model_config = ConfigDict(extra="forbid")
    reason: str
    grade: Literal[0, 1, 2]


class Line(BaseModel):
    text: str


def says(reason: str = "because", grade: int = 1) -> str:
    return json.dumps({"reason": reason, "grade": grade}, ensure_ascii=False)


def conversations(n: int, start: int = 0) -> list[list[dict[str, str]]]:
    return [
        [{"role": "system", "content": "Judge."}, {"role": "user", "content": f"pair {i}"}]
        for i in range(start, start + n)
    ]


def asked_of(conversation) -> str:
    return conversation[-1]["content"]


class Service:
    """A server that answers as OpenAI's chat does; ``replies`` may name an answer, or a failure, for the last message.

    ``asked`` holds the body of every request that was answered, ``requests`` the number of all requests.
    """

    def __init__(self, server):
        self.failures: list[Response] = []
        self.always: Response | None = None
        self.asked: list[dict] = []
        self.keys: list[str] = []
        self.requests = 0
        self.replies: dict[str, dict | str | Response | None] = {}
        self.usage: dict | None = {"prompt_tokens": 100, "completion_tokens": 80, "total_tokens": 180}
        self.arrived = lambda: None
        for path in ("/v1/chat/completions", "/other/chat/completions"):
            server.expect_request(path, method="POST").respond_with_handler(self.handle)

    def handle(self, request):
        self.requests += 1
        self.arrived()
        self.keys.append(request.headers.get("Authorization", ""))
        failure = self.failures.pop(0) if self.failures else self.always
        if failure is not None:
            return failure
        body = request.get_json()
        told = self.replies.get(asked_of(body["messages"]), says(f"about {asked_of(body['messages'])}"))
        if isinstance(told, Response):
            return told
        self.asked.append(body)
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": told}}
        if isinstance(told, dict):
            choice = {**choice, **told}
        answer = {"id": "1", "object": "chat.completion", "created": 1, "model": body["model"], "choices": [choice]}
        answer |= {"usage": self.usage} if self.usage else {}
        return Response(json.dumps(answer), content_type="application/json")

    def questions(self) -> list[str]:
        return [asked_of(body["messages"]) for body in self.asked]


@pytest.fixture
def service(httpserver, monkeypatch, naps):
    monkeypatch.setenv("NO_PROXY", "localhost,127.0.0.1")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_BASE_URL", httpserver.url_for("/v1"))
    return Service(httpserver)


class Fake:
    """A backend that answers at once; ``asked`` holds what it was asked, a list a batch."""

    def __init__(self, name: str = "fake", batch: int = 4, small: bool = False, usd: float = 0.0):
        self.name, self.key, self.batch, self.small, self.usd = name, f"key of {name}", batch, small, usd
        self.asked: list[list[str]] = []
        self.before = lambda: None

    def answer(self, conversations, schema, keep):
        self.before()
        self.asked.append([asked_of(c) for c in conversations])
        for i, conversation in enumerate(conversations):
            keep(i, Reply(says(f"about {asked_of(conversation)}"), usd=self.usd))

    @property
    def calls(self) -> int:
        return sum(map(len, self.asked))


# What is sent, and what becomes of what comes back


def test_request_holds_the_model_the_messages_and_the_schema(service, tmp_path):
    (asked,) = conversations(1)
    LLM(Endpoint("my-model"), tmp_path).ask([asked], Verdict)
    (body,) = service.asked
    assert body["model"] == "my-model"
    assert body["messages"] == asked
    form = {"name": "Verdict", "schema": Verdict.model_json_schema(), "strict": True}
    assert body["response_format"] == {"type": "json_schema", "json_schema": form}
    assert set(body) == {"model", "messages", "response_format"}
    assert service.keys == [f"Bearer {KEY}"]


def test_only_a_schema_without_extra_fields_is_sent_as_strict(service, tmp_path):
    service.replies = {"pair 0": '{"text": "a line"}'}
    assert LLM(Endpoint("m"), tmp_path).ask(conversations(1), Line) == [Line(text="a line")]
    assert service.asked[0]["response_format"]["json_schema"]["strict"] is False


def test_answers_are_instances_of_the_schema_in_the_order_of_the_conversations(service, tmp_path):
    asked = [*conversations(11), [{"role": "user", "content": "a longer question " * 20}], *conversations(10, 11)]
    llm = LLM(Endpoint("m"), tmp_path)
    assert llm.ask(asked, Verdict) == [Verdict(reason=f"about {asked_of(c)}", grade=1) for c in asked]
    assert service.requests == 22
    assert llm.counts == {"answered": 22}
    assert llm.summary() == "m: 22 asked: 22 answered now."


def test_of_no_conversations_nothing_is_asked_printed_or_written(service, tmp_path, capsys):
    llm = LLM(Endpoint(PRICED), tmp_path, 5, 1.0)
    assert llm.ask([], Verdict) == []
    assert service.requests == 0
    assert capsys.readouterr().out == ""
    assert not llm.answers.file.exists()
    assert llm.summary() == f"{PRICED}: 0 asked: nothing."


FENCED = [
    says("why", 2),
    f"```json\n{says('why', 2)}\n```",
    f"```\n{says('why', 2)}\n```\n",
    f"Here is my judgment:\n\n{says('why', 2)}\n\nI hope it helps.",
    '{\n  "grade": 2,\n  "reason": "why"\n}',
]


@pytest.mark.parametrize("text", FENCED, ids=["plain", "json fence", "fence", "sentence", "indented, other order"])
def test_json_is_found_in_fences_and_sentences(text, service, tmp_path):
    assert parse(text, Verdict) == Verdict(reason="why", grade=2)
    service.replies = {"pair 0": text}
    assert LLM(Endpoint("m"), tmp_path).ask(conversations(1), Verdict) == [Verdict(reason="why", grade=2)]


MALFORMED = ["no JSON", "{", '{"reason": "cut sh', says(grade=3), '{"grade": 1}', "[]", "null", '"1"', "} {", "2"]


@pytest.mark.parametrize("text", [*MALFORMED, '{"reason": "r", "grade": 1, "extra": 1}', '{"reason": "\\ud83d"}'])
def test_what_does_not_fit_the_schema_is_none(text):
    assert parse(text, Verdict) is None


def test_malformed_answers_are_counted_shown_and_none_and_spoil_no_other(service, tmp_path):
    service.replies = {f"pair {i}": text for i, text in enumerate(MALFORMED)}
    llm = LLM(Endpoint("m"), tmp_path)
    answers = llm.ask(conversations(12), Verdict)
    assert answers[:10] == [None] * 10
    assert [a.reason for a in answers[10:]] == ["about pair 10", "about pair 11"]
    assert llm.counts == {"malformed": 10, "answered": 2}
    assert llm.summary() == "m: 12 asked: 2 answered now, 10 malformed."


NOTHING = {
    "empty text": ("", "empty"),
    "blanks": (" \n ", "empty"),
    "null": (None, "empty"),
    "refusal": ({"message": {"role": "assistant", "content": None, "refusal": "I'm sorry."}}, "refused"),
    "content filter": ({"finish_reason": "content_filter"}, "refused"),
    "filter with text": (
        {"finish_reason": "content_filter", "message": {"role": "assistant", "content": "Half of"}},
        "refused",
    ),
}


@pytest.mark.parametrize(("told", "status"), NOTHING.values(), ids=NOTHING)
def test_refusals_and_empty_answers_are_counted_and_none_also_when_read_again(service, tmp_path, told, status):
    service.replies = {"pair 1": told}
    for known in ("answered", "cached"):
        llm = LLM(Endpoint("m"), tmp_path)
        answers = llm.ask(conversations(3), Verdict)
        assert [a is None for a in answers] == [False, True, False]
        assert llm.counts == {known: 2, status: 1}
        assert f"1 {status}" in llm.summary()
    assert service.requests == 3


@pytest.mark.parametrize("choices", ["[]", "[{}]", '[{"message": null}]', '[{"message": {}}]'])
def test_choice_without_a_message_is_an_empty_answer(service, tmp_path, choices):
    service.always = failure(200, f'{{"id": "1", "choices": {choices}, "usage": null}}')
    llm = LLM(Endpoint(PRICED), tmp_path)
    assert llm.ask(conversations(1), Verdict) == [None]
    assert llm.counts == {"empty": 1}


@pytest.mark.parametrize("usage", [None, {"prompt_tokens": 3}, {"prompt_tokens": None, "completion_tokens": None}])
def test_servers_that_do_not_count_tokens_are_understood(service, tmp_path, usage):
    service.usage = usage
    llm = LLM(Endpoint(PRICED), tmp_path)
    assert None not in llm.ask(conversations(2), Verdict)
    assert llm.usd < 1e-5


# Failures


def test_too_many_requests_are_repeated_and_answered(service, tmp_path):
    service.failures = [failure(429, **{"Retry-After": "0"})] * 3
    llm = LLM(Endpoint("m"), tmp_path)
    assert None not in llm.ask(conversations(2), Verdict)
    assert service.requests == 5
    assert llm.calls == 2


def test_the_service_says_how_long_to_wait(service, naps, tmp_path):
    service.failures = [failure(429, **{"Retry-After": "7"})]
    LLM(Endpoint("m"), tmp_path).ask(conversations(1), Verdict)
    assert naps == [7.0]


def test_failing_service_is_asked_again(service, tmp_path):
    service.failures = [failure(500), failure(503), failure(502)]
    assert None not in LLM(Endpoint("m"), tmp_path).ask(conversations(1), Verdict)
    assert service.requests == 4


@pytest.mark.parametrize("status", [429, 500])
def test_service_that_fails_for_ever_is_given_up_and_earlier_batches_are_kept(service, monkeypatch, tmp_path, status):
    monkeypatch.setattr(services, "RETRIES", 1)
    begun, one = Barrier(4, timeout=60), Endpoint._one

    def together(self, conversation, schema):  # of the last batch none is given up before all four have begun
        if service.requests >= 16:
            begun.wait()
        return one(self, conversation, schema)

    monkeypatch.setattr(Endpoint, "_one", together)
    service.arrived = lambda: setattr(service, "always", failure(status) if service.requests > 16 else None)
    with pytest.raises(WorkbookError, match=rf"^The model m .*HTTP {status}.* is kept .*LLM_MODEL\.$") as error:
        LLM(Endpoint("m"), tmp_path).ask(conversations(20), Verdict)
    assert "\n" not in str(error.value)
    assert service.requests == 16 + 4 * 2  # two batches, then four conversations twice each
    service.arrived, service.always = lambda: None, None
    llm = LLM(Endpoint("m"), tmp_path)
    assert None not in llm.ask(conversations(20), Verdict)
    assert llm.counts == {"cached": 16, "answered": 4}
    assert sorted(service.questions()) == sorted(map(asked_of, conversations(20)))


def line_count(file) -> int:
    return sum(bool(line) for line in file.read_bytes().splitlines()) if file.is_file() else 0


@pytest.mark.parametrize("status", [400, 429, 500])
def test_one_that_fails_for_good_costs_the_others_of_its_batch_nothing(service, monkeypatch, tmp_path, status):
    monkeypatch.setattr(services, "RETRIES", 1)
    service.replies = {"pair 3": failure(status)}
    llm = LLM(Endpoint(PRICED), tmp_path)
    with pytest.raises(WorkbookError, match=rf"^The model {PRICED} .*HTTP {status}.* is kept .*LLM_MODEL\.$") as error:
        llm.ask(conversations(12), Verdict)
    assert "\n" not in str(error.value)
    kept = [f"pair {i}" for i in range(8) if i != 3]
    assert sorted(service.questions()) == kept  # the second batch is not begun
    assert llm.calls == 7
    assert llm.usd == pytest.approx(7 * 168e-6)  # 100 tokens in and 80 out each
    service.replies = {}
    again = LLM(Endpoint(PRICED), tmp_path)
    assert None not in again.ask(conversations(8), Verdict)
    assert sorted(service.questions()) == sorted([*kept, "pair 3"])
    assert (again.calls, again.usd) == (1, pytest.approx(168e-6))
    assert again.counts == {"cached": 7, "answered": 1}


def test_an_answer_is_on_disk_while_others_of_its_batch_are_under_way(service, monkeypatch, tmp_path):
    llm, one, seen = LLM(Endpoint(PRICED), tmp_path), Endpoint._one, []

    def last(self, conversation, schema):  # "pair 0" is not answered before the seven others are on disk
        if asked_of(conversation) == "pair 0":
            for _ in range(1000):
                if line_count(llm.answers.file) == 7:
                    break
                Event().wait(0.01)
            seen.append((line_count(llm.answers.file), llm.calls, round(llm.usd / 168e-6)))
        return one(self, conversation, schema)

    monkeypatch.setattr(Endpoint, "_one", last)
    assert None not in llm.ask(conversations(8), Verdict)
    assert seen == [(7, 7, 7)]
    assert (line_count(llm.answers.file), llm.calls) == (8, 8)


def test_answers_under_way_at_a_failure_are_kept(service, monkeypatch, tmp_path):
    service.replies = {"pair 3": failure(400)}
    begun, failed, one = Barrier(8, timeout=60), Event(), Endpoint._one

    def slow(self, conversation, schema):  # all eight have begun when one fails; the others are answered after that
        begun.wait()
        if asked_of(conversation) != "pair 3":
            assert failed.wait(60)
            return one(self, conversation, schema)
        try:
            return one(self, conversation, schema)
        finally:
            failed.set()

    monkeypatch.setattr(Endpoint, "_one", slow)
    llm = LLM(Endpoint("m"), tmp_path)
    with pytest.raises(WorkbookError, match=r"^The model m does not accept the request"):
        llm.ask(conversations(8), Verdict)
    assert (line_count(llm.answers.file), llm.calls, len(service.asked)) == (7, 7, 7)


def test_answers_under_way_at_an_interrupt_are_kept(service, monkeypatch, tmp_path):
    begun, one = Barrier(9, timeout=60), Endpoint._one  # eight requests, and who waits for them

    def slow(self, conversation, schema):
        begun.wait()
        return one(self, conversation, schema)

    def interrupted():
        begun.wait()
        raise KeyboardInterrupt  # as Ctrl-C does to the thread that waits

    class Pool(ThreadPoolExecutor):
        def submit(self, *task):
            future = super().submit(*task)
            future.result = interrupted
            return future

    monkeypatch.setattr(Endpoint, "_one", slow)
    monkeypatch.setattr(llm_module, "ThreadPoolExecutor", Pool)
    llm = LLM(Endpoint("m"), tmp_path)
    with pytest.raises(KeyboardInterrupt):
        llm.ask(conversations(12), Verdict)
    assert len(service.asked) == line_count(llm.answers.file) == llm.calls == 8


@pytest.mark.parametrize(
    ("status", "words"), [(401, "refused the key"), (403, "refused the key"), (404, "know the model"), (400, "accept")]
)
def test_refused_request_is_one_sentence_and_is_not_tried_again(service, tmp_path, status, words):
    service.always = failure(status)
    with pytest.raises(WorkbookError, match=rf"^The model m .*{words}.*HTTP {status}.*OPENAI_API_KEY") as error:
        LLM(Endpoint("m"), tmp_path).ask(conversations(1), Verdict)
    assert "\n" not in str(error.value)
    assert service.requests == 1


@pytest.mark.parametrize(
    "answer",
    [
        failure(200, "<html>Welcome to nginx</html>", "text/html"),
        failure(200, "{"),
        failure(200, "{}"),
        failure(200, '{"error": {"message": "the model is being loaded"}}'),
    ],
    ids=["web page", "cut short", "empty", "error with 200"],
)
def test_answer_that_cannot_be_read_is_one_sentence_and_not_remembered(service, monkeypatch, tmp_path, answer):
    monkeypatch.setattr(services, "RETRIES", 0)
    service.always = answer
    with pytest.raises(WorkbookError, match=r"^The model m .*cannot be read.*OPENAI_BASE_URL") as error:
        LLM(Endpoint("m"), tmp_path).ask(conversations(1), Verdict)
    assert "\n" not in str(error.value)
    service.always = None
    assert None not in LLM(Endpoint("m"), tmp_path).ask(conversations(1), Verdict)


def test_service_that_is_down_is_one_sentence(service, monkeypatch, tmp_path):
    monkeypatch.setattr(services, "RETRIES", 1)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("OPENAI_BASE_URL", f"http://127.0.0.1:{free.getsockname()[1]}/v1")
    with pytest.raises(WorkbookError, match=r"^The model m cannot be reached .*OPENAI_BASE_URL") as error:
        LLM(Endpoint("m"), tmp_path).ask(conversations(2), Verdict)
    assert "\n" not in str(error.value)


TROUBLES = ["none", "refused", "bad request", "busy", "broken", "web page", "line break in key", "dash in key"]


@pytest.mark.parametrize("trouble", TROUBLES)
def test_key_is_in_no_output_error_name_or_file(service, monkeypatch, tmp_path, capfd, caplog, trouble):
    monkeypatch.setattr(services, "RETRIES", 1)
    caplog.set_level(logging.INFO)
    statuses = {"refused": 401, "bad request": 400, "busy": 429, "broken": 500}
    if trouble in statuses:
        service.always = failure(statuses[trouble])
    elif trouble == "web page":
        service.always = failure(200, f"<html>{KEY}</html>", "text/html")
    elif trouble != "none":
        monkeypatch.setenv("OPENAI_API_KEY", KEY + {"line break in key": "\n", "dash in key": "–"}[trouble])
    llm = open_llm(tmp_path)
    told = [llm.name, llm.backend.key, repr(llm), repr(llm.backend)]
    try:
        llm.ask(conversations(3), Verdict)
        assert trouble == "none"
        assert llm.answers.file.is_file()
    except WorkbookError as error:
        assert trouble != "none"
        told += [str(error), repr(error), "".join(traceback.format_exception(error))]
    written = [str(path) + path.read_text() for path in tmp_path.rglob("*") if path.is_file()]
    shown = [*capfd.readouterr(), caplog.text, llm.summary()]
    assert [text for text in shown + told + written if KEY in text] == []


# Memory


def test_what_was_answered_is_not_asked_again_by_the_same_or_another_object(service, tmp_path):
    llm = LLM(Endpoint("m"), tmp_path)
    first = llm.ask(conversations(5), Verdict)
    assert llm.ask(conversations(5), Verdict) == first
    assert llm.summary() == "m: 10 asked: 5 from the cache, 5 answered now."
    again = LLM(Endpoint("m"), tmp_path)
    assert again.ask(conversations(7), Verdict)[:5] == first
    assert service.requests == 7
    assert again.counts == {"cached": 5, "answered": 2}
    assert again.calls == 2


def test_same_conversation_in_one_call_is_asked_once(service, tmp_path):
    (one, two) = conversations(2)
    llm = LLM(Endpoint("m"), tmp_path, max_calls=2)
    answers = llm.ask([one, two, one, one, two], Verdict)
    assert [a.reason for a in answers] == [f"about pair {i}" for i in (0, 1, 0, 0, 1)]
    assert service.requests == 2
    assert llm.calls == 2
    assert llm.counts == {"answered": 5}


class OtherVerdict(Verdict):
    certain: bool


def test_changed_model_address_prompt_role_or_schema_asks_anew(service, monkeypatch, tmp_path, httpserver):
    def ask(model="org/m:1", text="pair 0", role="user", schema=Verdict):
        LLM(Endpoint(model), tmp_path).ask([[{"role": role, "content": text}]], schema)
        return service.requests

    counts = [ask(), ask(), ask(model="org/m:2"), ask(text="pair 0 "), ask(role="system"), ask(schema=OtherVerdict)]
    assert counts == [1, 1, 2, 3, 4, 5]
    assert ask(model="org-m-1") == 6  # the same file name, yet another model
    monkeypatch.setenv("OPENAI_BASE_URL", httpserver.url_for("/other"))
    assert ask() == 7
    monkeypatch.setenv("OPENAI_BASE_URL", httpserver.url_for("/v1"))
    assert ask() == 7
    monkeypatch.setenv("OPENAI_API_KEY", "another key of the same person")
    assert ask() == 7


ODD = ["line\nbreak", "separators \u2028 \u2029 \x85 \x1e", "ünïcödé 漢字 🙂", "half an emoji \ud83d", "", '"quoted"']


def test_texts_of_every_kind_come_back_from_disk_as_they_were(tmp_path):
    class Odd(Fake):
        def answer(self, conversations, schema, keep):
            self.asked.append([])
            for i, conversation in enumerate(conversations):
                keep(i, Reply(ODD[int(asked_of(conversation).split()[1])], "refused"))

    first = LLM(Odd(), tmp_path)
    first.ask(conversations(len(ODD)), Verdict)
    again = LLM(Odd(), tmp_path)
    again.ask(conversations(len(ODD)), Verdict)
    assert again.backend.asked == []
    assert sorted(text for _, text in again.answers.values()) == sorted(ODD)


def stop_at(backend: Fake, batch: int, how) -> None:
    backend.before = lambda: how() if len(backend.asked) == batch else None


def interrupt():
    raise KeyboardInterrupt


def test_interrupted_run_loses_at_most_its_batch(tmp_path):
    backend = Fake(batch=4)
    stop_at(backend, 2, interrupt)
    with pytest.raises(KeyboardInterrupt):
        LLM(backend, tmp_path).ask(conversations(15), Verdict)
    again = LLM(Fake(batch=4), tmp_path)
    assert None not in again.ask(conversations(15), Verdict)
    assert again.counts == {"cached": 8, "answered": 7}
    done = [q for batch in backend.asked + again.backend.asked for q in batch]
    assert sorted(done) == sorted(map(asked_of, conversations(15)))


def test_killed_process_loses_at_most_its_batch(tmp_path):
    child = os.fork()
    if child == 0:
        try:
            backend = Fake(batch=4)
            stop_at(backend, 2, lambda: os.kill(os.getpid(), signal.SIGKILL))
            LLM(backend, tmp_path).ask(conversations(15), Verdict)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL
    again = LLM(Fake(batch=4), tmp_path)
    assert None not in again.ask(conversations(15), Verdict)
    assert again.counts == {"cached": 8, "answered": 7}


@pytest.mark.parametrize("lost", [1, 2, 20, 60])
def test_line_that_a_crash_cut_short_is_asked_again_and_costs_no_other(tmp_path, lost):
    first = LLM(Fake(), tmp_path)
    expected = first.ask(conversations(5), Verdict)
    first.answers.file.write_bytes(first.answers.file.read_bytes()[:-lost])
    for asked in (1, 0):
        again = LLM(Fake(), tmp_path)
        assert again.ask(conversations(5), Verdict) == expected
        assert again.backend.calls == asked


@pytest.mark.parametrize("rubbish", [b'\n["a", ["answered", "caf\xc3', b"\n\xff\xfe\x00\x00", b"\n\n\n", b"\n{"])
def test_rubbish_in_the_file_costs_no_answer(tmp_path, rubbish):
    first = LLM(Fake(), tmp_path)
    first.ask(conversations(2), Verdict)
    with first.answers.file.open("ab") as file:
        file.write(rubbish)
    LLM(Fake(), tmp_path).ask(conversations(4), Verdict)
    again = LLM(Fake(), tmp_path)
    assert None not in again.ask(conversations(4), Verdict)
    assert again.backend.calls == 0


def test_folder_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "llm").write_text("a file where the folder should be")
    with pytest.raises(WorkbookError, match=r"^Cannot write .*free some space and run again\.$"):
        LLM(Fake(), tmp_path).ask(conversations(1), Verdict)


def test_batches_are_full_and_of_like_length(tmp_path):
    asked = [[{"role": "user", "content": "x" * (i * 7 % 10 + 1)}] for i in range(10)]
    backend = Fake(batch=4)
    LLM(backend, tmp_path).ask(asked, Verdict)
    assert [[len(q) for q in batch] for batch in backend.asked] == [[1, 2, 3, 4], [5, 6, 7, 8], [9, 10]]


# Budget


def test_estimate_is_the_tokens_at_the_dated_prices():
    # Two messages of 384 bytes: 384 / 4 + 4 = 100 tokens each, 200 in; 80 tokens out.
    # 200 × $0.40 + 80 × $1.60 = $208 for a million of such calls.
    one = [{"role": "system", "content": "x" * 384}, {"role": "user", "content": "é" * 192}]
    assert estimate_usd(PRICED, [one]) == pytest.approx(208e-6)
    assert estimate_usd(PRICED, [one] * 1000) == pytest.approx(0.208)
    assert estimate_usd(PRICED, [one], answer_tokens=0) == pytest.approx(80e-6)
    assert estimate_usd("no-such-model", [one]) != estimate_usd("no-such-model", [one])  # not a number
    assert estimate_usd(PRICED, []) == 0


def test_calls_stop_at_the_budget_and_go_on_with_a_higher_one(service, tmp_path, capsys):
    llm = LLM(Endpoint("m"), tmp_path, max_calls=10)
    answers = llm.ask(conversations(25), Verdict)
    assert service.requests == 10
    assert [a is None for a in answers] == [False] * 10 + [True] * 15
    assert llm.counts == {"answered": 10, "over budget": 15}
    assert llm.summary() == "m: 25 asked: 10 answered now, 15 over the budget, not asked."
    assert "Stopped at the budget: 15 of 25 calls are not made" in capsys.readouterr().out
    assert llm.ask(conversations(25), Verdict) == answers  # this object has nothing left to spend
    assert service.requests == 10
    assert "Stopped at the budget: 15 of 15" in capsys.readouterr().out
    again = LLM(Endpoint("m"), tmp_path, max_calls=100)
    assert None not in again.ask(conversations(25), Verdict)
    assert service.requests == 25
    assert again.counts == {"cached": 10, "answered": 15}
    assert "Stopped" not in capsys.readouterr().out


@pytest.mark.parametrize("bound", [0, -3])
def test_budget_of_no_calls_asks_nothing(tmp_path, bound):
    llm = LLM(Fake(), tmp_path, max_calls=bound)
    assert llm.ask(conversations(3), Verdict) == [None] * 3
    assert llm.backend.asked == []


def test_budget_is_for_all_that_one_object_asks(tmp_path):
    llm = LLM(Fake(), tmp_path, max_calls=5)
    llm.ask(conversations(3), Verdict)
    answers = llm.ask(conversations(6), Verdict)  # three of them known
    assert [a is None for a in answers] == [False] * 5 + [True]
    assert llm.backend.calls == 5


def dear(n: int) -> list[list[dict[str, str]]]:
    """100 tokens each: with 80 out, 100 × $0.40 + 80 × $1.60 = $168 for a million of such calls."""
    return [[{"role": "user", "content": f"{i:<384}"}] for i in range(n)]


def test_dollars_stop_at_the_budget_and_go_on_with_a_higher_one(service, tmp_path, capsys):
    # Ten calls are estimated at $0.00168; half of that, and a little, is enough for five.
    llm = LLM(Endpoint(PRICED), tmp_path, max_usd=0.00085)
    answers = llm.ask(dear(10), Verdict)
    assert [a is None for a in answers] == [False] * 5 + [True] * 5
    assert service.requests == 5
    assert llm.usd == pytest.approx(5 * 168e-6)  # the service counted 100 and 80 tokens
    assert llm.counts == {"answered": 5, "over budget": 5}
    told = capsys.readouterr().out
    assert f"10 calls to {PRICED}: about $0.00 by data/prices.csv." in told
    assert "Stopped at the budget: 5 of 10 calls are not made; raise LLM_MAX_CALLS or LLM_MAX_USD" in told
    assert llm.summary().endswith("5 answered now, 5 over the budget, not asked; $0.001.")
    assert llm.ask(dear(10), Verdict) == answers  # what is left is less than a call
    again = LLM(Endpoint(PRICED), tmp_path, max_usd=1)
    assert None not in again.ask(dear(10), Verdict)
    assert service.requests == 10
    assert again.usd == pytest.approx(5 * 168e-6)


def test_answers_longer_than_estimated_stop_at_the_budget_too(service, tmp_path, capsys):
    # 24 calls are estimated at $0.00403.
    # They cost 100 × $0.40 + 1,000 × $1.60 = $1,640 a million: a batch of 8, $0.0131.
    service.usage = {"prompt_tokens": 100, "completion_tokens": 1000, "total_tokens": 1100}
    llm = LLM(Endpoint(PRICED), tmp_path, max_usd=0.005)
    assert sum(a is None for a in llm.ask(dear(24), Verdict)) == 16
    assert service.requests == 8
    assert llm.usd == pytest.approx(8 * 1640e-6)
    assert "Stopped at the budget: 16 of 24" in capsys.readouterr().out
    assert llm.counts == {"answered": 8, "over budget": 16}


def test_estimate_is_printed_before_anything_is_asked(tmp_path, capsys):
    backend = Fake(PRICED)
    seen = []
    backend.before = lambda: seen.append(capsys.readouterr().out)
    llm = LLM(backend, tmp_path)
    llm.ask(dear(1_000), Verdict)
    assert seen[0] == f"1,000 calls to {PRICED}: about $0.17 by data/prices.csv.\n"
    llm.ask(dear(1_000), Verdict)
    assert capsys.readouterr().out == ""  # all known: nothing to estimate


@pytest.mark.parametrize(("bound", "asked"), [(float("inf"), 6), (0.0, 0), (-1.0, 0), (float("nan"), 0), (None, 6)])
def test_extreme_budgets_in_dollars(tmp_path, bound, asked):
    llm = LLM(Fake(PRICED), tmp_path, max_usd=bound)
    llm.ask(dear(6), Verdict)
    assert llm.backend.calls == asked


def test_model_without_a_price_is_asked_and_said_to_have_no_bound_in_dollars(tmp_path, capsys):
    llm = LLM(Fake("somebody's model", usd=float("nan")), tmp_path, max_usd=0.01)
    assert None not in llm.ask(conversations(6), Verdict)
    assert "no price in data/prices.csv" in capsys.readouterr().out
    assert llm.usd == 0
    assert llm.summary() == "somebody's model: 6 asked: 6 answered now."


def test_small_model_costs_nothing_and_says_nothing_of_dollars(tmp_path, capsys):
    llm = LLM(Fake("small", small=True), tmp_path, max_usd=0.0)
    assert None not in llm.ask(conversations(6), Verdict)
    assert capsys.readouterr().out == ""


# Which model is asked


@pytest.fixture
def unloaded(monkeypatch):
    monkeypatch.setattr(smollm, "load_small_llm", lambda: pytest.fail("the small model was loaded"))


@pytest.mark.parametrize("setting", ["OPENAI_API_KEY", "OPENAI_BASE_URL", None])
@pytest.mark.parametrize("model", ["my-model", "", None])
def test_model_follows_the_settings_and_empty_ones_are_none(monkeypatch, tmp_path, unloaded, setting, model):
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.setenv(name, "http://127.0.0.1:9/v1" if name == setting else "")
    if model is not None:
        monkeypatch.setenv("LLM_MODEL", model)
    llm = open_llm(tmp_path)
    assert llm.small == (setting is None)
    assert llm.name == (SmolLM2.name if setting is None else model or "gpt-4.1-mini")
    if setting == "OPENAI_API_KEY":
        assert str(llm.backend.client.base_url) == "https://api.openai.com/v1/"


def test_small_llm_is_in_process_whatever_is_set(service, tmp_path, unloaded):
    assert small_llm(tmp_path).small
    assert small_llm(tmp_path).name == "SmolLM2-135M-Instruct"


def test_server_without_a_key_is_asked_without_the_persons_other_settings(service, monkeypatch, tmp_path):
    monkeypatch.delenv("OPENAI_API_KEY")
    monkeypatch.setenv("LLM_MODEL", "local")
    assert None not in open_llm(tmp_path).ask(conversations(1), Verdict)
    assert service.asked[0]["model"] == "local"


@pytest.mark.parametrize("key", [KEY, ""])
@pytest.mark.parametrize("setting", ["LLM_MAX_CALLS", "LLM_MAX_USD"])
@pytest.mark.parametrize("value", ["many", "1,000", "$5", "2.5.1"])
def test_budget_that_is_no_number_is_one_sentence(monkeypatch, tmp_path, key, setting, value):
    monkeypatch.setenv("OPENAI_API_KEY", key)
    monkeypatch.setenv(setting, value)
    with pytest.raises(WorkbookError, match=r"^LLM_MAX_CALLS and LLM_MAX_USD are numbers, such as .* unset them\.$"):
        open_llm(tmp_path)


@pytest.mark.parametrize(
    ("calls", "usd", "given", "bounds"),
    [
        (None, None, {}, (None, 1.0)),
        ("", "", {}, (None, 1.0)),
        ("500", "2.50", {}, (500, 2.5)),
        ("0", "0", {}, (0, 0.0)),
        ("500", "2.50", {"max_calls": 7, "max_usd": 0.1}, (7, 0.1)),
        ("500", "2.50", {"max_calls": 0, "max_usd": 0}, (0, 0)),
    ],
)
def test_budget_is_what_is_given_else_the_settings(monkeypatch, tmp_path, calls, usd, given, bounds):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    for name, value in (("LLM_MAX_CALLS", calls), ("LLM_MAX_USD", usd)):
        if value is not None:
            monkeypatch.setenv(name, value)
    llm = open_llm(tmp_path, **given)
    assert (llm.max_calls, llm.max_usd) == bounds
    monkeypatch.delenv("OPENAI_API_KEY")
    assert open_llm(tmp_path, **given).max_calls == bounds[0]


# The small model in process


class FakeSmall:
    """Stands in for SmolLM2: a line is the question reversed; the likelihood is minus the text's length."""

    name = "fake small"

    def __init__(self):
        self.asked: list[tuple] = []
        self.before = lambda: None

    def answer(self, conversations, schema):
        self.asked += [asked_of(c) for c in conversations]
        return [{"reason": asked_of(c)[::-1].strip(), "grade": len(asked_of(c)) % 3} for c in conversations]

    def log_likelihoods(self, conversations, texts):
        self.before()
        self.asked += [(asked_of(c), t) for c, t in zip(conversations, texts, strict=True)]
        return [-float(len(t)) for t in texts]


def test_in_process_answers_fill_the_schema(tmp_path):
    model = FakeSmall()
    llm = LLM(InProcess(model), tmp_path)
    (answer,) = llm.ask([[{"role": "user", "content": "abcd"}]], Verdict)
    assert answer == Verdict(reason="dcba", grade=1)
    assert (llm.name, llm.small) == ("fake small", True)


def test_in_process_answer_with_an_empty_line_is_counted_as_empty(tmp_path):
    llm = LLM(InProcess(FakeSmall()), tmp_path)
    answers = llm.ask([[{"role": "user", "content": text}] for text in ("", "ab", " ")], Verdict)
    assert [a is None for a in answers] == [True, False, True]
    assert llm.counts == {"empty": 2, "answered": 1}  # a grade of 0 is no empty answer: "ab" has 2, "" has 0


def test_in_process_grade_of_zero_is_an_answer(tmp_path):
    (answer,) = LLM(InProcess(FakeSmall()), tmp_path).ask([[{"role": "user", "content": "abc"}]], Verdict)
    assert answer.grade == 0


@pytest.mark.parametrize("parameter", ["PENALTY", "LINE_TOKENS"])
def test_in_process_answers_belong_to_their_parameters(monkeypatch, tmp_path, parameter):
    before = InProcess(FakeSmall()).key
    assert InProcess(FakeSmall()).key == before
    monkeypatch.setattr(llm_module, parameter, 7)
    assert InProcess(FakeSmall()).key != before


def test_likelihoods_come_in_order_and_each_is_computed_once(tmp_path):
    model = FakeSmall()
    asked = [[{"role": "user", "content": "passage " * (i % 5 + 1)}] for i in range(40)]
    texts = ["q" * (i % 10 + 1) for i in range(40)]
    llm = LLM(InProcess(model), tmp_path)
    expected = [-float(i % 10 + 1) for i in range(40)]
    assert llm.log_likelihoods(asked, texts) == expected
    assert len(model.asked) == len(set(model.asked)) == 10
    again = LLM(InProcess(model), tmp_path)
    assert again.log_likelihoods(asked[::-1], texts[::-1]) == expected[::-1]
    assert len(model.asked) == 10
    again.log_likelihoods(asked[:1], ["another"])
    again.log_likelihoods([[{"role": "user", "content": "another"}]], texts[:1])
    assert len(model.asked) == 12


def test_likelihood_of_a_text_and_an_answer_to_the_same_words_are_different_things(tmp_path):
    llm = LLM(InProcess(FakeSmall()), tmp_path)
    (one,) = conversations(1)
    text = json.dumps(Verdict.model_json_schema(), sort_keys=True)  # all that an answer depends on besides
    assert llm.log_likelihoods([one], [text]) == [-len(text)]
    assert llm.ask([one], Verdict) != [None]
    assert llm.log_likelihoods([one], [text]) == [-len(text)]


def test_interrupted_likelihoods_go_on_where_they_stopped(tmp_path):
    model = FakeSmall()
    model.before = lambda: interrupt() if len(model.asked) >= 32 else None
    asked = conversations(40)
    with pytest.raises(KeyboardInterrupt):
        LLM(InProcess(model), tmp_path).log_likelihoods(asked, ["text"] * 40)
    model.before = lambda: None
    assert LLM(InProcess(model), tmp_path).log_likelihoods(asked, ["text"] * 40) == [-4.0] * 40
    assert len(model.asked) == len(set(model.asked)) == 40


def test_likelihoods_of_nothing_are_nothing(tmp_path):
    assert LLM(InProcess(FakeSmall()), tmp_path).log_likelihoods([], []) == []


def test_services_do_not_give_likelihoods_and_say_so(service, tmp_path):
    with pytest.raises(WorkbookError, match=r"^Services do not give the likelihood of a text: use small_llm"):
        LLM(Endpoint("m"), tmp_path).log_likelihoods(conversations(1), ["text"])
    assert service.requests == 0
