"""Markdown as HTML that is safe to put into a page."""

from __future__ import annotations

from markdown_it import MarkdownIt
from markupsafe import Markup


def render(text: str, first_heading: int = 2) -> Markup:
    """Markdown with tables as HTML.

    HTML in the text is shown, not obeyed. Only links to web pages are links: what is relative to the text's
    own file would lead nowhere from the page.

    Args:
        text: Markdown.
        first_heading: the level that ``#`` becomes.
    """
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    # A picture would be fetched from wherever the text says.
    parser.disable("image")
    parser.validateLink = lambda url: url.startswith(("https://", "http://"))  # type: ignore[method-assign]
    tokens = parser.parse(text)
    for token in tokens:
        if token.type in ("heading_open", "heading_close"):
            token.tag = f"h{min(6, int(token.tag[1:]) + first_heading - 1)}"
    return Markup(parser.renderer.render(tokens, parser.options, {}))
