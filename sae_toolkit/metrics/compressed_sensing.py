"""From which size of support on sparse non-negative codes can no longer be read from fewer measurements than features.

Guarantee by coherence: Tropp 2004, theorem A. Phase transition of the convex program: Donoho & Tanner 2009 (arXiv
0906.2530), computed as in Amelunxen et al. 2014 (arXiv 1303.6672), section 4. Superposition as compressed sensing:
Elhage et al. 2022 (arXiv 2209.10652), "Related Work".
"""

from collections.abc import Callable, Sequence
from math import log, nan
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from sae_toolkit.metrics.bootstrap import mean_score
from sae_toolkit.metrics.score import Score
from sae_toolkit.saes.coders import Coder, LinearTopK, MatchingPursuit
from sae_toolkit.seeding import generator_for

SMALLEST, LARGEST = 0.1, 1.0
"""Active coefficients are uniform between these."""
CLOSE = 0.05
"""Codes are recovered when their relative error is below this."""


class CodeRecovery(NamedTuple):
    """What each solver makes of each sample: 1 recovered, 0 not; for the linear read-out a share."""

    pursuit: Float64[Tensor, " n_samples"]
    """Non-negative orthogonal matching pursuit with as many steps as there are active features: exact support."""
    nonnegative_least_squares: Float64[Tensor, " n_samples"]
    """Lawson & Hanson's active set method: relative error of the codes below 5 %."""
    basis_pursuit: Float64[Tensor, " n_samples"]
    """min sum z with z >= 0 and z G = x, the noiseless lasso: relative error of the codes below 5 %."""
    lasso: Float64[Tensor, " n_samples"]
    """The end of scikit-learn's lasso path: basis pursuit by an algorithm of its own. Error of the codes below 5 %."""
    linear_top_k: Float64[Tensor, " n_samples"]
    """Share of the support among the k largest entries of x G^T: all that one product can see."""


def sparse_codes(
    n_samples: int, n_features: int, support_size: int, *, seed: int
) -> Float64[Tensor, "n_samples n_features"]:
    """Codes with exactly `support_size` active features each, at random places, uniform in [0.1, 1]."""
    if not 0 < support_size <= n_features:
        raise ValueError(
            f"sparse_codes: support_size={support_size} asked of n_features={n_features}. "
            f"Choose a support between 1 and the number of features."
        )
    generator = generator_for(seed, "sparse codes", support_size)
    places = torch.rand(n_samples, n_features, generator=generator).topk(support_size, dim=1).indices
    sizes = SMALLEST + (LARGEST - SMALLEST) * torch.rand(n_samples, support_size, generator=generator).double()
    return torch.zeros(n_samples, n_features, dtype=torch.float64).scatter_(1, places, sizes)


def code_recovery(
    directions: Float[Tensor, "n_features d"], support_size: int, *, n_samples: int = 100, seed: int
) -> CodeRecovery:
    """Draws codes, mixes them with the unit rows of `directions` and asks every solver for them back."""
    return CodeRecovery(**solved(directions, support_size, CodeRecovery._fields, n_samples=n_samples, seed=seed))


def recovery_rates(
    directions: Float[Tensor, "n_features d"],
    support_size: int,
    *,
    n_samples: int = 100,
    seed: int,
    solvers: Sequence[str] = CodeRecovery._fields,
) -> dict[str, Score]:
    """`code_recovery` as `recovered_by_<solver>`: mean over the samples, with its interval."""
    found = solved(directions, support_size, solvers, n_samples=n_samples, seed=seed)
    return {
        f"recovered_by_{solver}": mean_score(values, id=f"recovered_by_{solver}/v1") for solver, values in found.items()
    }


def solved(
    directions: Float[Tensor, "n_features d"], support_size: int, solvers: Sequence[str], *, n_samples: int, seed: int
) -> dict[str, Float64[Tensor, " n_samples"]]:
    """The fields of `CodeRecovery` that were asked for."""
    directions = directions.detach().cpu().double()
    codes = sparse_codes(n_samples, directions.shape[0], support_size, seed=seed)
    x = codes @ directions
    support = codes > 0

    def chosen(coder: Coder) -> Bool[Tensor, "n_samples n_features"]:
        return coder.encode(x, directions).to_dense() > 0

    def close(solve: Callable[[Tensor, Tensor], Tensor]) -> Float64[Tensor, " n_samples"]:
        return (relative_error(solve(x, directions), codes) < CLOSE).double()

    ways: dict[str, Callable[[], Tensor]] = {
        "pursuit": lambda: (chosen(MatchingPursuit(support_size)) == support).all(dim=1).double(),
        "nonnegative_least_squares": lambda: close(nonnegative_least_squares),
        "basis_pursuit": lambda: close(basis_pursuit),
        "lasso": lambda: close(lasso),
        "linear_top_k": lambda: (chosen(LinearTopK(support_size)) & support).sum(dim=1).double() / support_size,
    }
    unknown = [solver for solver in solvers if solver not in ways]
    if unknown:
        raise ValueError(f"recovery_rates: solvers={unknown} asked; choose among {', '.join(ways)}.")
    return {solver: ways[solver]() for solver in solvers}


