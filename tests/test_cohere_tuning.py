"""Cohere's reranker fine-tuning over real HTTP, through its own SDK, against a server on this machine."""

import json
import logging
import traceback

import pytest
from fakes import KEY, failure
from werkzeug import Response

from helpers.models.services import cohere_client
from helpers.store.files import WorkbookError
from helpers.training.cohere_tuning import submit
from helpers.training.export import COHERE_QUERIES, write_cohere
from helpers.training.triplets import Triplet

CORPUS = {f"d{i}": f"passage number {i}: ünïcödé 漢字" for i in range(COHERE_QUERIES + 5)}
TRIPLETS = [
    Triplet(f"q{i}", f"query number {i}", f"d{i}", tuple(f"d{i + n}" for n in range(1, 6)))
    for i in range(COHERE_QUERIES)
]
DATASETS, MODELS = "/v1/datasets", "/v1/finetuning/finetuned-models"


class Service:
    """A server that takes files and gives tuned models as Cohere did, unless ``answers`` has another answer for a path.

    ``asked`` holds (path, body) of every request: of a file its query and bytes, of a model the JSON.
    """

    def __init__(self, server):
        self.answers: dict[str, Response] = {}
        self.asked: list[tuple[str, dict]] = []
        self.keys: set[str] = set()
        for path, answer in ((DATASETS, self.file), (MODELS, self.model)):
            server.expect_request(path, method="POST").respond_with_handler(self.handler(path, answer))

    def handler(self, path, answer):
        def handle(request):
            self.keys.add(request.headers.get("Authorization", ""))
            body, says = answer(request)
            self.asked.append((path, body))
            return self.answers.get(path) or Response(json.dumps(says), content_type="application/json")

        return handle

    def file(self, request):
        (sent,) = request.files.values()
        return {**request.args, "file": sent.read()}, {"id": "the-dataset"}

    def model(self, request):
        body = request.get_json()
        return body, {"finetuned_model": {"id": "the-model", "name": body["name"], "settings": body["settings"]}}


@pytest.fixture
def service(httpserver, monkeypatch, naps):
    monkeypatch.setenv("NO_PROXY", "localhost,127.0.0.1")
    monkeypatch.setenv("CO_API_KEY", KEY)
    monkeypatch.setenv("CO_API_URL", httpserver.url_for(""))
    return Service(httpserver)


@pytest.fixture
def path(tmp_path):
    write_cohere(TRIPLETS, CORPUS, tmp_path / "train.jsonl")
    return tmp_path / "train.jsonl"


def test_file_is_uploaded_and_a_reranker_is_asked_for_on_it(service, path):
    assert submit(path, "my-reranker", cohere_client()) == "the-model"
    (first, uploaded), (second, wanted) = service.asked
    assert (first, second) == (DATASETS, MODELS)
    assert uploaded == {"name": "my-reranker", "type": "reranker-finetune-input", "file": path.read_bytes()}
    assert wanted["name"] == "my-reranker"
    assert wanted["settings"]["dataset_id"] == "the-dataset"
    assert wanted["settings"]["base_model"]["base_type"] == "BASE_TYPE_RERANK"
    assert service.keys == {f"Bearer {KEY}"}


GONE = [failure(404), failure(410), failure(400)]


def everything_shown(error) -> str:
    return "".join(traceback.format_exception(error.value))


@pytest.mark.parametrize("where", [DATASETS, MODELS])
@pytest.mark.parametrize("answer", GONE, ids=["404", "410", "400"])
def test_service_that_is_gone_is_said_to_be_retired_in_one_sentence(service, path, caplog, where, answer):
    caplog.set_level(logging.DEBUG)
    service.answers = {where: answer}
    with pytest.raises(WorkbookError, match=r"retired fine-tuning on 15 September 2025.*notebook 07") as error:
        submit(path, "my-reranker", cohere_client())
    assert f"HTTP {answer.status_code}" in str(error.value)
    assert service.asked[-1][0] == where
    assert KEY not in everything_shown(error)
    assert KEY not in caplog.text


def test_what_is_said_of_a_retired_service_is_one_sentence_that_promises_nothing(service, path):
    service.answers = {DATASETS: failure(404)}
    with pytest.raises(WorkbookError) as error:
        submit(path, "my-reranker", cohere_client())
    message = str(error.value)
    assert "run again later" not in message
    assert "is kept" not in message
    assert message.endswith(".")
    assert ". " not in message
    assert "\n" not in message


@pytest.mark.parametrize("where", [DATASETS, MODELS])
@pytest.mark.parametrize(
    "answer",
    [failure(200, "<html>Welcome to nginx</html>", "text/html"), failure(200, "{"), failure(200, "{}"), failure(401)],
    ids=["web page", "cut short", "empty", "wrong key"],
)
def test_any_other_answer_ends_in_a_sentence_without_the_key(service, path, where, answer):
    service.answers = {where: answer}
    with pytest.raises(WorkbookError, match="Cohere") as error:
        submit(path, "my-reranker", cohere_client())
    assert "\n" not in str(error.value)
    assert KEY not in everything_shown(error)


def test_dataset_without_an_id_is_not_trained_on(service, path):
    service.answers = {DATASETS: failure(200, "{}")}
    with pytest.raises(WorkbookError):
        submit(path, "my-reranker", cohere_client())
    assert [asked for asked, _ in service.asked] == [DATASETS]


def test_too_few_queries_are_refused_before_anything_is_uploaded(service, path):
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    path.write_text("".join(lines[:-1]), encoding="utf-8")
    with pytest.raises(WorkbookError, match=r"has 255 queries and Cohere asked for at least 256: collect more\.$"):
        submit(path, "my-reranker", cohere_client())
    assert service.asked == []


def line(**changes) -> str:
    row = {"query": "another query", "relevant_passages": ["this one"], "hard_negatives": ["not this one"]} | changes
    return json.dumps({key: value for key, value in row.items() if value is not None})


@pytest.mark.parametrize(
    ("spoiled", "said"),
    [
        ('{"query": "another', "line 257"),
        (line(relevant_passages=None), "line 257.*'relevant_passages' is missing"),
        (line(extra=1), "line 257.*'extra' is unknown"),
        (line(query=3), "line 257"),
        (line(relevant_passages=[]), "line 257"),
        (line(hard_negatives=["this one"]), "line 257"),
        (line(query="query  number 7"), "line 257: the query of line 8 again"),
    ],
    ids=["cut short", "key missing", "key unknown", "no text", "no passage", "in both lists", "query again"],
)
def test_malformed_file_is_refused_before_anything_is_uploaded(service, path, spoiled, said):
    with path.open("a", encoding="utf-8") as file:
        file.write(spoiled + "\n")
    with pytest.raises(WorkbookError, match=said):
        submit(path, "my-reranker", cohere_client())
    assert service.asked == []


def test_file_that_is_not_there_is_refused_before_anything_is_uploaded(service, tmp_path):
    with pytest.raises(WorkbookError, match=r"train\.jsonl"):
        submit(tmp_path / "train.jsonl", "my-reranker", cohere_client())
    assert service.asked == []


def test_without_a_key_there_is_no_client_and_nothing_is_uploaded(service, monkeypatch):
    monkeypatch.delenv("CO_API_KEY")
    with pytest.raises(WorkbookError, match="CO_API_KEY is not set"):
        cohere_client()
    assert service.asked == []
