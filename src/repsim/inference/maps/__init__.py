"""Maps of layers: their values by chance, their standard errors and their best pair."""

from repsim.inference._chance import rank_of
from repsim.inference._options import settings_for, with_groups
from repsim.inference.maps._best import ChanceOfBest, best_of, chance_of_best
from repsim.inference.maps._permuted import chance_of_map, errors_of_map, orders_of

__all__ = [
    "ChanceOfBest",
    "best_of",
    "chance_of_best",
    "chance_of_map",
    "errors_of_map",
    "orders_of",
    "rank_of",
    "settings_for",
    "with_groups",
]
