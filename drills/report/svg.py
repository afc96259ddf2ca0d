"""Small helpers for SVG and HTML text."""

from html import escape


def text(x: float, y: float, words: str, css: str = "", anchor: str = "start") -> str:
    """A line of text."""
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{css}" text-anchor="{anchor}">{escape(words)}</text>'


def line(x1: float, y1: float, x2: float, y2: float, css: str) -> str:
    """A straight line."""
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{css}"/>'


def rect(x: float, y: float, width: float, height: float, css: str = "", **attributes: str) -> str:
    """A rectangle."""
    more = "".join(f' {name}="{escape(value)}"' for name, value in attributes.items())
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(width, 0.0):.1f}" height="{height:.1f}" class="{css}"{more}/>'


def picture(width: float, height: float, title: str, parts: list[str]) -> str:
    """A whole picture that scales with the page."""
    return (
        f'<svg viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{escape(title)}">' + "".join(parts) + "</svg>"
    )
