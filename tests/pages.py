"""HTML pages as tests read them."""

from html.parser import HTMLParser


class Tags(HTMLParser):
    """Collects tags and whether they are well nested; SVG closes its own."""

    VOID = {"meta", "img", "br", "input", "link"}

    def __init__(self):
        super().__init__()
        self.open, self.seen = [], []

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_startendtag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))


def parsed(page):
    """The page's tags in order, each with its attributes; it must be well nested."""
    tags = Tags()
    tags.feed(page)
    assert tags.open == []
    return tags.seen
