"""How many of thousands of findings are chance: the false discovery rate.

Benjamini & Hochberg 1995 (J. R. Stat. Soc. B 57): p-values sorted up, q_i = min over j >= i of p_j n / j. Calling what
has q <= level keeps the expected share of false calls at or below it, for independent or positively dependent tests.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

LEVEL = 0.05


class Discoveries(NamedTuple):
    """One test per latent, and which of them stand after correction."""

    effect: Float64[Tensor, " n_latents"]
    """Mean over the replicates."""
    p_values: Float64[Tensor, " n_latents"]
    """NaN where a latent was not tested."""
    q_values: Float64[Tensor, " n_latents"]
    """Smallest false discovery rate at which the latent is called; NaN where it was not tested."""
    found: Bool[Tensor, " n_latents"]
    """q at or below the level."""

    @property
    def n_tested(self) -> int:
        """The number that the correction counts."""
        return int((~self.p_values.isnan()).sum())


def benjamini_hochberg(p_values: Float[Tensor, " n"]) -> Float64[Tensor, " n"]:
    """q-values; NaN tests are no tests, so that they are left out of n and stay NaN."""
    p = p_values.double()
    tested = ~p.isnan()
    outside = (p[tested] < 0) | (p[tested] > 1)
    if outside.any():
        raise ValueError(f"benjamini_hochberg: {int(outside.sum())} values outside [0, 1] given; p-values are needed.")
    q = torch.full_like(p, torch.nan)
    order = p[tested].argsort()
    n = len(order)
    scaled = p[tested][order] * n / torch.arange(1, n + 1)
    in_order = scaled.flip(0).cummin(0).values.flip(0) if n else scaled
    q[tested] = torch.empty_like(in_order).scatter_(0, order, in_order.clamp_max(1))
    return q


def latents_with_effect(
    replicates: Float[Tensor, "n_replicates n_latents"], *, null: float = 0.0, level: float = LEVEL
) -> Discoveries:
    """A two-sided t-test of every latent's mean against `null`, over independent replicates, corrected together.

    A replicate is what would vary on a repetition: a block of documents, a seed; never a token. A latent that is `null`
    in every replicate is not tested; one that is anything else in every replicate has p = 0. Memory: three copies of
    `replicates`.
    """
    from scipy.stats import t as student  # noqa: PLC0415  (slow import)

    n = len(replicates)
    if n < 2:
        raise ValueError(f"latents_with_effect: {n} replicate(s) given, but a t-test needs 2. Give one row per block.")
    values = replicates.detach().cpu().double()
    effect = values.mean(0)
    error = values.std(0) / n**0.5
    statistic = (effect - null).abs() / error
    p_values = torch.from_numpy(2 * student.sf(statistic.numpy(), df=n - 1))
    constant = (values == values[:1]).all(0)
    p_values[constant] = torch.where(values[0, constant] == null, torch.nan, 0.0).double()
    q_values = benjamini_hochberg(p_values)
    return Discoveries(effect, p_values, q_values, q_values <= level)
