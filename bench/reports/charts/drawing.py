"""An SVG drawing: elements, axes with numbers, and a text for screen readers.

Colours and line styles are classes of the page's style sheet, which has light, dark and print
modes. Every text and attribute is escaped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from markupsafe import Markup

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from bench.reports.charts.scales import Scale

WIDE = 720  # units of width, beside text and on paper
NARROW = 360  # on a phone
_CHARACTER = 7.2  # approximate units of width, at the size of the axes' numbers
_GAP = 10  # units between two numbers of an axis


class Drawing:
    """A chart and the frame in which its values are drawn."""

    def __init__(self, width: int, height: int, *, left: float = 52, bottom: float = 40) -> None:
        self.width, self.height = width, height
        self.left, self.right = left, width - 14.0
        self.top, self.bottom = 12.0, height - bottom
        self._parts: list[Markup] = []

    @property
    def is_narrow(self) -> bool:
        """Whether there is room for only a few words."""
        return self.width < WIDE

    def add(self, name: str, content: str | None = None, **attributes: object) -> None:
        """Draw an element; `_` in an attribute's name becomes `-`, and is dropped at the end."""
        self._parts.append(element(name, content, **attributes))

    def text(self, x: float, y: float, words: str, kind: str = "tick", at: str = "start") -> None:
        """Draw text; `at` is the part of the text at x: start, middle or end."""
        self.add("text", words, x=_place(x), y=_place(y), class_=kind, text_anchor=at)

    def rect(self, x: float, y: float, width: float, height: float, kind: str) -> None:
        """Draw a rectangle."""
        self.add(
            "rect",
            x=_place(x),
            y=_place(y),
            width=_place(max(0.0, width)),
            height=_place(max(0.0, height)),
            class_=kind,
        )

    def line(self, x1: float, y1: float, x2: float, y2: float, kind: str) -> None:
        """Draw a straight line."""
        self.add("path", d=_move([(x1, y1), (x2, y2)]), class_=kind)

    def path(self, points: Sequence[tuple[float, float]], kind: str) -> None:
        """Draw a line through the points; a dot for a single one."""
        if len(points) == 1:
            self.dot(*points[0], kind=f"{kind}-dot", radius=5 if kind == "line-p95" else 3)
        elif points:
            self.add("path", d=_move(points), class_=kind)

    def area(self, points: Sequence[tuple[float, float]], base: float, kind: str) -> None:
        """Fill the area between the points and a level."""
        if points:
            closed = [(points[0][0], base), *points, (points[-1][0], base)]
            self.add("path", d=_move(closed) + "Z", class_=kind)

    def dot(self, x: float, y: float, kind: str, radius: float = 3.2) -> None:
        """Draw a filled circle."""
        self.add("circle", cx=_place(x), cy=_place(y), r=radius, class_=kind)

    def square(self, x: float, y: float, kind: str, half: float = 3.4) -> None:
        """Draw a filled square around a point."""
        self.rect(x - half, y - half, 2 * half, 2 * half, kind)

    def x_axis(self, scale: Scale, label: Callable[[float], str], title: str) -> None:
        """Draw the axis below the frame."""
        free_from = 0.0
        self.line(self.left, self.bottom, self.right, self.bottom, "axis")
        for value in scale.ticks:
            words, x = label(value), scale(value)
            half = len(words) * _CHARACTER / 2
            middle = min(max(x, half), self.width - half)
            if middle - half < free_from:
                continue
            free_from = middle + half + _GAP
            self.line(x, self.bottom, x, self.bottom + 4, "axis")
            self.text(middle, self.bottom + 17, words, at="middle")
        self.text(self.right, self.bottom + 34, title, "axis-title", "end")

    def y_axis(self, scale: Scale, label: Callable[[float], str]) -> None:
        """Draw horizontal lines across the frame, with their numbers at the left."""
        for value in scale.ticks:
            y = scale(value)
            self.line(self.left, y, self.right, y, "grid")
            self.text(self.left - 7, y + 4, label(value), at="end")

    def svg(self, name: str, title: str, description: str) -> Markup:
        """Return the SVG; `name` must be unique in the page."""
        size = "narrow" if self.is_narrow else "wide"
        key = f"{name}-{size}"
        heads = (
            element("title", title, id=f"{key}-title"),
            element("desc", description, id=f"{key}-desc"),
        )
        opening = Markup(
            '<svg class="chart {}" viewBox="0 0 {} {}" role="img" '
            'aria-labelledby="{}-title" aria-describedby="{}-desc">'
        ).format(size, self.width, self.height, key, key)
        return opening + Markup("").join([*heads, *self._parts]) + Markup("</svg>")


def element(name: str, content: str | None = None, **attributes: object) -> Markup:
    """Return an SVG element; see `Drawing.add`."""
    written = Markup("").join(
        Markup(' {}="{}"').format(key.rstrip("_").replace("_", "-"), value)
        for key, value in attributes.items()
    )
    if content is None:
        return Markup("<{}{}/>").format(name, written)
    return Markup("<{}{}>{}</{}>").format(name, written, content, name)


def both_sizes(draw: Callable[[int], Markup]) -> Markup:
    """Return the chart in both widths; the style sheet shows one of the two."""
    return Markup("\n").join([draw(WIDE), draw(NARROW)])


def steps(
    bins: Iterable[tuple[float, float, float]],
) -> list[tuple[float, float]]:
    """Return the points of a step line over (from, to, height)."""
    return [point for start, end, height in bins for point in ((start, height), (end, height))]


def width_of(words: str) -> float:
    """Return the approximate width of a text at the size of the axes' numbers."""
    return len(words) * _CHARACTER


def _move(points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{_place(x)} {_place(y)}" for x, y in points)


def _place(number: float) -> str:
    return f"{number:.1f}".removesuffix(".0")
