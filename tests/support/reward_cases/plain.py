"""Rewards without a network."""

from flowsearch.rewards.pixels.shape_count import ShapeCount
from flowsearch.rewards.pixels.shape_fidelity import ShapeFidelity

CASES = {
    "shape_count": lambda: ShapeCount({("red", "circle"): 2}),
    "shape_fidelity": ShapeFidelity,
}
OTHER = {"shape_count": lambda: ShapeCount({("red", "circle"): 5})}
