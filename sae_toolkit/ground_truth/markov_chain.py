"""Random chains of tokens whose bigram probabilities are known: what a model without attention can learn."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from sae_toolkit.seeding import generator_for


@dataclass(frozen=True)
class MarkovChain:
    """P(next token | token)."""

    transitions: Float64[Tensor, "n_tokens n_tokens"]
    stationary: Float64[Tensor, " n_tokens"]
    """How often each token occurs in the long run."""

    @property
    def entropy(self) -> float:
        """Nats per token: the loss of a perfect reader."""
        return float(-(self.stationary[:, None] * torch.special.xlogy(self.transitions, self.transitions)).sum())

    def expected_loss(self, logits: Float[Tensor, "n_tokens n_tokens"]) -> Float[Tensor, ""]:
        """Exact mean next-token loss, in nats, of a model with these logits after each token."""
        joint = (self.stationary[:, None] * self.transitions).to(logits)
        return -(joint * logits.log_softmax(-1)).sum()

    def kl(self, logits: Float[Tensor, "n_tokens n_tokens"]) -> float:
        """Nats per token above a perfect reader."""
        return float(self.expected_loss(logits.detach().double())) - self.entropy

    def correlation(self, logits: Float[Tensor, "n_tokens n_tokens"], *, likely: float = 0.01) -> float:
        """Pearson's r of logits and log P over the pairs with P > likely, each row minus its mean over these."""
        chosen = self.transitions > likely
        weights = chosen / chosen.sum(1, keepdim=True).clamp(min=1)
        log_p = self.transitions.clamp(min=likely).log()
        found = [table - (table * weights).sum(1, keepdim=True) for table in (logits.detach().double(), log_p)]
        return float(torch.corrcoef(torch.stack([table[chosen] for table in found]))[0, 1])


def dirichlet_chain(n_tokens: int, concentration: float, *, seed: int) -> MarkovChain:
    """Rows from a symmetric Dirichlet distribution: the smaller its concentration, the fewer likely successors."""
    if n_tokens < 2 or not concentration > 0:
        raise ValueError(
            f"dirichlet_chain: n_tokens={n_tokens}, concentration={concentration} given. Give at least 2 tokens and a "
            "concentration above 0."
        )
    generator = generator_for(seed, "Dirichlet chain")
    shape = torch.full((n_tokens, n_tokens), concentration, dtype=torch.float64)
    gammas = torch._standard_gamma(shape, generator=generator).clamp(min=1e-300)
    transitions = gammas / gammas.sum(1, keepdim=True)
    values, vectors = torch.linalg.eig(transitions.T)
    leading = vectors[:, values.real.argmax()].real.abs()
    return MarkovChain(transitions, leading / leading.sum())
