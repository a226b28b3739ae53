"""How much each latent contributes to a prediction, to first order.

With M the prediction, x = sum_i z_i d_i + b + e the activations at a hook (b: the decoder's bias, e: the SAE's error,
both leaves beside the latents) and g = dM/dx, latent i contributes z_i d_i . g at each token, the bias b . g, the error
e . g (gradient x activation; Marks et al. 2024, arXiv 2403.19647, equation 1, with zero as baseline). The sum of all is
x . g, the first-order change of M from x = 0 to x. Integrated gradients take the mean of g along the straight path on
which all latents grow from 0 to their activations (Sundararajan et al. 2017, arXiv 1703.01365; Marks et al., eq. 2).

Two things make first order wrong, most of all near a model's input, where a latent is nearly all of its token. A norm
hardly reacts to a longer or shorter input, so that the gradient along it vanishes, but removing it leaves another
token: norm-exact attribution calls the norms again. And on a path along which all latents vanish at once, a model sees
what it never does: latents can take the path group by group.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Bool, Float, Float64, Int
from torch import Tensor

from sae_toolkit.activations import current_reading
from sae_toolkit.activations.language_model import LanguageModel
from sae_toolkit.analysis.predictions import Prediction
from sae_toolkit.analysis.steering import Where
from sae_toolkit.analysis.stream_readers import ReadAt, Reading, read_at_hook, read_by_stream
from sae_toolkit.metrics.evaluate import inference_mode_of
from sae_toolkit.saes.base import AbstractDictionary
from sae_toolkit.seeding import generator_for
from sae_toolkit.sparse_rows import SparseRows, offsets_of_counts

MAX_LATENTS = 2**22
"""Pre-activations of the SAE, and numbers of decoder rows, in memory at a time (float32: 16 MiB)."""
OWN = (1.0,)
"""Gradients at the model's own activations."""


@dataclass(frozen=True, kw_only=True)
class Attribution:
    """Contributions to the prediction of each row, in its units (logits, nats), token by token."""

    latents: SparseRows
    """`[rows context d_sae]`: of the latents that fire, z_i d_i . g, or what the function says instead."""
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
        """The sum of all contributions of each row; with gradients at the model's own activations x . g."""
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
    return attribution(sae, model, hook, tokens, prediction, where=where, shares=OWN)


def norm_exact_attribution(
    sae: AbstractDictionary,
    model: LanguageModel,
    hook: str,
    tokens: Int[Tensor, "rows context"],
    prediction: Prediction,
    *,
    n_groups: int | None = None,
    where: Where | None = None,
    seed: int = 0,
) -> Attribution:
    """To first order in what later norms make of the residual stream, exact in how they react to a latent's loss.

    Latent i contributes sum_r (u_r(x_r) - u_r(x_r - z_i d_i)) . dM/du_r over all norms r that read the stream behind
    the hook, x_r being what they read. One pass forward and back, as the gradient costs, and n_latents * n_norms norms
    of single tokens. With `n_groups`, dM/du_r is taken at half the activations of one group of latents (dealt at
    random, all others as they are), as many passes more. Bias, error and what is left out keep the gradient at the
    hook. A hook that does not write into the residual stream is a ValueError.
    """
    common = partial(attribution, sae, model, hook, tokens, prediction, where=where, read=read_by_stream)
    return common(shares=OWN) if n_groups is None else common(shares=(0.5,), n_groups=n_groups, seed=seed)


def integrated_attribution(
    sae: AbstractDictionary,
    model: LanguageModel,
    hook: str,
    tokens: Int[Tensor, "rows context"],
    prediction: Prediction,
    *,
    n_steps: int = 8,
    n_groups: int = 1,
    where: Where | None = None,
    seed: int = 0,
) -> Attribution:
    """The same with the mean gradient at the middles of n_steps equal parts of the path, as many passes.

    The latents' contributions then sum to M - M(all latents 0), up to the steps' error; bias and error stay on the
    whole path, so that theirs are first-order terms with the mean gradient. With n_groups > 1 one group of latents
    after another, dealt at random, takes the path alone: n_steps * n_groups passes, and one at the model's own
    activations. With a group for each latent contributions are effects of removals, dearer than `ablation_effects`.
    """
    if n_steps < 1:
        raise ValueError(f"integrated_attribution: n_steps={n_steps} given, but at least 1 is needed.")
    middles = tuple((step + 0.5) / n_steps for step in range(n_steps))
    common = partial(attribution, sae, model, hook, tokens, prediction, where=where)
    return common(shares=middles, n_groups=n_groups, seed=seed)


