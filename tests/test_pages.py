"""Both report pages: a person's text is escaped once, everybody can read tables and figures, nothing is loaded."""

import shutil
import subprocess
import sys
import zipfile

import pytest
from bs4 import BeautifulSoup
from matplotlib.figure import Figure

from helpers.collection.collection import Collection
from helpers.evaluation import report
from helpers.evaluation.measures import record
from helpers.homework import report as homework_report
from helpers.homework.deciding import VERDICTS, Comparison, Verdict
from helpers.store.files import ROOT

NASTY = """<script>alert("1")</script> & 'two' "three" &amp; {{ 4 }}"""
COLLECTION = Collection(
    NASTY.replace("/", "|"),  # the name is a folder's
    {"a": "apple tart", "b": "bread"},
    {"q1": "apple", "q2": "loaf"},
    {"test": {"q1": {"a": 1}, "q2": {"b": 1}}, "dev": {"q1": {"a": 1}}},
    notices=[f"noticed {NASTY}"],
)
RESULT = {
    "collection": COLLECTION.name,
    "summary": f"summary {NASTY}",
    "notices": [f"noticed {NASTY}"],
    "sources": [(f"judged {NASTY}", 1200, f"file {NASTY}")],
    "final": "test",
    "judged": False,
    "trained_on": f"pairs {NASTY}",
    "queue": [{"query": f"searched {NASTY}", "searches": 7, "why": f"why {NASTY}"}],
    "curve": {"100": 0.31, "50": 0.3},
    "gain": {"gain": 0.0123, "low": -0.001, "high": 0.02},
    "start": 0.25,
    "training": {"queries": 100, "size": 100, "seconds": 61.5, "used": True},
    "verdicts": [Verdict(name, name == VERDICTS[-1], f"evidence {name} {NASTY}") for name in VERDICTS],
    "chosen": f"tuned {NASTY}",
    "decision": f"decided {NASTY}",
    "comparisons": [Comparison(f"tuned {NASTY}", "encoder", 0.1, 0.05, 0.15, 0.01, 3, 1, 9, 0.01)],
    "failures": [
        {"query": f"asked {NASTY}", "wanted": f"id {NASTY}", "wanted_text": f"right {NASTY}", "rank": 0}
        | {"came": f"other {NASTY}", "came_text": f"wrong {NASTY}", "lost": True}
    ],
    "failures_on": "synthetic dev",
    "ladder": [
        {"system": f"tuned {NASTY}", "dev": 0.4321, "final": 0.3, "ms": 4.25}
        | {"build": f"built {NASTY}", "upkeep": f"kept {NASTY}"},
        {"system": "BM25", "dev": None, "final": None, "ms": None, "build": "words", "upkeep": ""},
    ],
    "cost": {"encode_seconds": 3.21, "passages_per_second": 1234.5}
    | {"api_usd_index": 0.00001, "api_usd_1000_queries": 0.5},
    "beside": f"beside {NASTY}",
    "enough": f"enough {NASTY} This is a rule of thumb.",
}
NOTHING = {
    "final": None,
    "queue": [],
    "curve": {},
    "gain": None,
    "start": None,
    "training": {"queries": 0, "size": 0, "seconds": None, "used": False},
    "comparisons": [],
    "failures": [],
    "ladder": [],
    "cost": dict.fromkeys(RESULT["cost"], float("nan")),
    "beside": "",
    "enough": "",
}


def notebooks_page() -> str:
    record(COLLECTION, "test", f"tuned {NASTY}", {"q1": {"a": 1.0}}, "02_baselines", ms=1.5)
    figure = Figure(figsize=(1, 1))
    figure.subplots().plot([1, 2])
    findings = report.Findings(COLLECTION, "02_baselines")
    findings.say("decision", f"said {NASTY}")
    findings.show("line", figure, f"caption {NASTY}")
    return report.write_report(COLLECTION).read_text(encoding="utf-8")


def homework_page() -> str:
    for split in ("dev", "test"):
        record(COLLECTION, split, f"tuned {NASTY}", {"q1": {"a": 1.0}}, "homework", ms=1.5)
    return homework_report.write(COLLECTION, RESULT).read_text(encoding="utf-8")


def text_of(element) -> str:
    """The text as it is read, with single spaces."""
    return " ".join(element.get_text().split())


def texts(html: str, name: str) -> list[str]:
    return [text_of(element) for element in BeautifulSoup(html, "html.parser").find_all(name)]


