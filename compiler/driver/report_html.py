"""HTML of a self-contained report page: head, sections and tables, accessible by keyboard."""

import html
from collections.abc import Iterable, Iterator, Sequence

STYLE = """\
:root{color-scheme:light dark;--back:#fff;--text:#1b1f24;--dim:#57606a;--line:#d0d7de;--bar:#0969da;
--warn:#9a3412}
@media(prefers-color-scheme:dark){:root{--back:#0d1117;--text:#e6edf3;--dim:#9da7b3;--line:#30363d;
--bar:#58a6ff;--warn:#ffa657}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:70rem;padding:1rem;background:var(--back);color:var(--text);
font:16px/1.5 system-ui,sans-serif}
h1{font-size:1.6rem;margin:.5rem 0}h2{font-size:1.2rem;margin:2rem 0 .5rem}
h1,td:only-of-type{overflow-wrap:anywhere}
.warn{color:var(--warn);font-weight:600}
.box{overflow:auto;max-height:80vh;border:1px solid var(--line);border-radius:6px}
.box+.box{margin-top:.75rem}.box:focus-visible{outline:3px solid var(--bar)}
.drawn{background:#fff;padding:.5rem}.drawn img{display:block;max-width:none}
table{border-collapse:collapse;width:100%;font-size:.9rem;font-variant-numeric:tabular-nums}
caption{text-align:left;color:var(--dim);padding:.4rem .6rem}
th,td{padding:.3rem .6rem;text-align:left;border-bottom:1px solid var(--line);vertical-align:top}
thead th{position:sticky;top:0;background:var(--back)}
td.n,th.n{text-align:right}td.n{white-space:nowrap}
tbody th{font-weight:500;overflow-wrap:anywhere;min-width:9rem}
ul{margin:.5rem 0;padding-left:1.4rem}
.bar{display:block;height:.5rem;min-width:1px;background:var(--bar)}.room{width:6rem}
code{font-size:.85em;overflow-wrap:anywhere}
@page{size:A4;margin:15mm}
@media print{:root{color-scheme:light;--back:#fff;--text:#000;--dim:#444;--line:#bbb;--bar:#0969da;
--warn:#9a3412}
html{font-size:9pt}
body{max-width:none;padding:0;font-size:1rem;print-color-adjust:exact;-webkit-print-color-adjust:exact}
h2{break-after:avoid}tr,li,.drawn{break-inside:avoid}thead{display:table-header-group}
thead th{position:static}td.n{white-space:normal}td,th{overflow-wrap:anywhere}
.box{overflow:visible;max-height:none;border:0}
.drawn img{max-width:100%;max-height:24cm}}
"""

MAX_CLASSES = 40
"""Most classes in a confusion matrix."""


def render_document(title: str, body: str) -> str:
    """Return a complete page; it loads no other files and runs no scripts."""
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape_text(title)}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n"
        f"{body}</main>\n</body>\n</html>\n"
    )


def render_section(title: str, body: str) -> str:
    """Return a section with a heading; `body` is HTML."""
    return f"<section>\n<h2>{escape_text(title)}</h2>\n{body}</section>\n"


def render_table(
    head: Sequence[str],
    rows: Iterable[Sequence[str]],
    caption: str,
    numbers: Iterable[int] = (),
    html_columns: Iterable[int] = (),
) -> str:
    """Return a table in a scrollable box; its first column has the row headings.

    Args:
        head: The column headings; no header row if all are empty.
        rows: The cells of each row.
        caption: The table's caption.
        numbers: Indices of right-aligned columns.
        html_columns: Indices of columns with HTML cells.
    """
    right_aligned, html_indices = frozenset(numbers), frozenset(html_columns)
    label = escape_text(caption or head[0])
    return "".join(
        [
            f'<div class="box" tabindex="0" role="region" aria-label="{label}">\n<table>\n',
            f"<caption>{escape_text(caption)}</caption>\n" if caption else "",
            _render_head(head, right_aligned) if any(head) else "",
            "<tbody>\n",
            *(_render_row(row, right_aligned, html_indices) for row in rows),
            "</tbody>\n</table>\n</div>\n",
        ]
    )


def _render_head(head: Sequence[str], right_aligned: frozenset[int]) -> str:
    cells = (
        f'<th scope="col"{_format_class(i, right_aligned)}>{escape_text(title)}</th>'
        if title
        else '<td class="room"></td>'
        for i, title in enumerate(head)
    )
    return f"<thead><tr>{''.join(cells)}</tr></thead>\n"


def _render_row(
    row: Sequence[str], right_aligned: frozenset[int], html_indices: frozenset[int]
) -> str:
    def iterate_cells() -> Iterator[str]:
        # Paths break after slashes.
        yield f'<th scope="row">{escape_text(row[0]).replace("/", "/<wbr>")}</th>'
        for index, cell in enumerate(row[1:], 1):
            html = cell if index in html_indices else escape_text(cell)
            yield f"<td{_format_class(index, right_aligned)}>{html}</td>"

    return f"<tr>{''.join(iterate_cells())}</tr>\n"


def _format_class(index: int, right_aligned: frozenset[int]) -> str:
    return ' class="n"' if index in right_aligned else ""


def render_confusion(labels: Sequence[str], counts: Sequence[Sequence[int]]) -> str:
    """Return a confusion matrix with inline styles; cells are shaded by their share of the row.

    Args:
        labels: The class names.
        counts: Number of images by true class (rows) and predicted class (columns).
    """
    if len(labels) > MAX_CLASSES:
        return f"<p>The confusion matrix of {len(labels):,} classes is too large to show.</p>\n"
    cell = "padding:.2rem .5rem;text-align:right;border:1px solid rgba(128,128,128,.4)"
    rows = []
    for label, row in zip(labels, counts, strict=True):
        images = sum(row)
        shares = [count / images if images else 0.0 for count in row]
        cells = "".join(
            f'<td style="{cell};background:rgba(9,105,218,{0.6 * share:.2f})">{count:,}</td>'
            for count, share in zip(row, shares, strict=True)
        )
        rows.append(f'<tr><th scope="row" style="{cell}">{escape_text(label)}</th>{cells}</tr>\n')
    heads = "".join(f'<th scope="col" style="{cell}">{escape_text(label)}</th>' for label in labels)
    return (
        '<div style="overflow:auto"><table style="border-collapse:collapse;width:auto">\n'
        "<caption>confusion matrix: images by true class (rows) and predicted class "
        f"(columns)</caption>\n<thead><tr><td></td>{heads}</tr></thead>\n"
        f"<tbody>\n{''.join(rows)}</tbody></table></div>\n"
    )


def escape_text(text: str) -> str:
    """Return text escaped for HTML."""
    return html.escape(text)
