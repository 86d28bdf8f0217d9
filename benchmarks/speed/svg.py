"""Self-contained SVG elements: shapes and text."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

FONT = "font-family='system-ui, -apple-system, Segoe UI, Helvetica, Arial, sans-serif'"
INK, FAINT, GRID = "#1f2328", "#656d76", "#d8dee4"


def document(width: float, height: float, content: Iterable[str], title: str) -> str:
    """Return a whole drawing that scales down with the page."""
    head = (
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width:g} {height:g}' "
        f"width='{width:g}' height='{height:g}' role='img' "
        f"style='max-width:100%;height:auto' {FONT}>"
    )
    return "".join([head, f"<title>{escape(title)}</title>", *content, "</svg>"])


def group(x: float, y: float, content: Iterable[str]) -> str:
    """Return `content` translated by `x` and `y`."""
    return f"<g transform='translate({x:g},{y:g})'>{''.join(content)}</g>"


def text(
    x: float,
    y: float,
    words: str,
    *,
    size: float = 12,
    anchor: str = "start",
    colour: str = INK,
    weight: str = "normal",
) -> str:
    """Return a text; `anchor` is `start`, `middle` or `end`."""
    return (
        f"<text x='{x:.1f}' y='{y:.1f}' font-size='{size:g}' text-anchor='{anchor}' "
        f"fill='{colour}' font-weight='{weight}'>{escape(words)}</text>"
    )


def box(x: float, y: float, width: float, height: float, colour: str) -> str:
    """Return a filled rectangle."""
    return (
        f"<rect x='{x:.1f}' y='{y:.1f}' width='{max(0.0, width):.1f}' height='{height:.1f}' "
        f"fill='{colour}' rx='1.5'/>"
    )


def line(
    x1: float, y1: float, x2: float, y2: float, *, colour: str = GRID, width: float = 1
) -> str:
    """Return a straight line."""
    return (
        f"<line x1='{x1:.1f}' y1='{y1:.1f}' x2='{x2:.1f}' y2='{y2:.1f}' "
        f"stroke='{colour}' stroke-width='{width:g}'/>"
    )


def path(points: Iterable[tuple[float, float]], *, colour: str, dashes: str = "") -> str:
    """Return a line through `points`."""
    joined = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    dashed = f" stroke-dasharray='{dashes}'" if dashes else ""
    return f"<polyline points='{joined}' fill='none' stroke='{colour}' stroke-width='2'{dashed}/>"
