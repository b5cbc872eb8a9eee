"""OpenAI and Cohere over real HTTP, through their own SDKs, against a server on this machine."""

import base64
import json
import logging
import socket
import traceback
from types import SimpleNamespace

import numpy as np
import pytest
from fakes import KEY, FakeEmbedder, failure
from werkzeug import Response

from helpers.models import services
from helpers.models.embed import CachedEmbedder
from helpers.models.services import CohereEmbedder, OpenAIEmbedder, keys_set, price, service_embedders
from helpers.retrieval import rerankers
from helpers.retrieval.rerankers import CohereReranker
from helpers.store.files import WorkbookError

WIDTH = 8
FAKE = FakeEmbedder(width=WIDTH)


def vector_of(text: str) -> list[float]:
    """What the server gives for a text: a direction of its own, three units long."""
    return (3 * FAKE._vector(text)).tolist()


class Service:
    """A server that answers as OpenAI and Cohere do, after the failures it was told to begin with.

    ``asked`` holds the body of every request that was answered, ``requests`` the number of all requests.
    """

    def __init__(self, server):
        self.failures: list[Response] = []
        self.always: Response | None = None
        self.asked: list[dict] = []
        self.keys: list[str] = []
        self.requests = 0
        self.width = WIDTH
        self.arrived = lambda: None
        for path, answer in (("/v1/embeddings", self.openai), ("/v2/embed", self.embed), ("/v2/rerank", self.rerank)):
            server.expect_request(path, method="POST").respond_with_handler(self.handler(answer))

    def handler(self, answer):
        def handle(request):
            self.requests += 1
            self.arrived()
            self.keys.append(request.headers.get("Authorization", ""))
            failure = self.failures.pop(0) if self.failures else self.always
            if failure is not None:
                return failure
            self.asked.append(request.get_json())
            return Response(json.dumps(answer(request.get_json())), content_type="application/json")

        return handle

    def openai(self, body):
        def encoded(text):
            vector = np.array(vector_of(text)[: self.width], dtype=np.float32)
            as_bytes = body.get("encoding_format") == "base64"
            return base64.b64encode(vector.tobytes()).decode() if as_bytes else vector.tolist()

        data = [{"object": "embedding", "index": i, "embedding": encoded(t)} for i, t in enumerate(body["input"])]
        usage = {"prompt_tokens": 1, "total_tokens": 1}
        return {"object": "list", "data": data[::-1], "model": body["model"], "usage": usage}

    def embed(self, body):
        vectors = [vector_of(f"{body['input_type']} {text}")[: self.width] for text in body["texts"]]
        return {"id": "1", "embeddings": {"float": vectors}, "texts": body["texts"]}

    def rerank(self, body):
        """The longer a document the better, the best first."""
        order = sorted(range(len(body["documents"])), key=lambda i: -len(body["documents"][i]))
        scores = [{"index": i, "relevance_score": len(body["documents"][i]) / 100} for i in order]
        return {"id": "1", "results": scores}


@pytest.fixture
def service(httpserver, monkeypatch, naps):
    for name in ("OPENAI_EMBEDDING_MODEL", "CO_REQUESTS_PER_MINUTE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "localhost,127.0.0.1")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("CO_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_BASE_URL", httpserver.url_for("/v1"))
    monkeypatch.setenv("CO_API_URL", httpserver.url_for(""))
    return Service(httpserver)


def ask_openai(folder):
    return OpenAIEmbedder("text-embedding-3-small", WIDTH).embed(["one", "two"], "document")


def ask_cohere(folder):
    return CohereEmbedder("embed-v4.0", WIDTH).embed(["one", "two"], "document")


def ask_cohere_to_rerank(folder):
    return CohereReranker(folder).score("?", ["one", "three"])


EVERY_CLIENT = pytest.mark.parametrize(
    ("ask", "setting"),
    [(ask_openai, "OPENAI_API_KEY"), (ask_cohere, "CO_API_KEY"), (ask_cohere_to_rerank, "CO_API_KEY")],
    ids=["openai", "cohere", "cohere rerank"],
)


def test_openai_vectors_come_in_the_order_of_the_texts_with_unit_length(service):
    texts = [f"text {i}" for i in range(20)]
    vectors = OpenAIEmbedder("some-model", WIDTH).embed(texts, "query")
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, FAKE.embed(texts, "query"), atol=1e-6)
    assert [body["model"] for body in service.asked] == ["some-model"]
    assert service.keys == [f"Bearer {KEY}"]


