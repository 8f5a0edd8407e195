"""Draws charts as SVG within a page, in the page's colors, light or dark or printed."""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from typing import Any, NamedTuple

from beam_asr.outputs.report.quantities import Quantity
from beam_asr.outputs.report.samples import Histogram

# Colors that stand for those of the page; no two are alike, and nothing else has them.
BAR, TEXT, GRID, STRONG = "#010203", "#010204", "#010205", "#010206"
_COLOURS = {
    BAR: "var(--bar)",
    TEXT: "var(--muted)",
    GRID: "var(--line)",
    STRONG: "var(--accent)",
}
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # texts stay texts, in the page's font
    "svg.hashsalt": "beam_asr",
    "text.parse_math": False,
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": TEXT,
    "axes.labelcolor": TEXT,
    "axes.edgecolor": GRID,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.axisbelow": True,
    "xtick.color": TEXT,
    "ytick.color": TEXT,
    "xtick.major.size": 3,
    "ytick.major.size": 0,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
}
_ID = re.compile(r'\sid="([^"]+)"')


class Chart(NamedTuple):
    """A chart and what it shows in words and numbers.

    Attributes:
        name: begins the ids of its elements; those of title and description end in ``-title`` and
            ``-text``.
        title: of the chart.
        description: what is to be seen, for those who do not see it.
        svg: the drawing, as markup.
        columns: of the table of its numbers.
        rows: of that table.
    """

    name: str
    title: str
    description: str
    svg: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


class Interval(NamedTuple):
    """A value with its interval, by a name: a mark of `intervals`."""

    name: str
    value: float
    low: float
    high: float


def histogram(quantity: Quantity, values: Histogram) -> Chart:
    """Draws the distribution of a quantity; there must be a value."""
    bars = values.bars()
    median, low, high = (values.quantile(share) for share in (0.5, 0.05, 0.95))
    form = quantity.format
    description = (
        f"Of {values.rows:,} rows the median is {form(median)}; nine of ten lie between "
        f"{form(low)} and {form(high)}."
    )

    def draw(axes: Any) -> None:
        from matplotlib.ticker import FuncFormatter, MaxNLocator

        edges = [bar[0] for bar in bars]
        ends = [bar[1] if math.isfinite(bar[1]) else bar[0] + _width(bars) for bar in bars]
        widths = [end - start for start, end in zip(edges, ends)]
        axes.bar(edges, [bar[2] for bar in bars], widths, align="edge", color=BAR, linewidth=0)
        axes.axvline(median, color=STRONG, linewidth=1.5)
        axes.grid(axis="y")
        axes.set_xlabel(quantity.unit)
        axes.set_ylabel("rows")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        if quantity.scale.logarithmic:
            axes.set_xscale("log")
            axes.minorticks_off()
        _ticks(axes, quantity, edges[0], ends[-1])

    rows = [
        (form(start) + (" and more" if math.isinf(end) else f" to {form(end)}"), f"{count:,}")
        for start, end, count in bars
    ]
    svg = _drawn(draw, (5.2, 2.5), quantity.name)
    return Chart(quantity.name, quantity.title, description, svg, (quantity.unit, "rows"), rows)


def spreads(quantity: Quantity, groups: Sequence[tuple[str, Histogram]], by: str) -> Chart:
    """Draws the spread of a quantity in each group: median, middle half, and nine of ten rows."""
    shares = (0.05, 0.25, 0.5, 0.75, 0.95)
    rows = [(name, [values.quantile(share) for share in shares]) for name, values in groups]

    def draw(axes: Any) -> None:
        for place, (_, (low, first, median, third, high)) in enumerate(rows):
            axes.plot([low, high], [place, place], color=GRID, linewidth=2)
            axes.plot([first, third], [place, place], color=BAR, linewidth=8)
            axes.plot([median], [place], color=STRONG, marker="|", markersize=12, linewidth=0)
        _names(axes, [name for name, _ in rows])
        axes.set_xlabel(quantity.unit)
        if quantity.scale.logarithmic:
            axes.set_xscale("log")
            axes.minorticks_off()
        lowest = min(values[0] for _, values in rows)
        _ticks(axes, quantity, lowest, max(values[-1] for _, values in rows))

    name = f"{quantity.name}-{by}"
    return Chart(
        name,
        f"{quantity.title} by {by}",
        "The line spans nine of ten rows, the bar the middle half; the mark is the median.",
        _drawn(draw, (5.2, 0.9 + 0.3 * len(rows)), name),
        (by, "5th percentile", "25th", "median", "75th", "95th"),
        [(name, *map(quantity.format, values)) for name, values in rows],
    )


