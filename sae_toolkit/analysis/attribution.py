"""How much each latent contributes to a prediction, to first order.

With M the prediction, x = sum_i z_i d_i + b + e the activations at a hook (b: the decoder's bias, e: the SAE's error,
both leaves beside the latents) and g = dM/dx, latent i contributes z_i d_i . g at each token, the bias b . g, the error
e . g (gradient x activation; Marks et al. 2024, arXiv 2403.19647, equation 1, with zero as baseline). The sum of all is
x . g, the first-order change of M from x = 0 to x. Integrated gradients take the mean of g along the straight path on
which all latents grow from 0 to their activations (Sundararajan et al. 2017, arXiv 1703.01365; Marks et al., eq. 2).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Float64, Int
from torch import Tensor

from sae_toolkit.activations.current_reading import Reading
from sae_toolkit.activations.language_model import LanguageModel
from sae_toolkit.analysis.predictions import Prediction, check_prediction
from sae_toolkit.analysis.steering import Where
from sae_toolkit.metrics.evaluate import inference_mode_of
from sae_toolkit.saes.base import AbstractDictionary
from sae_toolkit.sparse_rows import SparseRows, offsets_of_counts

MAX_LATENTS = 2**22
"""Products of gradients with decoder rows in memory at a time (float32: 16 MiB): tokens times d_sae."""


@dataclass(frozen=True, kw_only=True)
class Attribution:
    """Contributions to the prediction of each row, in its units (logits, nats), token by token."""

    latents: SparseRows
    """`[rows context d_sae]`: z_i d_i . g of the latents that fire."""
    bias: Float[Tensor, "rows context"]
    error: Float[Tensor, "rows context"]
    """Of what the SAE does not reconstruct."""
    left_out: Float[Tensor, "rows context"]
    """x . g of tokens at which the SAE is not applied (special tokens); 0 elsewhere."""
    prediction: Float[Tensor, " rows"]
    """The prediction itself."""

    def by_latent(self) -> SparseRows:
        """`[rows d_sae]`: contributions summed over the tokens of each row, in float64."""
        n_rows, context, d_sae = self.latents.shape
        keys = self.latents.rows // context * d_sae + self.latents.indices
        distinct, place = torch.unique(keys, return_inverse=True)
        sums = torch.zeros(len(distinct), dtype=torch.float64).index_add_(0, place, self.latents.values.double())
        offsets = offsets_of_counts(torch.bincount(distinct // d_sae, minlength=n_rows))
        return SparseRows(sums, distinct % d_sae, offsets, (n_rows, d_sae))

    def total(self) -> Float64[Tensor, " rows"]:
        """The sum of all contributions of each row: the first-order change x . g."""
        n_rows = self.latents.shape[0]
        rest = (self.bias.double() + self.error.double() + self.left_out.double()).sum(1)
        latents = torch.zeros(n_rows, dtype=torch.float64)
        latents.index_add_(0, self.latents.rows // self.latents.shape[1], self.latents.values.double())
        return rest + latents


def gradient_attribution(
    sae: AbstractDictionary,
    model: LanguageModel,
    hook: str,
    tokens: Int[Tensor, "rows context"],
    prediction: Prediction,
    *,
    where: Where | None = None,
) -> Attribution:
    """Gradient x activation at the model's own activations: one forward and one backward pass."""
    return attribution(sae, model, hook, tokens, prediction, where=where, shares=(1.0,))


def integrated_attribution(
    sae: AbstractDictionary,
    model: LanguageModel,
    hook: str,
    tokens: Int[Tensor, "rows context"],
    prediction: Prediction,
    *,
    n_steps: int = 8,
    where: Where | None = None,
) -> Attribution:
    """The same with the mean gradient at the middles of n_steps equal parts of the path, as many passes.

    The latents' contributions then sum to M - M(all latents 0), up to the steps' error; bias and error stay on the
    whole path, so that theirs are first-order terms with the mean gradient.
    """
    if n_steps < 1:
        raise ValueError(f"integrated_attribution: n_steps={n_steps} given, but at least 1 is needed.")
    middles = tuple((step + 0.5) / n_steps for step in range(n_steps))
    return attribution(sae, model, hook, tokens, prediction, where=where, shares=middles)


