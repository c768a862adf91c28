"""Markdown that comes from cards and tables can show anything and do nothing."""

import pytest

from remime.reporting.markdown import render
from remime.reporting.text import escape, table


def test_tables_and_headings():
    html = render("# A\n\n| x | y |\n|---|---:|\n| 1 | **2** |\n")
    assert "<h2>A</h2>" in html
    assert '<td style="text-align:right"><strong>2</strong></td>' in html


def test_headings_stay_within_six_levels():
    assert "<h6>deep</h6>" in render("##### deep", 4)


@pytest.mark.parametrize(
    "text",
    ["<script>x</script>", "a <img src=x onerror=y> b", "[x](javascript:alert(1))", "[x](data:text/html,y)",
     "![x](https://a.org/b.png)", "[x](file:///etc/passwd)", "<https://a.org/\"onclick=alert(1)>"],
)  # fmt: skip
def test_hostile_text_is_shown_and_not_obeyed(text):
    html = render(text)
    assert "<script" not in html
    assert "<img" not in html
    for scheme in ("javascript:", "data:", "file:"):
        assert f'href="{scheme}' not in html
    assert '"onclick' not in html


def test_escaped_text_survives_a_table_unchanged():
    nasty = "a|b <i>*c*</i> `d` [e](f) #g ~h~ \\ $x_1$"
    html = str(render(table(["name", "n"], [[escape(nasty), "1"]])))
    cell = html.split("<td>")[1].split("</td>")[0]
    shown = cell.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
    assert shown == nasty
