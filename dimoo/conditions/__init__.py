"""Condition maps: from a picture to the structure that another picture is to be made after. No torch, no networks.

`make("canny", picture)` is the map of a kind, an RGB picture of the same size. A kind is a row of a table, not code
elsewhere. Kinds that need a network take it as an `Estimator`: `make("depth", picture, estimators={"depth": mine})`.
"""

from dimoo.conditions.edges import canny, soft_edges
from dimoo.conditions.maps import ESTIMATED, MAKERS, Estimator, make

__all__ = ["ESTIMATED", "MAKERS", "Estimator", "canny", "make", "soft_edges"]
