"""Tests of hwcost.report.html: what a user wrote stays text, numbers keep their units, figures keep their data."""

from __future__ import annotations

import json
import re

from hwcost.report.html import document, escape, figure_html, save_figure, table_html
from hwcost.report.style import figure


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


def test_a_slot_in_the_text_is_not_filled():
    html = document("{{plotly}}", "<p>{{title}}</p>")
    assert "<title>{{plotly}}</title>" in html
    assert "<p>{{title}}</p>" in html


def test_one_figure_alone(tmp_path, read):
    path = tmp_path / "plot.html"
    save_figure(figure(), path, "Roofline of <x>", ["a note"])
    text = " ".join(read(path.read_text(encoding="utf-8")).text)
    assert "Roofline of <x>" in text
    assert "a note" in text
