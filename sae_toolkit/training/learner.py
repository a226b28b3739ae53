"""One SAE on its way: its optimizer, schedule, dead-latent counters and sparsity control, one step at a time."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from sae_toolkit.saes.base import AbstractSAE, SAEOutput, TrainingSignals
from sae_toolkit.seeding import generator_for
from sae_toolkit.sparse_rows import SparseRows
from sae_toolkit.training.dead_latents import DeadLatents, fired_latents, resample_
from sae_toolkit.training.learning import LearningConfig
from sae_toolkit.training.optimizer import (
    clip_gradients_,
    gradient_norm,
    make_optimizer,
    normalise_rows_,
    project_decoder_gradient_,
)
from sae_toolkit.training.revival import revival_terms
from sae_toolkit.training.schedules import learning_rate_factor
from sae_toolkit.training.sparsity_control import SparsityControl


@dataclass(frozen=True)
class StepResult:
    """What one update did; tensors stay on the device until somebody logs them."""

    terms: dict[str, Float[Tensor, ""]]
    """The weighted loss terms."""
    l0: Float[Tensor, ""]
    """Mean number of active latents per sample of this batch."""
    gradient_norm: Float[Tensor, ""]
    """Global gradient norm before clipping."""

    def loss(self) -> Float[Tensor, ""]:
        return torch.stack(list(self.terms.values())).sum()


class Learner:
    """Everything that training one SAE changes."""

    def __init__(self, sae: AbstractSAE, config: LearningConfig, *, n_steps: int, batch_size: int, seed: int) -> None:
        if config.target_l0 is not None and not sae.has_sparsity_penalty:
            raise ValueError(
                f"target_l0={config.target_l0} asked, but {type(sae).__name__} has no sparsity penalty to steer. "
                f"Set its own sparsity (such as k), or leave target_l0 at None."
            )
        self.sae, self.config, self.n_steps, self.seed = sae, config, n_steps, seed
        device = sae.W_dec.device
        self.optimizer = make_optimizer(sae.parameters(), config)
        dead_after = config.dead_after_samples or max(batch_size, n_steps * batch_size // 400)
        self.dead = DeadLatents(sae.d_sae, dead_after_samples=dead_after, device=device)
        self.control = SparsityControl(config, n_steps=n_steps, device=device)

    def step(
        self, x: Float[Tensor, "batch d_in"], step: int, *, before_update: Callable[[StepResult], None]
    ) -> StepResult:
        """One optimizer update on one batch of raw activations; `step` counts from 0.

        `before_update` sees loss and gradients while the weights are still those of the step before, and may raise.
        """
        self.sae.train()
        self.sae.progress = step / self.n_steps
        signals = TrainingSignals(dead=self.dead.mask(), sparsity_weight=self.control.weight(step))
        output = self.sae(x)
        terms = self.sae.loss_terms(x, output, signals) | revival_terms(self.sae, x, output, signals.dead, self.config)
        self.optimizer.zero_grad(set_to_none=True)
        torch.stack(list(terms.values())).sum().backward()  # type: ignore[no-untyped-call]
        if self.sae.unit_norm_decoder:
            project_decoder_gradient_(self.sae.W_dec)
        norm = gradient_norm(self.sae.parameters())
        result = StepResult({name: term.detach() for name, term in terms.items()}, mean_l0(output), norm)
        before_update(result)
        self.update_weights_(step, norm)
        self.dead.update(fired_latents(output), x.shape[0])
        self.control.update(result.l0, step)
        self.maybe_resample_(x, step)
        return result

    def update_weights_(self, step: int, norm: Float[Tensor, ""]) -> None:
        """Clip, one Adam update at the scheduled learning rate, then the unit-norm constraint."""
        if self.config.clip_norm is not None:
            clip_gradients_(self.sae.parameters(), norm, limit=self.config.clip_norm)
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate(step)
        self.optimizer.step()
        if self.sae.unit_norm_decoder:
            normalise_rows_(self.sae.W_dec.data)

    def learning_rate(self, step: int) -> float:
        """The scheduled learning rate of one step."""
        factor = learning_rate_factor(
            step, self.n_steps, warmup_steps=self.config.warmup_steps, decay_fraction=self.config.decay_fraction
        )
        return self.config.learning_rate * factor

    def maybe_resample_(self, x: Float[Tensor, "batch d_in"], step: int) -> None:
        """Restarts dead latents whenever another `resample_every_samples` samples have gone by."""
        every = self.config.resample_every_samples
        if every is None or (step + 1) * x.shape[0] // every == step * x.shape[0] // every:
            return
        generator = generator_for(self.seed, "resampling", step)
        self.dead.restart(resample_(self.sae, self.optimizer, x, self.dead.mask(), generator))

    def state_dict(self) -> dict[str, Tensor]:
        """All tensors beyond the SAE's own: Adam's moments and step counts, silent-sample counters, control."""
        state = {"samples_since_fired": self.dead.samples_since_fired}
        state |= {f"control.{name}": value for name, value in self.control.state_dict().items()}
        for name, parameter in self.sae.named_parameters():
            for key, value in self.optimizer.state.get(parameter, {}).items():
                state[f"adam.{key}.{name}"] = value
        return state

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.dead.samples_since_fired.copy_(state["samples_since_fired"])
        self.control.load_state_dict(
            {key.removeprefix("control."): value for key, value in state.items() if key.startswith("control.")}
        )
        for name, parameter in self.sae.named_parameters():
            keys = {key: key.split(".")[1] for key in state if key.startswith("adam.") and key.endswith("." + name)}
            keys = {key: kind for key, kind in keys.items() if key == f"adam.{kind}.{name}"}
            if keys:
                self.optimizer.state[parameter] = {
                    kind: state[key].to(parameter.device, copy=True) for key, kind in keys.items()
                }


def mean_l0(output: SAEOutput) -> Float[Tensor, ""]:
    """Mean number of nonzero latents per sample."""
    acts = output.latent_acts
    if isinstance(acts, SparseRows):
        return (acts.values.detach() != 0).sum() / max(acts.n_rows, 1)
    return (acts.detach() != 0).sum(-1).float().mean()
