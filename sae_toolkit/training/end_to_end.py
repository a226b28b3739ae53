"""End-to-end training (Braun et al. 2024, "Identifying Functionally Important Features with End-to-End Sparse
Dictionary Learning", arXiv 2405.12241): what matters is what the model predicts with the reconstruction in place.

L = KL(clean || spliced) + the SAE's own sparsity penalty (equation 2), here with any share of its own reconstruction
error kept beside it. Without one, latents need not stand for what was there, only for what the rest of the model uses.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor

from sae_toolkit.activations.divergence import spliced_divergence
from sae_toolkit.activations.source import ActivationBatch, Site
from sae_toolkit.activations.whole_rows import WholeRowsSource
from sae_toolkit.config import to_json
from sae_toolkit.saes.base import SAEOutput
from sae_toolkit.training.objective import Objective

RECONSTRUCTION_SUFFIX = "mse"
"""How the names of all loss terms end that are squared errors of a reconstruction."""


class EndToEnd(Objective):
    """KL divergence through the model, with the SAE's penalty and part of its reconstruction error.

    A step costs two forward passes of the model and one backward pass, whatever the site.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """What is weighed against what."""

        kl_coefficient: float = 1.0
        """Weight of the mean divergence per token, in nats."""
        reconstruction_coefficient: float = 0.0
        """Weight of the SAE's own squared errors, which start near 1. 0: the paper's purely functional loss."""

        def __post_init__(self) -> None:
            for name in ("kl_coefficient", "reconstruction_coefficient"):
                if not getattr(self, name) >= 0:
                    raise ValueError(f"EndToEnd: {name}={getattr(self, name)} given, but it must not be negative.")

    def __init__(self, source: WholeRowsSource, config: Config | None = None) -> None:
        self.model = source.transformer.model
        self.config = EndToEnd.Config() if config is None else config

    def terms(
        self, own: Mapping[str, Float[Tensor, ""]], output: SAEOutput, batch: ActivationBatch, site: Site
    ) -> dict[str, Float[Tensor, ""]]:
        if batch.token_rows is None:
            raise ValueError("EndToEnd: the batches hold no rows of text. Train on WholeRowsSource(source).")
        if not isinstance(site, str):
            raise ValueError(f"EndToEnd: {site} are reconstructed together, but one hook is needed to splice in at.")
        rebuilt = output.reconstruction
        kl, gradient = spliced_divergence(self.model, batch.token_rows, site, rebuilt.detach())
        # The value is the divergence, the gradient is known: what is added is 0 and has that gradient.
        divergence = kl.to(rebuilt) + ((rebuilt - rebuilt.detach()) * gradient.to(rebuilt)).sum()
        kept = {
            name: self.config.reconstruction_coefficient * term if name.endswith(RECONSTRUCTION_SUFFIX) else term
            for name, term in own.items()
        }
        return {**kept, "kl": self.config.kl_coefficient * divergence}

    def describe(self) -> dict[str, Any]:
        return {"name": "EndToEnd", **to_json(self.config)}
