"""HTML as trees: text is escaped and tags are balanced by the way they are written."""

import re
import xml.etree.ElementTree as ET
from collections.abc import Sequence

# Characters that HTML does not allow, among them halves of surrogate pairs.
_FORBIDDEN = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]"
)

STYLE = """
:root { color-scheme: light dark; --ink: #1c2126; --soft: #59636e; --line: #d5dae0;
  --paper: #ffffff; --panel: #f5f7f9; --mark: #b2182b; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ec; --soft: #a3adb8;
  --line: #3a424b; --paper: #15191d; --panel: #1f252b; --mark: #ff8a80; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 72rem; color: var(--ink);
  background: var(--paper); font: 1rem/1.5 system-ui, sans-serif;
  overflow-wrap: break-word; -webkit-text-size-adjust: 100%; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: .5rem 0; }
h2 { font-size: 1.2rem; margin: 2.2rem 0 .6rem; border-bottom: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.4rem 0 .4rem; }
p { max-width: 46rem; }
.lead { font-size: 1.05rem; }
.soft, figcaption, caption { color: var(--soft); font-size: .9rem; }
.scroll { overflow-x: auto; margin: .5rem 0; }
table { border-collapse: collapse; font-size: .9rem; }
caption { text-align: left; padding-bottom: .3rem; }
th, td { padding: .28rem .6rem; text-align: right; white-space: nowrap;
  font-variant-numeric: tabular-nums; border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
th { font-weight: 600; }
thead th { white-space: normal; min-width: 4.5rem; vertical-align: bottom; }
tr.model { color: var(--mark); font-weight: 600; }
table.facts td, table.facts th { text-align: left; vertical-align: top; }
table.facts td { white-space: normal; overflow-wrap: anywhere; }
figure { margin: 1.4rem 0; }
figure .scroll { background: #ffffff; border: 1px solid var(--line);
  border-radius: 4px; }
figure img { display: block; max-width: 100%; height: auto; }
pre { background: var(--panel); border: 1px solid var(--line); border-radius: 4px;
  padding: .6rem .8rem; overflow-x: auto; font-size: .85rem; }
summary { cursor: pointer; font-weight: 600; }
details { margin: .6rem 0; }
@media (max-width: 44rem) { figure img.wide { max-width: none; width: 44rem; } }
@media (max-width: 64rem) { figure img.wider { max-width: none; width: 64rem; } }
@media print { details > * { display: block; } }
"""

Child = str | ET.Element


def element(tag: str, *children: Child, **attributes: str) -> ET.Element:
    """An element with text and elements in it.

    Args:
        tag: its name.
        *children: texts, which are escaped when the tree is written, and elements.
        **attributes: by name; a trailing "_" is dropped, as in `class_`.
    """
    made = ET.Element(tag, {k.rstrip("_"): clean(v) for k, v in attributes.items()})
    last = None
    for child in children:
        if not isinstance(child, str):
            made.append(child)
            last = child
        elif last is None:
            made.text = (made.text or "") + clean(child)
        else:
            last.tail = (last.tail or "") + clean(child)
    return made


def table(
    heads: Sequence[str],
    rows: Sequence[Sequence[str]],
    caption: str = "",
    marked: str | None = None,
) -> ET.Element:
    """A table in a box of its own, which scrolls where the page is too narrow.

    Args:
        heads: of the columns.
        rows: of cells; the first is the heading of its row.
        caption: above it; "": none.
        marked: the first cell of rows that stand out.
    """
    parts: list[Child] = [element("caption", caption)] if caption else []
    head = element("tr", *(element("th", text, scope="col") for text in heads))
    body = []
    for first, *cells in rows:
        line = [element("th", first, scope="row"), *(element("td", x) for x in cells)]
        attributes = {"class_": "model"} if first == marked else {}
        body.append(element("tr", *line, **attributes))
    made = element("table", *parts, element("thead", head), element("tbody", *body))
    return element("div", made, class_="scroll", tabindex="0")


def document(title: str, *body: ET.Element) -> str:
    """A whole page, with its style and nothing that is loaded from elsewhere."""
    viewport = "width=device-width, initial-scale=1"
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content=viewport),
        element("meta", name="referrer", content="no-referrer"),
        element("title", title),
        element("link", rel="icon", href="data:,"),
        element("style", STYLE),
    )
    page = element("html", head, element("body", *body), lang="en")
    return "<!DOCTYPE html>\n" + ET.tostring(page, "unicode", method="html") + "\n"


def clean(text: str) -> str:
    """The text without characters that a page must not hold."""
    return _FORBIDDEN.sub("\ufffd", text)
