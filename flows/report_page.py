"""Pieces of a self-contained HTML page: escaping, tables, pictures, the frame.

The page loads nothing: no scripts, no fonts, no remote pictures. A strict content security policy
says so to the browser; the only style sheet that it allows is ours, by its hash.
"""

from __future__ import annotations

import base64
import hashlib
import html
import re
import struct
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NewType

from bperp.flows.masking import mask_secrets

Markup = NewType("Markup", str)
"""HTML that is ready to be written; everything else is escaped."""

MAXIMUM_PICTURE_BYTES = 24_000_000

_SECRET_NAME = re.compile(
    r"passw(or)?d|passphrase|asf_pass|secret|token|credential|authorization|cookie"
    r"|(api|access|private|session)[-_ ]?key",
    re.IGNORECASE,
)
_SECRETS = (
    # user:password@host in a URL
    (re.compile(r"(\w+://)[^/\s:@]*:[^/\s@]+@"), r"\1***@"),
    # signed URLs and tokens in a query
    (
        re.compile(
            r"([?&][^=&\s]*(?:token|signature|secret|credential|password|key)[^=&\s]*=)[^&\s]+",
            re.IGNORECASE,
        ),
        r"\1***",
    ),
    (re.compile(r"\b(bearer\s+)[A-Za-z0-9._~+/=-]{8,}", re.IGNORECASE), r"\1***"),
    (re.compile(r"\b(authorization\s*:\s*\w+\s+)\S+", re.IGNORECASE), r"\1***"),
    (
        re.compile(r"\b((?:password|passwd|secret|token|api[-_]?key)\s*[=:]\s*)\S+", re.IGNORECASE),
        r"\1***",
    ),
)
# Control characters are not allowed in HTML; direction overrides could disguise a name.
_UNWANTED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")

_STYLE = """
:root{color-scheme:light dark;--ink:#22262b;--pale:#5f6871;--paper:#fff;--card:#f5f7f9;
--line:#d9dde1;--accent:#0072b2;--good:#00795a;--warn:#a04a00;--bad:#b3261e}
@media (prefers-color-scheme:dark){:root{--ink:#e7eaed;--pale:#a3abb3;--paper:#16191c;
--card:#20252a;--line:#373e45;--accent:#56b4e9;--good:#3fc79a;--warn:#f0a35e;--bad:#ff8a80}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);
font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif}
main,header,footer{max-width:1120px;margin:0 auto;padding:0 20px}
header{padding-top:28px}
h1{font-size:26px;line-height:1.25;margin:0 0 4px}
h2{font-size:19px;margin:36px 0 10px;padding-top:10px;border-top:1px solid var(--line)}
p{margin:6px 0 12px;max-width:75ch}
.pale,footer{color:var(--pale)}
nav{margin:14px 0 4px;display:flex;flex-wrap:wrap;gap:4px 16px;font-size:14px}
a{color:var(--accent)}
.cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(160px,1fr));gap:10px;
margin:18px 0;padding:0;list-style:none}
.cards li{background:var(--card);border-radius:8px;padding:10px 14px}
.cards b{display:block;font-size:20px;line-height:1.3;overflow-wrap:anywhere}
.cards span{color:var(--pale);font-size:13px}
.scroll{overflow-x:auto;margin:8px 0 14px}
table{border-collapse:collapse;font-size:13.5px;font-variant-numeric:tabular-nums}
caption{text-align:left;color:var(--pale);padding:0 0 6px}
th,td{padding:4px 12px 4px 0;border-bottom:1px solid var(--line);text-align:left;
vertical-align:top;overflow-wrap:anywhere}
th{font-weight:600}
thead th{white-space:nowrap;border-bottom:2px solid var(--line)}
.number{text-align:right;white-space:nowrap}
.grid td{text-align:center;padding:2px 8px}
.good{color:var(--good)}.warn{color:var(--warn)}.bad{color:var(--bad)}
.changed th,.changed td{background:var(--card)}
.notice{border-left:4px solid var(--warn);background:var(--card);padding:8px 14px;margin:8px 0;
border-radius:0 6px 6px 0;overflow-wrap:anywhere}
.notice.bad{border-color:var(--bad);color:inherit}
.notice.good{border-color:var(--good);color:inherit}
figure{margin:18px 0}
figure img{display:block;max-width:100%;height:auto;background:#fff;border-radius:6px;
border:1px solid var(--line)}
figcaption{color:var(--pale);font-size:14px;margin-top:6px;max-width:90ch}
meter{width:110px;vertical-align:middle}
footer{padding-top:24px;padding-bottom:32px;font-size:13px}
@media print{nav{display:none}h2{break-after:avoid}figure,tr{break-inside:avoid}}
"""


def escape(text: object) -> Markup:
    """Return text that shows as itself in HTML, without secrets and control characters."""
    return Markup(html.escape(_UNWANTED.sub("", redact(str(text))), quote=True))


