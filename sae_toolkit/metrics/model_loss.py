"""What a language model's predictions lose when a dictionary's reconstruction takes the place of its activations."""

from collections.abc import Mapping
from weakref import WeakKeyDictionary

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from sae_toolkit.activations.source import ActivationBatch, ActivationSource, Replacement, SplicingSource
from sae_toolkit.metrics.bootstrap import N_BLOCKS, BlockSums, Statistic, ratio, sums_score
from sae_toolkit.metrics.metric import Metric
from sae_toolkit.metrics.score import Score
from sae_toolkit.metrics.score_units import ScoreUnits, block_units
from sae_toolkit.saes.base import AbstractDictionary, SAEOutput
from sae_toolkit.seeding import derived_seed

LOSS_TOKENS = 8192
MEAN_SAMPLES = 16_384
"""Train-split samples behind the mean that takes the activations' place."""
SAMPLES_AT_ONCE = 1024
"""A source may splice many rows of text at once; what a dictionary needs for them is d_sae wide."""
LEAST_GAP = 0.05
"""Nats per token: an ablation that costs less leaves too little to recover for a ratio to say anything."""

MEANS: WeakKeyDictionary[SplicingSource, Tensor] = WeakKeyDictionary()
ABLATIONS: WeakKeyDictionary[SplicingSource, dict[int, BlockSums]] = WeakKeyDictionary()
"""Losses without any dictionary, by source object and number of tokens. They are a function of these two alone, and
every one of some fifteen controls needs them."""


class ModelLoss(Metric):
    """CE, in nats: mean over held-out tokens of the next one's negative log-likelihood, by what the model goes on with.

    `ce_clean`: its own activations. `ce_spliced`: the dictionary's reconstruction. `ce_zero`: zeros. `ce_mean`: the
    mean activation of 16,384 train samples. `kl_spliced`: mean KL(clean || spliced) of next-token distributions.
    `ce_recovered_zero`: (ce_zero - ce_spliced) / (ce_zero - ce_clean); `ce_recovered_mean` the same with ce_mean.
    `kl_recovered_mean`: 1 - kl_spliced / KL(clean || mean).

    Ratios of means, NaN where the denominator is below 0.05 nats; above 1 where splicing improves the loss. Tokens that
    training leaves out (BOS, padding) keep their activations and are not counted. Intervals: bootstrap over documents,
    gathered in 256 blocks. A transcoder is given what stands at the place it reads; its prediction takes the place of
    its target, as do zeros and the mean. A source that reads several sites is asked at one of them (`site_of`).
    """

    @classmethod
    def for_source(cls, source: ActivationSource) -> list[Metric]:
        return [cls(source)] if isinstance(source, SplicingSource) and len(source.sites) == 1 else []

    def __init__(self, source: SplicingSource, n_tokens: int = LOSS_TOKENS) -> None:
        if n_tokens < 1:
            raise ValueError(f"ModelLoss: n_tokens={n_tokens} asked, but at least 1 token is needed.")
        self.source, self.n_tokens = source, n_tokens

    def update(self, batch: ActivationBatch, output: SAEOutput) -> None:
        # A batch is shuffled samples; a loss needs whole rows of text run through the model, which `compute` asks for.
        del batch, output

    def compute(self, sae: AbstractDictionary) -> dict[str, Score]:
        n, measured = self.measure(sae)
        return {name: sums_score(sums, statistic, n=n, id=f"{name}/v1") for name, (statistic, sums) in measured.items()}

    def units(self, sae: AbstractDictionary) -> dict[str, ScoreUnits]:
        _, measured = self.measure(sae)
        return {name: block_units(sums, statistic, f"{name}/v1") for name, (statistic, sums) in measured.items()}

    def measure(self, sae: AbstractDictionary) -> tuple[int, dict[str, tuple[Statistic, Float64[np.ndarray, "_ _"]]]]:
        """Runs the model: the number of tokens and, by score, the statistic and the sums it takes, block by block."""
        ablated = ablation_sums(self.source.written, self.n_tokens)
        spliced = loss_sums(self.source, {"spliced": reconstruction_of(sae)}, n_tokens=self.n_tokens)
        if not torch.equal(column(spliced, "tokens"), column(ablated, "tokens")):
            raise ValueError(
                f"ModelLoss: {type(self.source).__name__} gave other tokens on a second call "
                f"({ablated.total('tokens'):.0f}, then {spliced.total('tokens'):.0f}). Its `losses_with` must give the "
                "same tokens, in the same order, on every call."
            )
        tokens, clean, loss = (column(spliced, name) for name in ("tokens", "clean", "spliced"))
        kl, zero, mean = column(spliced, "kl_spliced"), column(ablated, "zero"), column(ablated, "mean")
        nothing_lost = torch.zeros_like(kl)
        asked: dict[str, tuple[Statistic, tuple[Tensor, ...]]] = {
            "ce_clean": (ratio, (clean, tokens)),
            "ce_spliced": (ratio, (loss, tokens)),
            "ce_zero": (ratio, (zero, tokens)),
            "ce_mean": (ratio, (mean, tokens)),
            "ce_recovered_zero": (recovered, (zero, loss, clean, tokens)),
            "ce_recovered_mean": (recovered, (mean, loss, clean, tokens)),
            "kl_spliced": (ratio, (kl, tokens)),
            "kl_recovered_mean": (recovered, (column(ablated, "kl_mean"), kl, nothing_lost, tokens)),
        }
        return round(spliced.total("tokens")), {
            name: (statistic, torch.stack(columns, 1)[spliced.occupied].numpy())
            for name, (statistic, columns) in asked.items()
        }


