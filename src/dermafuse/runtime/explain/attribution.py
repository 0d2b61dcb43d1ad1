"""How much each part of the input contributed: Grad-CAM over the image, Shapley values over image and fields.

Sources: Selvaraju et al., "Grad-CAM: visual explanations from deep networks via gradient-based localization",
ICCV 2017, eq. 1 and 2. Shapley, "A value for n-person games", 1953, computed exactly over all coalitions.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from dermafuse.errors import ConfigError

Floats = npt.NDArray[np.float64]

#: Exact Shapley values evaluate 2^n coalitions.
MAX_PLAYERS: Final = 12


def grad_cam(features: npt.NDArray[Any], gradient: npt.NDArray[Any]) -> Floats:
    """Return the class activation map (h, w), at or above 0, in units of the logit.

    Args:
        features: last feature map (h, w, c).
        gradient: derivative of the class's logit by the feature map (h, w, c).

    ``relu(sum_k a_k A_k)`` with ``a_k`` the mean of the gradient over the positions.
    """
    weights = np.asarray(gradient, dtype=np.float64).mean(axis=(0, 1))  # (c,)
    cam: Floats = np.maximum(np.asarray(features, dtype=np.float64) @ weights, 0.0)
    return cam


def shapley(players: int, value: Callable[[tuple[bool, ...]], Floats]) -> Floats:
    """Return the exact Shapley values, (players, k).

    Args:
        players: their number n, 0..12.
        value: from who is present, n booleans, to what the coalition is worth, (k,). Called once for each of
            the 2^n coalitions.

    The values of all players sum to ``value(all) - value(none)``; one whose presence changes nothing gets 0.

    Raises:
        ConfigError: more than 12 players.
    """
    if players > MAX_PLAYERS:
        raise ConfigError(f"Exact attribution among {players} players is too long; {MAX_PLAYERS} are possible.")
    worth = np.stack(
        [value(tuple(bool(members >> player & 1) for player in range(players))) for members in range(1 << players)]
    )  # (2^n, k), indexed by the bit mask of who is present
    coalitions = np.arange(1 << players)
    others = np.array([bin(members).count("1") for members in coalitions])
    # The share of the orders of arrival in which exactly these came before.
    share = np.array([math.factorial(s) * math.factorial(max(players - s - 1, 0)) for s in range(players + 1)])
    shares = share / math.factorial(players)
    result = np.zeros((players, worth.shape[1]))
    for player in range(players):
        without = coalitions[(coalitions >> player & 1) == 0]
        gains = worth[without | 1 << player] - worth[without]
        result[player] = shares[others[without]] @ gains
    return result