def intervals(title: str, marks: Sequence[Interval], name: str) -> Chart:
    """Draws error rates with their intervals, one below the other."""

    def draw(axes: Any) -> None:
        for place, mark in enumerate(marks):
            axes.plot([mark.low, mark.high], [place, place], color=BAR, linewidth=4)
            axes.plot([mark.value], [place], color=STRONG, marker="o", markersize=6)
        _names(axes, [mark.name for mark in marks])
        low, high = min(mark.low for mark in marks), max(mark.high for mark in marks)
        margin = max(high - low, 0.002) * 0.1
        axes.set_xlim(max(0.0, low - margin), high + margin)
        axes.xaxis.set_major_formatter(_percent())
        axes.xaxis.set_major_locator(_locator())
        axes.set_xlabel("word error rate, with its 95% interval")

    return Chart(
        name,
        title,
        "The mark is the rate, the bar its 95% interval.",
        _drawn(draw, (6.4, 0.9 + 0.35 * len(marks)), name),
        ("run", "WER", "from", "to"),
        [(m.name, f"{m.value:.2%}", f"{m.low:.2%}", f"{m.high:.2%}") for m in marks],
    )


def over_time(
    name: str, title: str, unit: str, times: Sequence[str], values: Sequence[float], seconds: int
) -> Chart:
    """Draws a figure over time, a bar for each span.

    Args:
        unit: of the values; ``share`` for parts of one.
        times: the starts of the spans, as ISO 8601 in UTC.
        seconds: the length of each span.
    """
    starts = [datetime.fromisoformat(time.replace("Z", "+00:00")) for time in times]
    form = "{:.1%}".format if unit == "share" else "{:,.1f}".format

    def draw(axes: Any) -> None:
        from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

        days = seconds / 86_400  # matplotlib counts time in days
        axes.bar(starts, values, days, align="edge", color=BAR, linewidth=0)
        locator = AutoDateLocator(maxticks=7)
        axes.xaxis.set_major_locator(locator)
        axes.xaxis.set_major_formatter(ConciseDateFormatter(locator, tz=timezone.utc))
        axes.grid(axis="y")
        axes.set_ylim(bottom=0)
        axes.set_xlabel("time, UTC")
        axes.set_ylabel(unit)
        if unit == "share":
            axes.yaxis.set_major_formatter(_percent())

    minutes = seconds // 60
    spans = "minute" if minutes == 1 else f"{minutes:,} minutes"
    description = (
        f"A bar for each {spans}, over all workers; the highest is {form(max(values))}, "
        f"the last {form(values[-1])}."
    )
    rows = [(time, form(value)) for time, value in zip(times, values, strict=True)]
    svg = _drawn(draw, (6.4, 2.5), name)
    return Chart(name, title, description, svg, ("start, UTC", unit), rows)


def _width(bars: Sequence[tuple[float, float, int]]) -> float:
    """Returns the width to draw a bar without an end with: that of the one before."""
    return bars[-2][1] - bars[-2][0] if len(bars) > 1 else max(bars[-1][0] * 0.1, 0.01)


def _names(axes: Any, names: Sequence[str]) -> None:
    axes.set_yticks(range(len(names)), [_short(name) for name in names])
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.grid(axis="x")


def _short(name: str, most: int = 28) -> str:
    return name if len(name) <= most else f"{name[: most // 2]}…{name[-(most // 2 - 1) :]}"


def _ticks(axes: Any, quantity: Quantity, low: float, high: float) -> None:
    """Sets ticks that a reader expects: of a logarithmic axis 1, 2, 5 and their like."""
    from matplotlib.ticker import FuncFormatter

    if quantity.scale.logarithmic:
        ticks = [
            digit * 10.0**power
            for power in range(-1, 6)
            for digit in (1, 2, 5)
            if low * 0.99 <= digit * 10.0**power <= high * 1.01
        ]
        if len(ticks) > 1:
            axes.set_xticks(ticks[:: -(-len(ticks) // 9)])
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    elif quantity.percent:
        axes.xaxis.set_major_formatter(_percent())
        axes.xaxis.set_major_locator(_locator())


def _percent() -> Any:
    from matplotlib.ticker import PercentFormatter

    return PercentFormatter(1.0)


def _locator() -> Any:
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(6)


def _drawn(draw: Callable[[Any], None], size: tuple[float, float], name: str) -> str:
    """Returns a drawing as the element ``<svg>``, whose ids begin with a name."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    file = io.StringIO()
    with warnings.catch_warnings(), matplotlib.rc_context(_STYLE):
        warnings.simplefilter("ignore")  # of characters that its own font lacks
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasSVG(figure)
        draw(figure.add_subplot())
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    return _for_page(file.getvalue(), name)


def _for_page(svg: str, name: str) -> str:
    svg = svg[svg.index("<svg") :]
    # Its styles would be those of the whole page, and its font is not the page's.
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"font-family: [^;\"]*;? ?", "", svg)
    for color, variable in _COLOURS.items():
        svg = svg.replace(color, variable)
    # Ids are of the whole page: those that are used get a prefix, the others go.
    used = set(re.findall(r"#([\w.-]+)", svg))
    svg = _ID.sub(lambda m: f' id="{name}-{m[1]}"' if m[1] in used else "", svg)
    svg = re.sub(r"(url\(#|href=\"#)", rf"\g<1>{name}-", svg)
    svg = re.sub(r'\s(?:width|height)="[\d.]+pt"', "", svg, count=2)
    head, rest = svg.split(">", 1)
    named = f'role="img" aria-labelledby="{name}-title {name}-text"'
    return f"{head} {named}>{rest}".strip()
