"""Models that learn their own superposition, many as one tensor program (Elhage et al. 2022, arXiv 2209.10652).

"Toy Models of Superposition", sections "Demonstrating Superposition", "Superposition in a Privileged Basis" and
"Computation in Superposition".
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from sae_toolkit.seeding import generator_for

REPRESENTED = 0.5
"""The norm ||W_i|| above which a model represents feature i: between the 0 of an ignored and the 1 of a kept one."""

ToyModelKind = Literal["linear", "relu_output", "relu_hidden", "absolute_value"]


class WeightedInputs(NamedTuple):
    """Inputs of every instance and what each counts for in a mean: sampled ones equally, quadrature nodes unequally."""

    x: Float[Tensor, "instances n_inputs n_features"]
    weights: Float[Tensor, "instances n_inputs"] | None = None
    """Sum to 1 over the inputs of an instance; None: all equal."""


class ToyModels(nn.Module):
    """linear: W^T W x + b; relu_output: ReLU(W^T W x + b); relu_hidden: ReLU(W^T ReLU(W x) + b).

    absolute_value: ReLU(W2 ReLU(W x) + b), which is to compute |x|. Column i of W is the direction of feature i.
    Instances share nothing.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Sizes and kind, equal for all instances."""

        n_features: int
        """True features: the length of x."""
        n_hidden: int
        """Hidden dimensions (neurons, where the hidden layer has a ReLU)."""
        n_instances: int = 1
        """Independent models in the batch."""
        kind: ToyModelKind = "relu_output"
        """What the model computes."""
        init_scale: float = 1.0
        """Times the standard deviation sqrt(2 / (n_features + n_hidden)) of initial weights (Xavier); biases are 0.

        Larger ones (columns of length 1 where n_features is far above n_hidden) end in worse minima.
        """

        def __post_init__(self) -> None:
            for name in ("n_features", "n_hidden", "n_instances"):
                if getattr(self, name) < 1:
                    raise ValueError(f"ToyModels: {name}={getattr(self, name)} given, but at least 1 is needed.")
            if not self.init_scale > 0:
                raise ValueError(f"ToyModels: init_scale={self.init_scale} given, but it must be above 0.")

    W: Float[Tensor, "instances n_hidden n_features"]
    """First weights; their transpose also leads out, except for absolute_value."""
    W2: Float[Tensor, "instances n_features n_hidden"] | None
    """The weights that lead out, where they are not W transposed (absolute_value)."""
    b: Float[Tensor, "instances n_features"]

    def __init__(self, config: Config, *, seed: int) -> None:
        """Instance i starts from its own generator (seed, i), whatever the number of instances."""
        super().__init__()
        drawn = torch.stack([draw_weights(config, seed, index) for index in range(config.n_instances)])
        separate = config.kind == "absolute_value"
        self.config = config
        self.W = nn.Parameter(drawn[:, : config.n_hidden].contiguous())
        self.W2 = nn.Parameter(drawn[:, config.n_hidden :].mT.contiguous()) if separate else None
        self.b = nn.Parameter(torch.zeros(config.n_instances, config.n_features))

    @classmethod
    def of_weights(
        cls,
        kind: ToyModelKind,
        W: Float[Tensor, "instances n_hidden n_features"],
        b: Float[Tensor, "instances n_features"],
        W2: Float[Tensor, "instances n_features n_hidden"] | None = None,
    ) -> "ToyModels":
        """Models with given weights (copied)."""
        if (W2 is not None) != (kind == "absolute_value"):
            given = "no W2" if W2 is None else "a W2"
            raise ValueError(f"ToyModels: kind={kind!r} asked, {given} given. absolute_value has a W2, no other kind.")
        n_instances, n_hidden, n_features = W.shape
        config = cls.Config(n_features=n_features, n_hidden=n_hidden, n_instances=n_instances, kind=kind)
        models = cls(config, seed=0)
        models.W, models.b = nn.Parameter(W.detach().clone()), nn.Parameter(b.detach().clone())
        models.W2 = None if W2 is None else nn.Parameter(W2.detach().clone())
        return models

    @property
    def out_weights(self) -> Float[Tensor, "instances n_hidden n_features"]:
        """What hidden activations are multiplied with: W, or W2 transposed where it has weights of its own."""
        return self.W if self.W2 is None else self.W2.mT

    def hidden(self, x: Float[Tensor, "instances n_inputs n_features"]) -> Float[Tensor, "instances n_inputs n_hidden"]:
        """Hidden activations.

        Here and in `forward`, x that is contiguous along its inputs (x.mT is contiguous) is read 5 times faster: with a
        few features only, products along them cannot use the processor's vector units.
        """
        hidden: Tensor = torch.bmm(self.W, x.mT).mT
        return hidden.relu() if self.config.kind in ("relu_hidden", "absolute_value") else hidden

    def forward(
        self, x: Float[Tensor, "instances n_inputs n_features"]
    ) -> Float[Tensor, "instances n_inputs n_features"]:
        outputs: Tensor = torch.baddbmm(self.b[:, :, None], self.out_weights.mT, self.hidden(x).mT).mT
        return outputs if self.config.kind == "linear" else outputs.relu()

    def target(
        self, x: Float[Tensor, "instances n_inputs n_features"]
    ) -> Float[Tensor, "instances n_inputs n_features"]:
        """What the outputs should be: x, or |x| for absolute_value."""
        return x.abs() if self.config.kind == "absolute_value" else x

    def feature_losses(self, inputs: WeightedInputs) -> Float[Tensor, "instances n_features"]:
        """Mean squared error of each feature, before importance."""
        errors: Tensor = (self(inputs.x) - self.target(inputs.x)).square()
        return errors.mean(dim=1) if inputs.weights is None else (errors * inputs.weights[:, :, None]).sum(dim=1)

    def summed_loss(
        self, inputs: WeightedInputs, importance: Float[Tensor, "instances n_features"]
    ) -> Float[Tensor, ""]:
        """Sum over instances of sum_i I_i E (x_i - x'_i)^2.

        Equal to what `feature_losses` gives; as one dot product of scaled errors its gradient takes half the time.
        """
        scale = importance.sqrt()[:, None]
        if inputs.weights is None:
            scale = scale / sqrt(inputs.x.shape[1])
        else:
            scale = (scale.mT * inputs.weights.sqrt()[:, None]).mT
        errors = ((self(inputs.x) - self.target(inputs.x)) * scale).mT.flatten()
        total: Tensor = errors.dot(errors)
        return total

    def select(self, indices: Sequence[int] | Int[Tensor, " chosen"] | slice) -> "ToyModels":
        """Copies of some instances, for example of the best one of each cell."""
        if not isinstance(indices, slice):
            indices = torch.as_tensor(indices, dtype=torch.long).tolist()
        W2 = None if self.W2 is None else self.W2[indices]
        return ToyModels.of_weights(self.config.kind, self.W[indices], self.b[indices], W2)


def rotate_hidden(models: ToyModels, rotation: Float[Tensor, "n_hidden n_hidden"]) -> ToyModels:
    """The same models with Q W in place of W, and Q h in place of what was linear in h.

    Where nothing privileges a basis of the hidden space (no ReLU in it), outputs stay what they were.
    """
    Q = rotation.to(models.W)
    return ToyModels.of_weights(
        models.config.kind, Q @ models.W, models.b, None if models.W2 is None else models.W2 @ Q.T
    )


def draw_weights(config: ToyModels.Config, seed: int, index: int) -> Float[Tensor, "rows n_features"]:
    """Initial W of one instance; for absolute_value W2 transposed stands below it."""
    rows = config.n_hidden * (2 if config.kind == "absolute_value" else 1)
    generator = generator_for(seed, "toy model initialisation", index)
    scale = config.init_scale * sqrt(2 / (config.n_features + config.n_hidden))
    return torch.randn(rows, config.n_features, generator=generator) * scale


def join_models(parts: Sequence[ToyModels]) -> ToyModels:
    """One batch of all instances of several batches of one kind and size."""
    second = [part.W2 for part in parts if part.W2 is not None]
    return ToyModels.of_weights(
        parts[0].config.kind,
        torch.cat([part.W for part in parts]),
        torch.cat([part.b for part in parts]),
        torch.cat(second) if second else None,
    )