def recovered(sums: Float64[np.ndarray, "n 4"]) -> Float64[np.ndarray, " n"]:
    """(ablated - spliced) / (ablated - clean) from sums over as many tokens as the last column says.

    NaN where the ablation costs less than `LEAST_GAP` per token, or improves the loss.
    """
    ablated, spliced, clean, tokens = sums.T
    share = np.full(len(sums), np.nan)
    np.divide(ablated - spliced, ablated - clean, out=share, where=ablated - clean >= LEAST_GAP * tokens)
    return share


@torch.no_grad()
def loss_sums(source: SplicingSource, replacements: Mapping[str, Replacement], *, n_tokens: int) -> BlockSums:
    """Sums in nats by blocks of documents: "tokens", "clean" and, of each replacement, its name and "kl_<name>"."""
    sums = BlockSums("tokens", "clean", *replacements, *(f"kl_{name}" for name in replacements))
    for chunk in source.losses_with(replacements, n_tokens=n_tokens):
        likelihoods = {name: losses.nll.cpu() for name, losses in chunk.items()}
        divergences = {f"kl_{name}": chunk[name].kl.cpu() for name in replacements}
        blocks = chunk["clean"].document_ids.cpu().long() % N_BLOCKS
        sums.update(blocks, tokens=torch.ones(len(blocks)), **likelihoods, **divergences)
    if sums.total("tokens") == 0:
        raise ValueError(
            f"ModelLoss: {n_tokens} tokens asked, but {type(source).__name__} counted none on the eval split. "
            "Give it more text or a larger eval share."
        )
    return sums


def column(sums: BlockSums, name: str) -> Float64[Tensor, " n_blocks"]:
    """One quantity's sum in each block."""
    return sums.sums[:, sums.names.index(name)]


def reconstruction_of(sae: AbstractDictionary) -> Replacement:
    """The dictionary's reconstruction, in the type and on the device of what it replaces."""
    device = sae.decoder_directions().device

    def reconstruct(x: Float[Tensor, "n d_in"]) -> Float[Tensor, "n d_out"]:
        parts = torch.split(x.to(device).float(), SAMPLES_AT_ONCE)
        return torch.cat([sae.forward(part).reconstruction for part in parts]).to(x)

    return reconstruct


def ablation_sums(source: SplicingSource, n_tokens: int) -> BlockSums:
    """`loss_sums` of "zero" and "mean", computed once per source object."""
    known = ABLATIONS.setdefault(source, {})
    if n_tokens not in known:
        mean = mean_activation(source)
        ablations: dict[str, Replacement] = {"zero": torch.zeros_like, "mean": lambda x: mean.to(x).expand_as(x)}
        known[n_tokens] = loss_sums(source, ablations, n_tokens=n_tokens)
    return known[n_tokens]


@torch.no_grad()
def mean_activation(source: SplicingSource) -> Float[Tensor, " d_in"]:
    """Mean over `MEAN_SAMPLES` of the train split, from a stream of their own; computed once per source object."""
    if source not in MEANS:
        stream = source.stream(1024, seed=derived_seed(0, "mean ablation"), split="train")
        total = torch.zeros(source.d_in, dtype=torch.float64)
        for _ in range(MEAN_SAMPLES // 1024):
            total += next(stream).activations.cpu().double().sum(0)
        MEANS[source] = (total / MEAN_SAMPLES).float()
    return MEANS[source]
