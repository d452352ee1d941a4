"""Reads a page as a browser would: what there is of each tag, and whether tags are closed in order."""

from html.parser import HTMLParser

from hybrid_seg_ros.evaluation.pages.html_page import render_page


class Seen(HTMLParser):
    """Collects texts by tag and attributes, and checks that tags are closed in order."""

    def __init__(self):
        super().__init__()
        self.open, self.texts, self.attributes = [], {}, {}

    def handle_starttag(self, tag, attrs):
        self.attributes.setdefault(tag, []).append(dict(attrs))
        if tag not in ('meta', 'img', 'link', 'br'):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if data.strip():
            self.texts.setdefault(self.open[-1], []).append(data.strip())


def look_at(page):
    """Read a page: a `Page`, or the text of a file."""
    seen = Seen()
    seen.feed(page if isinstance(page, str) else render_page(page))
    assert not seen.open
    return seen
