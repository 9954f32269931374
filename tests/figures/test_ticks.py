"""Ticks of logarithmic axes and colour bars: few, round and apart, whatever the range."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.cm import ScalarMappable

from shapelaw.figures import style

RANGES = [
    (7e-4, 3.8e-2),
    (1.2e4, 1.6e5),
    (3.9e4, 6.2e5),
    (1.7e-3, 6e-3),
    (9e9, 1.3e12),
    (1e18, 1e26),
    (0.9, 1.1),
    (2.6, 66),
]


@pytest.mark.parametrize(("low", "high"), RANGES)
@pytest.mark.parametrize("columns", [1, 3])
def test_they_are_few_round_and_apart(low: float, high: float, columns: int) -> None:
    figure, grid = style.panels(1, columns, 2.6)
    for axes in grid:
        axes.set(xscale="log", yscale="log", xlim=(low, high), ylim=(low, high))
    figure.colorbar(ScalarMappable(style.log_norm([low, high])), ax=grid)
    style.read_logs(figure.axes)
    figure.draw_without_rendering()
    renderer: RendererAgg = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    for axis in (grid[0].xaxis, grid[0].yaxis, figure.axes[-1].yaxis):
        shown = [tick for tick in axis.get_major_ticks() if tick.label1.get_text() or tick.label2.get_text()]
        texts = [tick.label2 if tick.label2.get_visible() else tick.label1 for tick in shown]
        ticks = [tick.get_loc() for tick in shown if low * 0.999 <= tick.get_loc() <= high * 1.001]
        assert 2 <= len(ticks) <= 6
        boxes = [text.get_window_extent(renderer) for text in texts if text.get_visible()]
        assert not any(one.overlaps(other) for one, other in pairwise(boxes))
        assert all(float(f"{tick:.3g}") == pytest.approx(tick, rel=1e-9) for tick in ticks)
        assert not any(text.get_text() for text in axis.get_minorticklabels())


@pytest.mark.parametrize(
    ("value", "label"),
    [
        (0.002, "0.002"),
        (5e4, "5×10⁴"),
        (2e6, "2×10⁶"),
        (1e-4, "10⁻⁴"),
        (1e21, "10²¹"),
        (1.5, "1.5"),
    ],
)
def test_labels_are_plain_where_they_are_short(value: float, label: str) -> None:
    assert style._round_label(value) == label


def test_ticks_that_a_figure_chose_stay() -> None:
    _, (axes,) = style.panels(1, 1)
    axes.set(xscale="log", yscale="log", xlim=(1, 100), ylim=(1, 100))
    style.plain_ticks(axes, [3, 30], [7, 70])
    style.read_logs([axes])
    assert list(axes.xaxis.get_ticklocs()) == [3, 30]
    assert np.array_equal(axes.yaxis.get_ticklocs(), [7, 70])