def redact(text: str) -> str:
    """Mask passwords, tokens, signatures and secrets of the environment with ``***``."""
    for pattern, replacement in _SECRETS:
        text = pattern.sub(replacement, text)
    return mask_secrets(text)


def redact_value(name: str, value: str) -> str:
    """Return a setting's value, or ``***`` when its name says that it is a secret."""
    return "***" if value and _SECRET_NAME.search(name) else value


def join(parts: Iterable[Markup]) -> Markup:
    """Return the parts one after the other, a line each."""
    return Markup("\n".join(parts))


def element(tag: str, content: str | Markup, *, kind: str = "", safe: bool = False) -> Markup:
    """Return ``<tag class=kind>content</tag>``; the content is escaped unless ``safe``."""
    inner = content if safe else escape(content)
    attribute = f' class="{escape(kind)}"' if kind else ""
    return Markup(f"<{tag}{attribute}>{inner}</{tag}>")


def table(
    header: Sequence[str],
    rows: Iterable[Sequence[str | Markup]],
    *,
    caption: str = "",
    numeric: Sequence[int] = (),
    kinds: Sequence[str] = (),
    safe: Sequence[int] = (),
    style: str = "",
) -> Markup:
    """Return a table whose first column names the row.

    Parameters
    ----------
    header : sequence of str
        Column names.
    rows : iterable of sequences of str
        Cells, escaped.
    caption : str
        Line above the table.
    numeric : sequence of int
        Columns that are aligned to the right.
    kinds : sequence of str
        Style class per row, e.g. ``changed``.
    safe : sequence of int
        Columns that already are markup.
    style : str
        Style class of the table.

    Returns
    -------
    Markup
        Scrolls sideways where the screen is too narrow.
    """

    def cell(tag: str, column: int, content: str | Markup, scope: str = "") -> str:
        kind = ' class="number"' if column in numeric else ""
        scope = f' scope="{scope}"' if scope else ""
        inner = content if tag == "td" and column in safe else escape(content)
        return f"<{tag}{scope}{kind}>{inner}</{tag}>"

    head = "".join(cell("th", column, name, "col") for column, name in enumerate(header))
    body = []
    for number, row in enumerate(rows):
        kind = f' class="{kinds[number]}"' if number < len(kinds) and kinds[number] else ""
        first = cell("th", 0, row[0], "row")
        rest = (cell("td", column, content) for column, content in enumerate(row[1:], start=1))
        body.append(f"<tr{kind}>{first}{''.join(rest)}</tr>")
    title = element("caption", caption) if caption else ""
    opening = f'<table class="{style}">' if style else "<table>"
    lines = [f'<div class="scroll">{opening}{title}<thead><tr>{head}</tr></thead>', "<tbody>"]
    return Markup("\n".join([*lines, *body, "</tbody></table></div>"]))


def picture_element(path: Path | str, title: str, caption: str = "") -> Markup:
    """Return a PNG file as a figure inside the page; a sentence when it cannot be shown."""
    try:
        data = Path(path).read_bytes()
        if data[:8] != b"\x89PNG\r\n\x1a\n" or len(data) > MAXIMUM_PICTURE_BYTES:
            raise ValueError("not a PNG file of reasonable size")
        width, height = struct.unpack(">II", data[16:24])
    except (OSError, ValueError, struct.error):
        return element("p", f"Picture not available: {title} ({Path(path).name})", kind="pale")
    content = base64.b64encode(data).decode("ascii")
    image = (
        f'<img alt="{escape(title)}" width="{width}" height="{height}" '
        f'src="data:image/png;base64,{content}">'
    )
    text = element("figcaption", f"{title}. {caption}" if caption else title)
    return Markup(f"<figure>{image}{text}</figure>")


def section(identifier: str, title: str, content: Markup) -> Markup:
    """Return a section with a heading that the table of contents can point to."""
    return Markup(f'<section id="{identifier}"><h2>{escape(title)}</h2>\n{content}\n</section>')


def page(
    title: str, subtitle: str, head: Markup, sections: Sequence[tuple[str, str, Markup]], foot: str
) -> str:
    """Return the whole document.

    Parameters
    ----------
    title, subtitle : str
        Heading and the line below it.
    head : Markup
        What comes before the sections.
    sections : sequence of (identifier, title, content)
        Sections with content appear in the table of contents.
    foot : str
        Last line.
    """
    present = [entry for entry in sections if entry[2]]
    links = " ".join(f'<a href="#{name}">{escape(text)}</a>' for name, text, _ in present)
    body = "\n".join(section(*entry) for entry in present)
    digest = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; "
        "base-uri 'none'; form-action 'none'"
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="referrer" content="no-referrer">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>{_STYLE}</style>
</head>
<body>
<header>
<h1>{escape(title)}</h1>
<p class="pale">{escape(subtitle)}</p>
<nav aria-label="Contents">{links}</nav>
</header>
<main>
{head}
{body}
</main>
<footer>{escape(foot)}</footer>
</body>
</html>
"""
