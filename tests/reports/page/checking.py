"""What is wrong with a page, found without a browser."""

import base64
import io
import re
from html.parser import HTMLParser

from PIL import Image

VOID = {"meta", "link", "img", "br", "hr"}
URLS = ("src", "href", "data", "poster", "action", "srcset", "background")


class _Reader(HTMLParser):
    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.open, self.faults, self.images, self.text = [], [], [], []

    def handle_starttag(self, tag, attrs):
        if tag not in VOID:
            self.open.append(tag)
        if tag in ("script", "iframe", "object", "embed", "form", "base"):
            self.faults.append(f"<{tag}>")
        for name, value in attrs:
            if name.startswith("on") or name == "style":
                self.faults.append(f"{name}={value}")
            if name in URLS and not (value or "").startswith("data:"):
                self.faults.append(f"{name}={value} is loaded from elsewhere")
        own = dict(attrs)
        if tag == "img":
            self.images.append(own)
            if not own.get("alt"):
                self.faults.append("an image without a text")

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.faults.append(f"</{tag}> closes another element")

    def handle_data(self, data):
        self.text.append(data)


def faults(page: str) -> list[str]:
    """Unbalanced tags, scripts, addresses elsewhere, images that do not decode."""
    reader = _Reader()
    reader.feed(page)
    reader.close()
    found = reader.faults + [f"<{tag}> is not closed" for tag in reader.open]
    found += re.findall(r"url\([^)]*\)|@import", page)
    if 'name="viewport"' not in page:
        found.append("no viewport")
    for own in reader.images:
        try:
            with Image.open(io.BytesIO(decoded(own["src"]))) as image:
                image.load()
        except OSError as error:
            found.append(f"{own['alt']}: {error}")
    return found


def text_of(page: str) -> str:
    """What a reader sees."""
    reader = _Reader()
    reader.feed(page)
    return "".join(reader.text)


def images_of(page: str) -> list[dict]:
    """The attributes of the images."""
    reader = _Reader()
    reader.feed(page)
    return reader.images


def decoded(uri: str) -> bytes:
    return base64.b64decode(uri.partition("base64,")[2], validate=True)
