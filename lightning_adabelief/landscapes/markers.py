"""The marks of a landscape's minimum, and of the point from which optimizers start."""

from __future__ import annotations

from typing import Any

MINIMUM_MARKER: dict[str, Any] = {"marker": "*", "color": "white", "markeredgecolor": "black", "markersize": 12}
START_MARKER: dict[str, Any] = {"marker": "o", "color": "black", "markersize": 7}