def test_openai_compatible_server_needs_no_key(service, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    assert ask_openai(None).shape == (2, WIDTH)


def test_openai_of_no_texts_asks_nothing(service):
    assert OpenAIEmbedder("m", WIDTH).embed([], "query").shape == (0, WIDTH)
    assert service.requests == 0


@EVERY_CLIENT
def test_too_many_requests_are_repeated_after_the_time_the_service_asks_for(service, naps, tmp_path, ask, setting):
    expected = ask(tmp_path / "before")
    naps.clear()
    service.failures = [failure(429, **{"Retry-After": "7"})]
    np.testing.assert_allclose(ask(tmp_path / "after"), expected)
    assert 7.0 in naps
    assert service.requests == 3


@EVERY_CLIENT
def test_failing_service_is_asked_again(service, tmp_path, ask, setting):
    expected = ask(tmp_path / "before")
    service.failures = [failure(500), failure(503), failure(502)]
    np.testing.assert_allclose(ask(tmp_path / "after"), expected)
    assert service.requests == 5


@EVERY_CLIENT
@pytest.mark.parametrize("status", [429, 500])
def test_service_that_fails_for_ever_is_given_up_with_one_sentence(
    service, monkeypatch, tmp_path, ask, setting, status
):
    monkeypatch.setattr(services, "RETRIES", 1)
    service.always = failure(status)
    with pytest.raises(WorkbookError, match=rf"HTTP {status}.*unset {setting}\.$"):
        ask(tmp_path)
    assert service.requests == 2


@EVERY_CLIENT
@pytest.mark.parametrize("status", [401, 403])
def test_wrong_key_is_one_sentence_with_the_setting_and_is_not_tried_again(service, tmp_path, ask, setting, status):
    service.always = failure(status)
    with pytest.raises(WorkbookError, match=rf"refused the key \(HTTP {status}\): check {setting}") as error:
        ask(tmp_path)
    assert "\n" not in str(error.value)
    assert service.requests == 1


@EVERY_CLIENT
@pytest.mark.parametrize("status", [400, 404])
def test_refused_request_is_one_sentence_and_is_not_tried_again(service, tmp_path, ask, setting, status):
    service.always = failure(status)
    with pytest.raises(WorkbookError, match=f"HTTP {status}"):
        ask(tmp_path)
    assert service.requests == 1


@EVERY_CLIENT
def test_service_that_is_down_is_one_sentence(service, monkeypatch, tmp_path, ask, setting):
    monkeypatch.setattr(services, "RETRIES", 1)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
    monkeypatch.setenv("OPENAI_BASE_URL", f"{address}/v1")
    monkeypatch.setenv("CO_API_URL", address)
    with pytest.raises(WorkbookError, match=f"cannot be reached .* unset {setting}"):
        ask(tmp_path)


NO_ANSWERS = [
    failure(200, "<html>Welcome to nginx</html>", "text/html"),
    failure(200, "{"),
    failure(200, "{}"),
    failure(200, '{"data": [], "embeddings": {}}'),
]


@EVERY_CLIENT
@pytest.mark.parametrize("answer", NO_ANSWERS, ids=["web page", "cut short", "empty", "no vectors"])
def test_answer_that_cannot_be_read_is_one_sentence(service, tmp_path, ask, setting, answer):
    service.always = answer
    with pytest.raises(WorkbookError, match=f"cannot be read .*{setting}"):
        ask(tmp_path)


@EVERY_CLIENT
@pytest.mark.parametrize(
    "trouble", ["refused", "bad request", "busy", "broken", "web page", "down", "line break in key", "dash in key"]
)
def test_key_is_in_no_output_error_or_file(
    service, monkeypatch, tmp_path, capfd, caplog, ask, setting, trouble, httpserver
):
    monkeypatch.setattr(services, "RETRIES", 1)
    caplog.set_level(logging.INFO)
    statuses = {"refused": 401, "bad request": 400, "busy": 429, "broken": 500}
    if trouble in statuses:
        service.always = failure(statuses[trouble])
    elif trouble == "web page":
        service.always = failure(200, f"<html>{KEY}</html>", "text/html")
    elif trouble == "down":
        monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
        monkeypatch.setenv("CO_API_URL", "http://127.0.0.1:9")
    else:
        monkeypatch.setenv(setting, KEY + {"line break in key": "\n", "dash in key": "–"}[trouble])
    with pytest.raises(WorkbookError) as error:
        ask(tmp_path)
    written = [path.read_text() for path in tmp_path.rglob("*") if path.is_file()]
    shown = [*capfd.readouterr(), caplog.text, *written]
    told = [str(error.value), repr(error.value), "".join(traceback.format_exception(error.value))]
    assert [text for text in shown + told if KEY in text] == []


def test_key_is_in_no_file_output_or_name_after_success(service, tmp_path, capfd):
    embedders = [OpenAIEmbedder("m", WIDTH), CohereEmbedder("m", WIDTH)]
    for embedder in embedders:
        CachedEmbedder(embedder, tmp_path).embed(["one", "two"], "document")
    reranker = CohereReranker(tmp_path)
    reranker.score("?", ["one"])
    written = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert len(written) > 2
    assert [data for data in written if KEY.encode() in data] == []
    assert KEY not in "".join(capfd.readouterr()) + "".join(e.name + e.key + repr(e) for e in embedders)
    assert KEY not in reranker.name + repr(reranker)


@pytest.mark.parametrize("ask", [ask_openai, ask_cohere])
@pytest.mark.parametrize("width", [WIDTH - 1, 1])
def test_vectors_of_another_width_are_refused_with_both_widths(service, ask, width):
    service.width = width
    with pytest.raises(WorkbookError, match=rf"width \[{width}\] .* expected width {WIDTH}"):
        ask(None)


def test_openai_takes_at_most_2048_texts_in_a_request(service):
    texts = [f"t{i}" for i in range(2_050)]
    vectors = OpenAIEmbedder("m", WIDTH).embed(texts, "document")
    assert [len(body["input"]) for body in service.asked] == [2_048, 2]
    assert [text for body in service.asked for text in body["input"]] == texts
    np.testing.assert_allclose(vectors[-2:], FAKE.embed(texts[-2:], "document"), atol=1e-6)


def test_openai_requests_stay_below_the_limit_of_tokens(service):
    texts = [f"{i:03}" * 5_000 for i in range(100)]  # a token of digits is up to three of them: 5,000 tokens each
    OpenAIEmbedder("m", WIDTH).embed(texts, "document")
    assert [text for body in service.asked for text in body["input"]] == texts
    assert all(len(body["input"]) * 5_000 <= 300_000 for body in service.asked)


@pytest.mark.parametrize("ask", [ask_openai, ask_cohere])
def test_empty_and_overlong_texts_are_sent_as_the_services_allow(service, ask):
    texts = ["", "x" * 100_000, "é" * 100_000, "a" + "漢字" * 50_000, "a" + "🙂" * 50_000]
    embedder = OpenAIEmbedder("m", WIDTH) if ask is ask_openai else CohereEmbedder("m", WIDTH)
    assert embedder.embed(texts, "document").shape == (5, WIDTH)
    (body,) = service.asked
    sent = body.get("input") or body["texts"]
    assert sent[0] == " "
    for text, cut in zip(texts[1:], sent[1:], strict=True):
        assert text.startswith(cut)
        assert services.MAX_BYTES - 4 < len(cut.encode()) <= services.MAX_BYTES


def test_short_texts_are_sent_unchanged(service):
    texts = ["plain", "ünïcödé 漢字 🙂", " spaces \n and lines "]
    OpenAIEmbedder("m", WIDTH).embed(texts, "document")
    assert service.asked[0]["input"] == texts


def test_openai_embedding_resumes_after_a_failing_request(service, monkeypatch, tmp_path):
    monkeypatch.setattr(services, "RETRIES", 1)
    texts = [f"text number {i}" for i in range(600)]
    service.arrived = lambda: setattr(service, "always", failure(500) if service.requests > 2 else None)
    with pytest.raises(WorkbookError, match="what came back so far is kept"):
        CachedEmbedder(OpenAIEmbedder("m", WIDTH), tmp_path).embed(texts, "document")
    assert sum(len(body["input"]) for body in service.asked) == 512
    service.arrived, service.always = lambda: None, None
    vectors = CachedEmbedder(OpenAIEmbedder("m", WIDTH), tmp_path).embed(texts, "document")
    sent = [text for body in service.asked for text in body["input"]]
    assert sorted(sent) == sorted(texts)
    np.testing.assert_allclose(vectors, FAKE.embed(texts, "document"), atol=1e-6)


def test_openai_cache_belongs_to_one_address_model_and_width(service, monkeypatch):
    keys = {OpenAIEmbedder("m", 8).key, OpenAIEmbedder("other", 8).key, OpenAIEmbedder("m", 16).key}
    before = OpenAIEmbedder("m", 8).key
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    keys.add(OpenAIEmbedder("m", 8).key)
    assert len(keys) == 4
    assert before in keys


@pytest.mark.parametrize(("task", "kind"), [("query", "search_query"), ("document", "search_document")])
def test_cohere_embeds_queries_and_documents_differently(service, task, kind):
    vectors = CohereEmbedder("embed-v4.0", WIDTH).embed(["one", "two"], task)
    np.testing.assert_allclose(vectors, FAKE.embed([f"{kind} one", f"{kind} two"], task), atol=1e-6)
    (body,) = service.asked
    assert (body["input_type"], body["output_dimension"], body["embedding_types"]) == (kind, WIDTH, ["float"])
    assert service.keys == [f"Bearer {KEY}"]


def test_cohere_takes_at_most_96_texts_in_a_request(service):
    texts = [f"t{i}" for i in range(200)]
    vectors = CohereEmbedder("m", WIDTH).embed(texts, "document")
    assert [len(body["texts"]) for body in service.asked] == [96, 96, 8]
    np.testing.assert_allclose(vectors, FAKE.embed([f"search_document {t}" for t in texts], "document"), atol=1e-6)


PASSAGES = ["one", "three", "two", "eleven"]


def test_cohere_scores_come_in_the_order_of_the_passages(service, tmp_path):
    assert CohereReranker(tmp_path).score("?", PASSAGES).tolist() == [0.03, 0.05, 0.03, 0.06]
    (body,) = service.asked
    assert (body["query"], body["documents"], body["model"]) == ("?", PASSAGES, "rerank-v3.5")


def test_cohere_reranker_orders_a_run(service, tmp_path):
    corpus = dict(zip("abcd", PASSAGES, strict=True))
    run = CohereReranker(tmp_path).rerank({"q": "?"}, {"q": dict.fromkeys(corpus, 0.0)}, corpus)
    assert run == {"q": {"d": 0.06, "b": 0.05, "a": 0.03, "c": 0.03}}
    assert list(run["q"]) == ["d", "b", "a", "c"]


def test_cohere_is_asked_nothing_twice(service, tmp_path):
    first = CohereReranker(tmp_path)
    scores = first.score("?", PASSAGES)
    np.testing.assert_array_equal(first.score("?", PASSAGES), scores)
    again = CohereReranker(tmp_path)
    np.testing.assert_array_equal(again.score("?", PASSAGES), scores)
    assert service.requests == 1
    again.score("another", PASSAGES)
    again.score("?", PASSAGES[::-1])
    CohereReranker(tmp_path, "rerank-v4.0").score("?", PASSAGES)
    assert service.requests == 4


def test_cohere_reranking_goes_on_where_it_was_interrupted(service, tmp_path):
    queries = {f"q{i}": f"question {i}" for i in range(5)}
    corpus = dict(zip("abcd", PASSAGES, strict=True))
    run = {q: dict.fromkeys(corpus, 0.0) for q in queries}
    service.arrived = lambda: setattr(service, "always", failure(401) if service.requests > 3 else None)
    with pytest.raises(WorkbookError):
        CohereReranker(tmp_path).rerank(queries, run, corpus)
    service.arrived, service.always = lambda: None, None
    with (tmp_path / "cohere_rerank.jsonl").open("a") as file:
        file.write('\n["a line that a crash cut sh')
    for _ in range(2):
        CohereReranker(tmp_path).rerank(queries, run, corpus)
    assert sorted(body["query"] for body in service.asked) == sorted(queries.values())


class Clock:
    """Time that passes by sleeping, and a little by every request."""

    def __init__(self):
        self.now = 1000.0

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        assert seconds >= 0
        self.now += seconds


@pytest.mark.parametrize(("setting", "per_minute"), [(None, 10), ("", 10), ("30", 30), ("1000", 1000)])
def test_cohere_is_asked_no_more_often_than_a_key_allows(service, monkeypatch, tmp_path, setting, per_minute):
    if setting is not None:
        monkeypatch.setenv("CO_REQUESTS_PER_MINUTE", setting)
    clock, arrivals = Clock(), []
    monkeypatch.setattr(rerankers, "time", SimpleNamespace(monotonic=clock.monotonic, sleep=clock.sleep))

    def arrived():
        arrivals.append(clock.now)
        clock.now += 0.5

    service.arrived = arrived
    reranker = CohereReranker(tmp_path)
    for i in range(6):
        reranker.score(f"question {i}", PASSAGES)
        reranker.score(f"question {i}", PASSAGES)  # known, so it costs neither a request nor time
    assert arrivals[0] == 1000.0
    np.testing.assert_allclose(np.diff(arrivals), max(60 / per_minute, 0.5))


SETTINGS = ("OPENAI_API_KEY", "OPENAI_BASE_URL", "CO_API_KEY")


@pytest.mark.parametrize("present", [(), ("OPENAI_API_KEY",), ("OPENAI_BASE_URL",), ("CO_API_KEY",), SETTINGS])
def test_keys_set_tells_which_are_there_and_never_their_values(monkeypatch, present):
    for name in SETTINGS:
        monkeypatch.setenv(name, KEY) if name in present else monkeypatch.delenv(name, raising=False)
    assert keys_set() == {name: name in present for name in SETTINGS}
    assert KEY not in repr(keys_set())


@pytest.mark.parametrize(
    ("present", "names"),
    [
        ((), []),
        (("OPENAI_API_KEY",), ["text-embedding-3-small"]),
        (("OPENAI_BASE_URL",), ["text-embedding-3-small"]),
        (("CO_API_KEY",), ["embed-v4.0"]),
        (SETTINGS, ["text-embedding-3-small", "embed-v4.0"]),
    ],
)
def test_service_embedders_are_those_whose_keys_are_set(service, monkeypatch, present, names):
    for name in SETTINGS:
        if name not in present:
            monkeypatch.delenv(name)
    assert [embedder.name for embedder in service_embedders()] == names
    assert service.requests == 0


def test_openai_model_may_be_named_by_a_setting(service, monkeypatch):
    monkeypatch.setenv("OPENAI_EMBEDDING_MODEL", "my-model")
    assert service_embedders()[0].name == "my-model"


@pytest.mark.parametrize("make", [OpenAIEmbedder, CohereEmbedder, lambda: CohereReranker("folder")])
def test_without_a_key_making_a_client_says_what_to_set(monkeypatch, make):
    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(WorkbookError, match=r"(OPENAI|CO)_API_KEY .*set"):
        make()


@pytest.mark.parametrize(
    ("model", "column", "dollars"),
    [
        ("text-embedding-3-small", "usd_per_million_input_tokens", 0.02),
        ("rerank-v3.5", "usd_per_1000_searches", 2.0),
        ("rerank-v3.5", "usd_per_million_input_tokens", float("nan")),
        ("no-such-model", "usd_per_million_input_tokens", float("nan")),
    ],
)
def test_price_is_read_from_the_table_and_is_not_a_number_where_unknown(model, column, dollars):
    assert price(model, column) == pytest.approx(dollars, nan_ok=True)


def test_price_of_a_thousand_queries_follows_from_the_table(service):
    # 1,000 queries of 20 tokens are 0.02 million tokens.
    assert OpenAIEmbedder().usd_per_1000_queries == pytest.approx(0.02 * 0.02)
    assert CohereReranker("folder").usd_per_1000_queries == 2.0
