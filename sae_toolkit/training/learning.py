"""How one SAE learns: the choices that may differ between SAEs that share one pass over the data."""

from dataclasses import dataclass
from typing import Literal

from sae_toolkit.training.revival import RevivalConfig


@dataclass(frozen=True, kw_only=True)
class LearningConfig:
    """Optimizer, schedule, revival and sparsity control of one SAE."""

    learning_rate: float = 1e-2
    """Peak learning rate of Adam. The default suits a few hundred latents and 2000 steps; for other sizes there is
    `suggested_learning_rate`."""
    beta1: float = 0.9
    """Adam's decay of the gradient mean."""
    beta2: float = 0.99
    """Adam's decay of the squared gradient. 0.999 remembers a rare latent's first large gradients for too long."""
    warmup_steps: int = 100
    """Optimizer updates over which the learning rate rises linearly from 0."""
    decay_fraction: float = 0.8
    """Share of the run, at its end, over which the learning rate falls linearly to 0."""
    rank_in: Literal["float32", "bfloat16"] = "float32"
    """Precision in which variants that select latents by rank look for candidates in training. bfloat16 halves the time
    of the encoder's product; a quarter more candidates than wanted are then ranked by their exact values."""
    clip_norm: float | None = 1.0
    """Largest global gradient norm; longer gradients are scaled down. None: no clipping."""
    revival: RevivalConfig = RevivalConfig()
    """What counts as dead, and what brings it back."""
    target_l0: float | None = None
    """Mean number of active latents that the sparsity penalty is steered to. None: the penalty's weight is fixed."""
    sparsity_warmup_fraction: float = 0.4
    """Share of the run over which the sparsity penalty grows (or the L0 target is approached)."""

    def __post_init__(self) -> None:
        if not self.learning_rate > 0:
            raise ValueError(f"LearningConfig: learning_rate={self.learning_rate} given, but it must be positive.")
        for name in ("clip_norm", "target_l0"):
            if getattr(self, name) is not None and not getattr(self, name) > 0:
                raise ValueError(f"LearningConfig: {name}={getattr(self, name)} given; use a positive value or None.")
        if self.rank_in not in ("float32", "bfloat16"):
            raise ValueError(f"LearningConfig: rank_in={self.rank_in!r} given; choose float32 or bfloat16.")
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"LearningConfig: {name}={getattr(self, name)} given, but it must lie in [0, 1).")
        for name in ("decay_fraction", "sparsity_warmup_fraction"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"LearningConfig: {name}={getattr(self, name)} given, but it must lie in [0, 1].")
        if self.warmup_steps < 0:
            raise ValueError(f"LearningConfig: warmup_steps={self.warmup_steps} given, but it must not be negative.")


def suggested_learning_rate(*, d_sae: int, n_steps: int) -> float:
    """A peak learning rate of Adam for this width and number of optimizer updates, whatever the batch size.

    1e-2 * sqrt(2000 / n_steps) * (256 / d_sae)^(1/4): fitted to TopK on known worlds of 256 and 1024 features, 300 to
    2000 steps (`docs/training.md`); beyond that it extrapolates.
    """
    for name, value in (("d_sae", d_sae), ("n_steps", n_steps)):
        if value < 1:
            raise ValueError(f"suggested_learning_rate: {name}={value} given, but it must be at least 1.")
    return float(1e-2 * (2000 / n_steps) ** 0.5 * (256 / d_sae) ** 0.25)
