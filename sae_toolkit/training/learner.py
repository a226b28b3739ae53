"""One SAE on its way: its optimizer, schedule, dead-latent counters and sparsity control, one step at a time."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sae_toolkit.saes.base import AbstractSAE, SAEOutput, TrainingSignals
from sae_toolkit.saes.latent_rows import LatentRows
from sae_toolkit.seeding import generator_for
from sae_toolkit.training.dead_latents import DeadLatents, firing_counts, resample_
from sae_toolkit.training.learning import LearningConfig
from sae_toolkit.training.optimizer import (
    gradient_norms,
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
    gradient_norms: dict[str, Float[Tensor, ""]]
    """The same by parameter."""

    def readings(self) -> dict[str, Float[Tensor, ""]]:
        """Every number that says whether this step went well, by what it is."""
        terms = {f"loss term {name}": value for name, value in self.terms.items()}
        gradients = {f"gradient of {name}": value for name, value in self.gradient_norms.items()}
        return terms | gradients | {"gradient norm": self.gradient_norm}

    @cached_property
    def finite(self) -> Bool[Tensor, ""]:
        """Whether all of them are finite; still on the device."""
        return torch.isfinite(torch.stack(list(self.readings().values()))).all()

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
        sae.rank_in = getattr(torch, config.rank_in)
        device = sae.W_dec.device
        self.optimizer = make_optimizer(sae.parameters(), config)
        dead_after = config.revival.dead_after_samples or max(batch_size, n_steps * batch_size // 400)
        self.dead = DeadLatents(sae.d_sae, dead_after_samples=dead_after, device=device)
        self.control = SparsityControl(config, n_steps=n_steps, device=device, own_target_l0=sae.own_target_l0)

    def step(
        self,
        x: Float[Tensor, "batch d_in"],
        step: int,
        *,
        before_update: Callable[[StepResult], None],
        target: Float[Tensor, "batch d_out"] | None = None,
        terms_of: Callable[[dict[str, Tensor], SAEOutput], dict[str, Tensor]] | None = None,
    ) -> StepResult:
        """One optimizer update on one batch of raw activations; `step` counts from 0. Without a target it is x.

        `terms_of` gives the terms that are minimised from those of the SAE and its output; None: the SAE's own.

        `before_update` sees loss and gradients while the weights are still those of the step before, and may raise. The
        weights stay as they are where a loss term or gradient is not finite, whether or not anybody looks.
        """
        target = x if target is None else target
        self.sae.train()
        self.sae.progress = step / self.n_steps
        signals = TrainingSignals(dead=self.dead.mask(), sparsity_weight=self.control.weight(step))
        output = self.sae(x)
        terms = self.sae.loss_terms(target, output, signals)
        terms = terms if terms_of is None else terms_of(terms, output)
        dead = LatentRows(self.sae, signals.dead.nonzero().squeeze(1))
        terms |= revival_terms(dead, x, target, output, self.config.revival)
        self.optimizer.zero_grad(set_to_none=True)
        torch.stack(list(terms.values())).sum().backward()  # type: ignore[no-untyped-call]
        dead.add_gradients_()
        if self.sae.unit_norm_decoder:
            project_decoder_gradient_(self.sae.W_dec)
        norms = gradient_norms(self.sae.named_parameters())
        norm = torch.stack(list(norms.values())).norm()
        fired = firing_counts(output)
        detached = {name: term.detach() for name, term in terms.items()}
        result = StepResult(detached, fired.sum() / max(x.shape[0], 1), norm, norms)
        before_update(result)
        self.update_weights_(step, result)
        self.dead.update(fired > 0, x.shape[0])
        self.control.update(result.l0, step)
        self.maybe_resample_(x, target, step, result)
        return result

    def update_weights_(self, step: int, result: StepResult) -> None:
        """One clipped Adam update at the scheduled learning rate, none if not finite; then the unit-norm constraint."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate(step)
        self.optimizer.clipped_step_(result.gradient_norm, result.finite, limit=self.config.clip_norm)
        if self.sae.unit_norm_decoder:
            normalise_rows_(self.sae.W_dec.data)

    def learning_rate(self, step: int) -> float:
        """The scheduled learning rate of one step."""
        factor = learning_rate_factor(
            step, self.n_steps, warmup_steps=self.config.warmup_steps, decay_fraction=self.config.decay_fraction
        )
        return self.config.learning_rate * factor

    def maybe_resample_(
        self, x: Float[Tensor, "batch d_in"], target: Float[Tensor, "batch d_out"], step: int, result: StepResult
    ) -> None:
        """Restarts dead latents whenever another `resample_every_samples` samples have gone by."""
        every = self.config.revival.resample_every_samples
        if every is None or (step + 1) * x.shape[0] // every == step * x.shape[0] // every:
            return
        if not bool(result.finite):  # on the way to a NonFiniteError, which may come a step later
            return
        generator = generator_for(self.seed, "resampling", step)
        self.dead.restart(resample_(self.sae, self.optimizer, x, self.dead.mask(), generator, target=target))

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
                    kind: laid_out_like(parameter, state[key]) for key, kind in keys.items()
                }


def laid_out_like(parameter: Tensor, saved: Tensor) -> Tensor:
    """A copy on the parameter's device; moments in its memory layout, as the fused kernel needs them."""
    if saved.shape != parameter.shape:  # Adam's step count
        return saved.to(parameter.device, copy=True)
    return torch.empty_like(parameter, dtype=saved.dtype, requires_grad=False).copy_(saved)
