"""Tests of the page: complete, self-contained, safe, and readable without its figures."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import pytest

from hwcost.report.html import document, escape, figure_html, save_figure, save_page, table_html
from hwcost.report.plots import figure
from hwcost.report.sections import body

VOID = {"meta", "br", "hr", "img", "input", "link"}


class Reader(HTMLParser):
    """Checks that tags nest, and collects tags, attributes and visible text."""

    def __init__(self):
        super().__init__()
        self.stack, self.tags, self.attributes, self.text = [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *a) for a in attrs]
        if tag not in VOID:
            self.stack.append(tag)

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag

    def handle_data(self, data):
        if not self.stack or self.stack[-1] not in ("script", "style"):
            self.text.append(data)


@pytest.fixture
def page(result, tmp_path):
    path = tmp_path / "index.html"
    save_page(result, path)
    return path.read_text(encoding="utf-8")


def read(html):
    reader = Reader()
    reader.feed(html)
    reader.close()
    assert reader.stack == []
    return reader


def test_the_page_is_well_formed_and_has_every_section(page):
    text = " ".join(read(page).text)
    for title in (
        "What this means", "Accuracy against latency", "Checked on the machine", "Can the prediction be trusted?",
        "The roofline of this machine", "Where the time of trial 96 goes", "How this was made",
    ):  # fmt: skip
        assert title in text


def test_the_page_asks_nothing_of_the_network(page):
    reader = read(page)
    assert not {"link", "img", "iframe", "object", "embed"} & set(reader.tags)
    assert not [a for a in reader.attributes if a[1] in ("src", "href", "srcset", "action")]
    policy = next(v for t, n, v in reader.attributes if t == "meta" and n == "content" and "default-src" in v)
    assert "default-src 'none'" in policy  # and the browser holds it to that
    assert "connect-src" not in policy
    style = page[page.index("<style>") : page.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style


def test_plotly_stands_in_the_page_once_and_every_figure_has_data(page):
    assert page.count("plotly.js v") == 1
    figures = re.findall(r'<script type="application/json">(.*?)</script>', page, re.DOTALL)
    assert len(figures) == 5
    assert all(json.loads(text)["data"] for text in figures)


def test_every_architecture_and_block_is_in_a_table(page, result):
    text = " ".join(read(page).text)
    assert all(w.name in text for w in result.winners)
    assert all(name in text for name in result.best.estimate.by_depth(3))
    assert all(value in text for value in result.environment.values())
    assert all(command in text for command in result.commands)


def test_text_of_the_user_cannot_become_markup(make):
    evil = "<script>alert(1)</script>"
    html = body(make(task=evil, environment={evil: evil}, commands=(evil,)))
    assert "<script>alert" not in html
    assert read(html)


def test_data_cannot_end_its_script():
    drawn = figure()
    drawn.add_scatter(x=[1], y=[1], name="</script><b>")
    html = figure_html(drawn)
    assert html.count("</script>") == 1
    data = re.search(r'json">(.*)</script>', html, re.DOTALL)
    assert json.loads(data[1])["data"][0]["name"] == "</script><b>"


def test_numbers_stay_with_their_units():
    assert escape("in 25.2 ms, 4 % of 140 GFLOP/s") == "in 25.2&nbsp;ms, 4&nbsp;% of 140&nbsp;GFLOP/s"
    assert escape("60 networks, 5 minutes") == "60 networks, 5 minutes"


def test_numbers_are_aligned_and_one_row_stands_out():
    html = table_html([("name", ["a", "b"]), ("time>", ["1", "2"])], best=1)
    assert html.count('class="n"') == 3  # the head and both cells
    assert re.search(r"<tr class=best><td class=\"name\">b", html)


def test_many_blocks_are_summed_up(result, monkeypatch):
    assert "smaller blocks" not in body(result)
    monkeypatch.setattr("hwcost.report.sections._BLOCKS", 4)
    assert re.search(r"6 smaller blocks take [\d.]+&nbsp;% together", body(result))


def test_a_slot_in_the_text_is_not_filled():
    html = document("{{plotly}}", "<p>{{title}}</p>")
    assert "<title>{{plotly}}</title>" in html
    assert "<p>{{title}}</p>" in html


def test_one_figure_alone(tmp_path):
    path = tmp_path / "plot.html"
    save_figure(figure(), path, "Roofline of <x>", ["a note"])
    text = " ".join(read(path.read_text(encoding="utf-8")).text)
    assert "Roofline of <x>" in text
    assert "a note" in text
