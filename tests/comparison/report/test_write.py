"""The files of the report: whole, alike, without network, and safe for any name."""

import re
from html.parser import HTMLParser

import pytest

from lightning_adabelief.comparison.report import write_report
from tests.comparison.synthetic import LONG, make_cases

CASES = {name: case for name, case in make_cases().items() if name not in ("win", "tie", "eight")}
FIGURES = {"differences.svg", "curves.svg", "curves-over-time.svg", "rates.svg"}
SECTIONS = ["Result", "Other metrics of the test", "Curves", "Learning rates", "At equal learning rates", "Beliefs"]


class Page(HTMLParser):
    """Collects an HTML page's visible text, its tags, and those that are not closed."""

    def __init__(self, text):
        super().__init__()
        self.text, self.tags, self.open = "", [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        if tag not in ("meta", "path", "use", "rect"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        if self.open and self.open[-1] == tag:
            self.open.pop()

    def handle_data(self, data):
        if "style" not in self.open and "svg" not in self.open:
            self.text += data


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Write the report of every case."""
    folders = {}
    for name, case in CASES.items():
        folders[name] = tmp_path_factory.mktemp(name)
        write_report(folders[name], case.plan, case.stages, case.outcomes)
    return folders


def read(folders, case, file):
    return (folders[case] / file).read_text(encoding="utf-8")


@pytest.mark.parametrize("case", CASES)
def test_html_is_one_whole_page_without_network_or_script(folders, case):
    text = read(folders, case, "report.html")
    page = Page(text)
    assert page.open == []
    assert not {"script", "link", "img", "iframe"} & set(page.tags)
    assert all(target.startswith("#") for target in re.findall(r'(?:href|src)="([^"]*)"', text))
    assert "@import" not in text and "url(h" not in text


@pytest.mark.parametrize("case", CASES)
def test_markdown_has_the_content_of_html(folders, case):
    html, markdown = Page(read(folders, case, "report.html")), read(folders, case, "report.md")
    words = re.findall(r"[\w.±+-]+", html.text)
    plain = re.sub(r"\\(.)", r"\1", markdown)
    assert [word for word in words if word not in plain] == []
    pictures = set(re.findall(r"\]\((.+?\.svg)\)", markdown))
    assert pictures == {path.name for path in folders[case].glob("*.svg")}
    assert html.tags.count("svg") == len(pictures)


def test_a_finished_comparison_has_every_section_and_figure(folders):
    markdown = read(folders, "loss", "report.md")
    assert re.findall("^## (.+)$", markdown, re.MULTILINE) == [
        *SECTIONS,
        "Failures",
        "What was not equal",
        "Every setting",
    ]
    assert {path.name for path in folders["loss"].glob("*.svg")} == FIGURES


def test_an_unfinished_comparison_shows_what_there_is(folders):
    assert {path.name for path in folders["begun"].glob("*.svg")} == {"rates.svg"}
    assert not list(folders["planned"].glob("*.svg"))
    for case in ("unfinished", "begun", "planned"):
        assert "This comparison is not finished" in read(folders, case, "report.html")
        assert "There is no answer yet" in read(folders, case, "report.html") or case == "unfinished"


def test_names_are_text_and_never_markup(folders):
    html = read(folders, "names", "report.html")
    assert "<b>" not in html and "&lt;b&gt;a | b*" in html and LONG in html
    tables = [line for line in read(folders, "names", "report.md").splitlines() if line.startswith("|")]
    widths = [len(re.findall(r"(?<!\\)\|", line)) for line in tables if "a \\| b\\*" in line]
    assert widths and set(widths) <= {len(re.findall(r"(?<!\\)\|", line)) for line in tables if "| adabelief |" in line}


def test_what_a_crashed_run_printed_is_shown_once(folders):
    html = read(folders, "failures", "report.html")
    assert html.count("RuntimeError: &lt;b&gt;out of memory&lt;/b&gt;") == 1


def test_a_report_is_replaced_by_the_next_one(tmp_path):
    begun, finished = CASES["begun"], CASES["one-seed"]
    write_report(tmp_path, begun.plan, begun.stages, begun.outcomes)
    write_report(tmp_path, finished.plan, finished.stages, finished.outcomes)
    assert "not finished" not in (tmp_path / "report.html").read_text(encoding="utf-8")
    files = {path.name for path in tmp_path.iterdir()}
    assert files == {"report.html", "report.md", "results.csv", "history.csv", *FIGURES}


def test_the_same_comparison_gives_the_same_report(tmp_path, folders):
    case = CASES["one-seed"]
    write_report(tmp_path, case.plan, case.stages, case.outcomes)
    for figure in FIGURES:
        assert (tmp_path / figure).read_bytes() == (folders["one-seed"] / figure).read_bytes()