@pytest.mark.parametrize("make", [notebooks_page, homework_page])
def test_a_page_loads_nothing_and_can_be_read_by_everybody(make):
    html = make()
    page = BeautifulSoup(html, "html.parser")
    assert html.startswith("<!doctype html>")
    assert page.html["lang"] == "en"
    assert page.find("meta", {"name": "viewport"})
    assert page.find("meta", {"charset": "utf-8"})
    assert not page.find_all(["script", "link", "iframe"])
    assert not page.find_all(href=True)
    assert page.find_all("img")
    assert all(element["src"].startswith("data:image/png;base64,") for element in page.find_all(src=True))
    assert "url(" not in html
    assert "@import" not in html
    assert all(len(image["alt"]) > 10 for image in page.find_all("img"))
    assert all(head["scope"] == "col" for head in page.find_all("th"))
    assert all(table.parent["class"] == ["scroll"] for table in page.find_all("table"))


@pytest.mark.parametrize("make", [notebooks_page, homework_page])
def test_a_persons_text_is_escaped_once(make):
    html = make()
    assert "<script" not in html
    assert "&amp;lt;" not in html
    page = BeautifulSoup(html, "html.parser")
    assert page.title.get_text() == f"Retrieval on {COLLECTION.name}"
    assert COLLECTION.name in page.h1.get_text()
    assert f"noticed {NASTY}" in text_of(page)
    assert f"tuned {NASTY}" in texts(html, "td")


def test_the_notebooks_page_shows_verdicts_and_captions_as_they_were_given():
    html = notebooks_page()
    image = BeautifulSoup(html, "html.parser").img
    assert texts(html, "li") == [f"said {NASTY}"]
    assert image["alt"] == f"caption {NASTY}"
    assert texts(html, "figcaption") == [f"caption {NASTY}"]


def test_the_homeworks_page_shows_everything_that_was_gathered():
    html = homework_page()
    page = BeautifulSoup(html, "html.parser")
    assert text_of(page.find(class_="decision")) == f"decided {NASTY}"
    assert text_of(page.find(class_="caution")) == f"evidence collect more data first {NASTY}"
    cells = texts(html, "td")
    for shown in (
        f"evidence do nothing {NASTY}",
        f"judged {NASTY}",
        "1200",
        f"asked {NASTY}",
        f"id {NASTY} (rank over 100): right {NASTY}",
        f"other {NASTY}: wrong {NASTY}",
        f"searched {NASTY}",
        "3.2 s (1,234 a second, chunks counted one by one)",
        f"one query, tuned {NASTY}, on this machine",
        "62 s",
        "less than $0.0001",
        "$0.5000",
    ):
        assert shown in cells
    assert f"Trained on: pairs {NASTY}. enough {NASTY}" in texts(html, "p")
    assert f"tuned {NASTY} against encoder: +0.100 nDCG@10 [+0.050, +0.150], p = 0.010, won 3" in text_of(page)
    assert texts(html, "figcaption")[1].startswith(
        "Twice the data may or may not help: +0.012 nDCG@10 [-0.001, +0.020] on dev by a straight line"
    )
    assert page.find("td", string="1200")["class"] == ["number"]
    assert page.find("th", string="queries")["class"] == ["number"]
    assert page.find("td", string=f"judged {NASTY}")["class"] == ["text"]
    assert [heading for heading in texts(html, "h2") if "Scoreboard" in heading] == [
        "Scoreboard on test (reported)",
        "Scoreboard on dev (what picked the candidates)",
    ]
    assert "model = SentenceTransformer('chosen')\nscores = model.similarity(model.encode_query(\"a question\")" in (
        page.pre.get_text()
    )


def test_the_homeworks_page_says_what_is_missing_where_nothing_was_measured():
    html = homework_report.page(COLLECTION, RESULT | NOTHING)
    assert not BeautifulSoup(html, "html.parser").find_all("figure")
    assert texts(html, "h2") == [
        "What was measured",
        "Would more data help?",
        "Failures to look at",
        "Cost and latency",
        "How to load the model",
    ]
    assert texts(html, "p").count(f"Pairs {NASTY}.") == 2
    assert "nan" not in html


def test_a_wheel_carries_the_templates(tmp_path):
    source = tmp_path / "source"
    shutil.copytree(ROOT / "helpers", source / "helpers", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    build = "from setuptools import build_meta; build_meta.build_wheel('dist')"
    subprocess.run([sys.executable, "-c", build], cwd=source, check=True, capture_output=True)
    (wheel,) = source.glob("dist/*.whl")
    carried = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("helpers/")}
    assert carried == {str(path.relative_to(source)) for path in (source / "helpers").rglob("*") if path.is_file()}