def attribution(
    sae: AbstractDictionary,
    model: LanguageModel,
    hook: str,
    tokens: Int[Tensor, "rows context"],
    prediction: Prediction,
    *,
    where: Where | None,
    shares: tuple[float, ...],
    n_groups: int = 1,
    seed: int = 0,
    read: ReadAt = read_at_hook,
) -> Attribution:
    """With the mean gradients over points at which the latents of one group have these shares of their activations."""
    x = model.capture(tokens, [hook])[hook].float()
    if x.shape[-1] != sae.d_in:
        raise ValueError(
            f"attribution: the SAE reads vectors of d_in={sae.d_in}, but {hook} of {model.name} has {x.shape[-1]}."
        )
    kept = (Where() if where is None else where).holds(current_reading.Reading(tokens, 0), model).to(x.device)
    if not kept.any():
        raise ValueError("attribution: `where` leaves no token of these rows. Give tokens that it does not exclude.")
    parts = decomposed(sae, x[kept])
    latents, directions = parts.latents, sae.decoder_directions().detach()
    own = read(model, hook, tokens, prediction, x)
    gradient, values = torch.zeros_like(x), torch.zeros_like(latents.values)
    groups = dealt(latents.indices, n_groups, seed)
    for number in range(n_groups):
        inside = groups == number
        if shares == OWN:
            passes = [own]
        else:
            moving = latents.with_values(latents.values * inside).combine(directions).to(x)
            points = (without(x, kept, (1 - share) * moving) for share in shares)
            passes = [read(model, hook, tokens, prediction, point) for point in points]
        gradient += sum((each.gradient for each in passes), torch.zeros_like(x)) / (len(passes) * n_groups)
        readings = [mean_reading(*each) for each in zip(own.readings, *(each.readings for each in passes), strict=True)]
        entries = inside.nonzero()[:, 0]
        values[entries] = entry_contributions(latents, entries, directions, kept, readings)
    return contributions(parts, x, kept, gradient, values, own.prediction)


def dealt(latents: Int[Tensor, " nnz"], n_groups: int, seed: int) -> Int[Tensor, " nnz"]:
    """The group of each entry: latents that fire are dealt at random into groups of equal size, give or take one."""
    if n_groups < 1:
        raise ValueError(f"attribution: n_groups={n_groups} given, but at least 1 is needed.")
    firing, place = torch.unique(latents, return_inverse=True)
    order = torch.randperm(len(firing), generator=generator_for(seed, "attribution groups"))
    return (order % n_groups).to(place.device)[place]


def without(
    x: Float[Tensor, "rows context d_in"], kept: Bool[Tensor, "rows context"], lost: Float[Tensor, "n d_in"]
) -> Float[Tensor, "rows context d_in"]:
    """Activations that have lost something at the kept tokens."""
    point = x.clone()
    point[kept] -= lost
    return point


def mean_reading(own: Reading, *others: Reading) -> Reading:
    """A reader's mean gradient over several passes, and what it is given in the model's own."""
    return own._replace(gradient=torch.stack([other.gradient for other in others]).mean(0))


@torch.no_grad()
def entry_contributions(
    latents: SparseRows,
    entries: Int[Tensor, " n"],
    directions: Float[Tensor, "d_sae d_in"],
    kept: Bool[Tensor, "rows context"],
    readings: Sequence[Reading],
) -> Float[Tensor, " n"]:
    """What the prediction loses with each of some latents at one token each, reading by reading."""
    tokens = kept.flatten().nonzero()[:, 0]
    widest = max(reading.gradient.shape[-1] for reading in readings)
    found = [torch.zeros(0, device=latents.values.device)]
    for part in torch.split(entries, max(1, MAX_LATENTS // widest)):
        places = tokens[latents.rows[part].to(tokens.device)]
        lost = (latents.values[part, None] * directions[latents.indices[part]]).to(readings[0].gradient)
        total = torch.zeros_like(lost[:, 0])
        for reading in readings:
            total += (reading.change(places, lost) * reading.gradient.flatten(0, 1)[places]).sum(-1)
        found.append(total.to(latents.values))
    return torch.cat(found)


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


@torch.no_grad()
def contributions(
    parts: Decomposition,
    x: Float[Tensor, "rows context d_in"],
    kept: Bool[Tensor, "rows context"],
    gradient: Float[Tensor, "rows context d_in"],
    of_latents: Float[Tensor, " nnz"],
    prediction: Float[Tensor, " rows"],
) -> Attribution:
    """Those of latents, and the products of all else with the gradient, on the CPU."""
    inside = gradient[kept]

    def everywhere(numbers: Tensor) -> Tensor:
        return torch.zeros_like(x[..., 0]).masked_scatter(kept, numbers).cpu()

    latents = parts.latents
    counts = torch.zeros_like(kept, dtype=torch.long).masked_scatter(kept, latents.offsets.diff().to(kept.device))
    offsets = offsets_of_counts(counts.flatten().cpu())
    shape = (*x.shape[:2], latents.n_columns)
    return Attribution(
        latents=SparseRows(of_latents.cpu(), latents.indices.cpu(), offsets, shape),
        bias=everywhere((parts.bias * inside).sum(-1)),
        error=everywhere((parts.error * inside).sum(-1)),
        left_out=torch.where(kept, 0.0, (x * gradient).sum(-1)).cpu(),
        prediction=prediction.cpu(),
    )


def tokens_at_once(sae: AbstractDictionary) -> int:
    """How many tokens fit MAX_LATENTS, and at least one."""
    return max(1, MAX_LATENTS // sae.d_sae)
