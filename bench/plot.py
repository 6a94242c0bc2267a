"""Grouped bars as a PNG. Knows numbers and labels, not what they mean."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

COLOURS = {"envoy": "#8d6bb8", "twemproxy": "#9aa5b1", "crossfade": "#e0703c"}  # the same in every plot
INCHES_PER_BAR = 0.16


@dataclass(frozen=True, slots=True)
class Panel:
    """One value per label for each peer; None where there is none."""

    title: str
    values: dict[str, list[float | None]]
    line_at: float | None = None


def write(file: Path, labels: Sequence[str], panels: Sequence[Panel]) -> None:
    bars = len(labels) * (max((len(panel.values) for panel in panels), default=0) + 1)
    figure = Figure(figsize=(12, max(3.0, 1.2 + bars * INCHES_PER_BAR)), layout="constrained")
    FigureCanvasAgg(figure)
    for number, panel in enumerate(panels, 1):
        axes = figure.add_subplot(1, len(panels), number)
        _draw(axes, panel, labels if number == 1 else [""] * len(labels))
    figure.savefig(file, dpi=110)


def _draw(axes: Axes, panel: Panel, labels: Sequence[str]) -> None:
    height = 0.8 / max(1, len(panel.values))
    for number, (peer, values) in enumerate(panel.values.items()):
        at = [row + number * height for row in range(len(values))]
        widths = [value or 0.0 for value in values]
        drawn = axes.barh(at, widths, height=height * 0.92, label=peer, color=COLOURS.get(peer))
        axes.bar_label(drawn, [f"{v:.3g}" if v is not None else "–" for v in values], fontsize=7, padding=2)  # noqa: RUF001
    axes.set_yticks([row + 0.4 - height / 2 for row in range(len(labels))], labels, fontsize=8)
    axes.invert_yaxis()
    axes.set_title(panel.title, fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    if panel.line_at is not None:
        axes.axvline(panel.line_at, color="black", linewidth=0.8)
    if panel.values:
        axes.legend(fontsize=8, loc="lower right", frameon=False)