def relative_error(
    estimate: Float64[Tensor, "n_samples n_features"], codes: Float64[Tensor, "n_samples n_features"]
) -> Float64[Tensor, " n_samples"]:
    """||estimate - codes|| / ||codes||."""
    error: Tensor = (estimate - codes).norm(dim=1) / codes.norm(dim=1)
    return error


def nonnegative_least_squares(
    x: Float64[Tensor, "n_samples d"], directions: Float64[Tensor, "n_features d"]
) -> Float64[Tensor, "n_samples n_features"]:
    """min ||x - z G|| over z >= 0. With fewer than n_features / 2 dimensions many z do it; this is the active set's."""
    from scipy.optimize import nnls  # noqa: PLC0415  (slow import)

    return torch.from_numpy(np.stack([nnls(directions.T.numpy(), row)[0] for row in x.numpy()]))


def basis_pursuit(
    x: Float64[Tensor, "n_samples d"], directions: Float64[Tensor, "n_features d"]
) -> Float64[Tensor, "n_samples n_features"]:
    """min sum z over z >= 0 with z G = x, as a linear program."""
    from scipy.optimize import linprog  # noqa: PLC0415  (slow import)

    n_features = directions.shape[0]
    solutions = []
    for row in x.numpy():
        result = linprog(np.ones(n_features), A_eq=directions.T.numpy(), b_eq=row, method="highs")
        solutions.append(result.x if result.x is not None else np.full(n_features, np.nan))
    return torch.from_numpy(np.stack(solutions))


def lasso(
    x: Float64[Tensor, "n_samples d"], directions: Float64[Tensor, "n_features d"]
) -> Float64[Tensor, "n_samples n_features"]:
    """min ||x - z G||^2 / 2 d + penalty * sum z over z >= 0 in the limit of no penalty, by least angle regression.

    Rows on which scikit-learn's path breaks off with an error (rarely, where features leave it) are NaN.
    """
    from sklearn.linear_model import lars_path  # noqa: PLC0415  (slow import)

    G = directions.T.numpy()
    ends = []
    for row in x.numpy():
        try:
            ends.append(lars_path(G, row, method="lasso", positive=True, max_iter=4 * len(G))[2][:, -1])
        except ValueError:
            ends.append(np.full(G.shape[1], np.nan))
    return torch.from_numpy(np.stack(ends))


def half_way(x: Sequence[int | float], rates: Sequence[float]) -> float:
    """Where a rate falls through 1/2 as x grows, linearly between the two points around it; NaN where it does not."""
    for left, right, high, low in zip(x, x[1:], rates, rates[1:], strict=False):
        if high >= 0.5 > low:
            return left + (right - left) * (high - 0.5) / (high - low)
    return nan


def guaranteed_support_size(coherence: float) -> float:
    """Below (1 + 1 / mu) / 2 active features every solver succeeds on every code; chance codes go much further."""
    return (1 + 1 / coherence) / 2


def measurements_needed(n_features: int, support_size: int | float) -> float:
    """2 k ln(n / k): the well-known asymptotic form for k << n, above the exact transition elsewhere."""
    return 2 * support_size * log(n_features / support_size)


def measurements_at_transition(n_features: int, support_size: int | float) -> float:
    """Dimensions at which basis pursuit on non-negative codes goes from failing to succeeding, for random directions.

    The statistical dimension of the descent cone, inf over t of k (1 + t^2) + (n - k) E max(g - t, 0)^2, g normal:
    one-sided, since z >= 0 leaves only upward moves off the support.
    """
    from scipy.optimize import minimize_scalar  # noqa: PLC0415  (slow import)
    from scipy.stats import norm  # noqa: PLC0415

    def bound(t: float) -> float:
        tail = (1 + t**2) * norm.sf(t) - t * norm.pdf(t)
        return float(support_size * (1 + t**2) + (n_features - support_size) * tail)

    return float(minimize_scalar(bound, bounds=(0.0, 10.0), method="bounded").fun)


def support_size_at_transition(n_features: int, d: int) -> float:
    """The largest support that basis pursuit finds from d measurements: `measurements_at_transition` solved for k."""
    from scipy.optimize import brentq  # noqa: PLC0415  (slow import)

    if not 0 < d < n_features:
        raise ValueError(
            f"support_size_at_transition: d={d} given for n_features={n_features}, but compression needs 0 < d < n."
        )
    return float(brentq(lambda k: measurements_at_transition(n_features, k) - d, 1e-9, n_features - 1e-9))