def attribution(
    sae: AbstractDictionary,
    model: LanguageModel,
    hook: str,
    tokens: Int[Tensor, "rows context"],
    prediction: Prediction,
    *,
    where: Where | None,
    shares: tuple[float, ...],
) -> Attribution:
    """With the mean gradient over points at which the latents have these shares of their activations."""
    x = model.capture(tokens, [hook])[hook].float()
    if x.shape[-1] != sae.d_in:
        raise ValueError(
            f"attribution: the SAE reads vectors of d_in={sae.d_in}, but {hook} of {model.name} has {x.shape[-1]}."
        )
    kept = (Where() if where is None else where).holds(Reading(tokens, 0), model).to(x.device)
    if not kept.any():
        raise ValueError("attribution: `where` leaves no token of these rows. Give tokens that it does not exclude.")
    parts = decomposed(sae, x[kept])
    gradient = torch.zeros_like(x)
    for share in shares:
        point = x.clone()
        if share != 1:
            point[kept] -= (1 - share) * parts.of_latents
        gradient += gradient_at(model, hook, tokens, prediction, point) / len(shares)
    with torch.no_grad():
        values = prediction(model.logits(tokens).float(), tokens)
    return contributions(sae, x, kept, parts, gradient, check_prediction(values, len(tokens)))


@dataclass(frozen=True)
class Decomposition:
    """Activations at the tokens of an SAE as the sum of three vectors; what reconstructs them, sparse."""

    latents: SparseRows
    of_latents: Float[Tensor, "n d_in"]
    bias: Float[Tensor, "n d_in"]
    error: Float[Tensor, "n d_in"]


@torch.no_grad()
def decomposed(sae: AbstractDictionary, x: Float[Tensor, "n d_in"]) -> Decomposition:
    """x = of_latents + bias + error, chunk by chunk."""
    directions = sae.decoder_directions()
    found: list[tuple[SparseRows, Tensor, Tensor]] = []
    with inference_mode_of([sae]):
        for part in torch.split(x, tokens_at_once(sae)):
            output = sae.forward(part.to(directions))
            latents = output.sparse_latents()
            found.append((latents, latents.combine(directions), output.reconstruction))
    rows = [latents for latents, _, _ in found]
    joined = SparseRows(
        torch.cat([part.values for part in rows]),
        torch.cat([part.indices for part in rows]),
        offsets_of_counts(torch.cat([part.offsets.diff() for part in rows])),
        (len(x), sae.d_sae),
    )
    of_latents = torch.cat([part for _, part, _ in found]).to(x)
    reconstruction = torch.cat([part for _, _, part in found]).to(x)
    return Decomposition(joined, of_latents, reconstruction - of_latents, x - reconstruction)


def gradient_at(
    model: LanguageModel,
    hook: str,
    tokens: Int[Tensor, "rows context"],
    prediction: Prediction,
    point: Float[Tensor, "rows context d_in"],
) -> Float[Tensor, "rows context d_in"]:
    """Gradient of each row's prediction in its own activations, at some activations put in the model's place."""
    leaf = point.detach().requires_grad_()
    with torch.enable_grad(), model.replacing({hook: lambda _: leaf}):
        values = check_prediction(prediction(model.forward(tokens).float(), tokens), len(tokens))
        (gradient,) = torch.autograd.grad(values.sum(), leaf)
    return gradient


@torch.no_grad()
def contributions(
    sae: AbstractDictionary,
    x: Float[Tensor, "rows context d_in"],
    kept: Bool[Tensor, "rows context"],
    parts: Decomposition,
    gradient: Float[Tensor, "rows context d_in"],
    values: Float[Tensor, " rows"],
) -> Attribution:
    """Every part's product with the gradient, on the CPU."""
    inside = gradient[kept]

    def everywhere(numbers: Tensor) -> Tensor:
        return torch.zeros_like(x[..., 0]).masked_scatter(kept, numbers).cpu()

    latents = parts.latents
    slopes = torch.empty_like(latents.values)
    directions = sae.decoder_directions()
    step = tokens_at_once(sae)
    for start in range(0, len(inside), step):
        stop = min(start + step, len(inside))
        entries = slice(int(latents.offsets[start]), int(latents.offsets[stop]))
        products = inside[start:stop].to(directions) @ directions.T
        slopes[entries] = products[latents.rows[entries] - start, latents.indices[entries]]
    counts = torch.zeros_like(kept, dtype=torch.long).masked_scatter(kept, latents.offsets.diff().to(kept.device))
    offsets = offsets_of_counts(counts.flatten().cpu())
    shape = (*x.shape[:2], sae.d_sae)
    return Attribution(
        latents=SparseRows((latents.values * slopes).cpu(), latents.indices.cpu(), offsets, shape),
        bias=everywhere((parts.bias * inside).sum(-1)),
        error=everywhere((parts.error * inside).sum(-1)),
        left_out=torch.where(kept, 0.0, (x * gradient).sum(-1)).cpu(),
        prediction=values.detach().cpu(),
    )


def tokens_at_once(sae: AbstractDictionary) -> int:
    """How many tokens fit MAX_LATENTS, and at least one."""
    return max(1, MAX_LATENTS // sae.d_sae)
