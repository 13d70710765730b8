"""A chart as SVG: lines over two logarithmic axes, dark on white, readable without colours."""

import math
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

_WIDTH, _HEIGHT = 860, 520
_LEFT, _RIGHT, _TOP, _BOTTOM = 84, 250, 56, 78
_COLOURS = ("#0b3d91", "#b3261e", "#1b7f3b", "#7a4d00", "#5b2a86", "#0f7c8a", "#444444", "#a3195b")
_DASHES = ("", "7 4", "2 3", "10 3 2 3", "1 5", "12 6", "4 2", "")

Points = Sequence[tuple[float, float]]


def draw(path: Path, title: str, across: str, up: str, lines: Mapping[str, Points], made: str) -> None:
    """Write a chart; `made` says when, from what and on what."""
    xs = [x for points in lines.values() for x, _ in points]
    ys = [y for points in lines.values() for _, y in points if y > 0]
    left, right = _decades(xs)
    low, high = _decades(ys)

    def place(x: float, y: float) -> tuple[float, float]:
        wide, tall = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
        return (
            round(_LEFT + wide * (math.log10(x) - left) / (right - left), 1),
            round(_TOP + tall * (high - math.log10(y)) / (high - low), 1),
        )

    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'font-family="DejaVu Sans, Helvetica, Arial, sans-serif" font-size="13" fill="#1a1a1a">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#ffffff"/>',
        f'<text x="{_LEFT}" y="28" font-size="17" font-weight="bold">{escape(title)}</text>',
    ]
    bottom, edge = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
    for value in _ticks(left, right):
        x, _ = place(value, 10**low)
        strong = _is_decade(value)
        out.append(f'<path d="M{x} {_TOP}V{bottom}" stroke="{"#c4c4c4" if strong else "#ececec"}"/>')
        if strong:
            out.append(f'<text x="{x}" y="{bottom + 20}" text-anchor="middle">{_said(value)}</text>')
    for value in _ticks(low, high):
        _, y = place(10**left, value)
        strong = _is_decade(value)
        out.append(f'<path d="M{_LEFT} {y}H{edge}" stroke="{"#c4c4c4" if strong else "#ececec"}"/>')
        if strong:
            out.append(f'<text x="{_LEFT - 8}" y="{y + 4}" text-anchor="end">{_said(value)}</text>')
    out.append(f'<path d="M{_LEFT} {_TOP}V{bottom}H{edge}" fill="none" stroke="#1a1a1a" stroke-width="1.5"/>')
    out.append(f'<text x="{(_LEFT + edge) / 2}" y="{bottom + 42}" text-anchor="middle">{escape(across)}</text>')
    middle = (_TOP + bottom) / 2
    out.append(f'<text transform="translate(20 {middle}) rotate(-90)" text-anchor="middle">{escape(up)}</text>')
    for number, (name, points) in enumerate(lines.items()):
        colour, dash = _COLOURS[number % len(_COLOURS)], _DASHES[number % len(_DASHES)]
        style = f'stroke="{colour}" stroke-width="2.2" fill="none"' + (f' stroke-dasharray="{dash}"' if dash else "")
        spots = [place(x, y) for x, y in sorted(points) if y > 0]
        out.append(f'<polyline points="{" ".join(f"{x},{y}" for x, y in spots)}" {style}/>')
        out += [f'<circle cx="{x}" cy="{y}" r="3" fill="{colour}"/>' for x, y in spots]
        y = _TOP + 12 + 24 * number
        out.append(f'<path d="M{edge + 18} {y}H{edge + 50}" {style}/>')
        out.append(f'<text x="{edge + 58}" y="{y + 4}">{escape(name)}</text>')
    out.append(f'<text x="{_LEFT}" y="{_HEIGHT - 10}" font-size="11" fill="#555555">{escape(made)}</text>')
    path.write_text("\n".join([*out, "</svg>", ""]))


def _decades(values: Sequence[float]) -> tuple[int, int]:
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    return low, max(high, low + 1)


def _ticks(low: int, high: int) -> list[float]:
    return [step * 10.0**decade for decade in range(low, high) for step in range(1, 10)] + [10.0**high]


def _is_decade(value: float) -> bool:
    return math.isclose(math.log10(value) % 1, 0, abs_tol=1e-9)


def _said(value: float) -> str:
    return f"{value:,.0f}" if value >= 1 else f"{value:g}"
