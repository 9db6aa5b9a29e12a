"""Tests of the page: complete, self-contained, safe, and readable without its figures."""

from __future__ import annotations

import json
import re

import pytest

from hwcost.report.page import body, save_page


@pytest.fixture
def page(result, tmp_path):
    path = tmp_path / "index.html"
    save_page(result, path)
    return path.read_text(encoding="utf-8")


def test_the_page_is_well_formed_and_has_every_section(page, read):
    text = " ".join(read(page).text)
    for title in (
        "What this means", "Accuracy against latency", "Checked on the machine", "Can the prediction be trusted?",
        "The roofline of this machine", "Where the time of trial 96 goes", "How this was made",
    ):  # fmt: skip
        assert title in text


def test_the_page_asks_nothing_of_the_network(page, read):
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


def test_every_architecture_and_block_is_in_a_table(page, result, read):
    text = " ".join(read(page).text)
    assert all(w.name in text for w in result.winners)
    assert all(name in text for name in result.best.estimate.by_depth(3))
    assert all(value in text for value in result.environment.values())
    assert all(command in text for command in result.commands)


def test_text_of_the_user_cannot_become_markup(make, read):
    evil = "<script>alert(1)</script>"
    html = body(make(task=evil, environment={evil: evil}, commands=(evil,)))
    assert "<script>alert" not in html
    assert read(html)


def test_many_blocks_are_summed_up(result, monkeypatch):
    assert "smaller blocks" not in body(result)
    monkeypatch.setattr("hwcost.report.page._BLOCKS", 4)
    assert re.search(r"6 smaller blocks take [\d.]+&nbsp;% together", body(result))
