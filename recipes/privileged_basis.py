"""A ReLU on the hidden layer makes its neurons special directions; a linear hidden layer has none, and can be rotated.

20 features in 10 neurons (Elhage et al. 2022, "Superposition in a Privileged Basis"), with and without a ReLU on the
hidden layer. Neurons have heavier tails than random directions only where the ReLU is: z > 8 against |z| < 3. With
rotated weights the linear bottleneck computes the same to 1e-5, the ReLU layer something else.

    sae-toolkit run privileged_basis --output runs/privileged_basis
"""

from dataclasses import dataclass

import torch

from sae_toolkit.ground_truth import ToyData, ToyModels, ToyTrainConfig, best_of, rotate_hidden, train_toy_models
from sae_toolkit.ground_truth.toy_model import ToyModelKind
from sae_toolkit.metrics import BasisPrivilege, basis_privilege, neuron_contributions, random_rotation
from sae_toolkit.report import (
    Expectation,
    Headline,
    NamedScore,
    Report,
    build_experiment_report,
    neuron_stacks_panel,
    privilege_panel,
    scores_of,
)
from sae_toolkit.run_folder import RunFolder
from sae_toolkit.seeding import generator_for


@dataclass(frozen=True, kw_only=True)
class Config:
    """Two kinds of model at several sparsities."""

    probabilities: tuple[float, ...] = (1.0, 0.3, 0.1, 0.03)
    """That a feature is active."""
    n_inits: int = 4
    """Models per sparsity; the one with the lowest loss counts."""
    batch_size: int = 512
    """Samples per step."""
    n_samples: int = 20_000
    """Hidden activations behind every kurtosis."""
    n_rotations: int = 200
    """Random bases that the neurons are compared with."""
    train: ToyTrainConfig = ToyTrainConfig(n_steps=4000, learning_rate=3e-3)
    """Steps, learning rate and seed."""


SMOKE = Config(n_inits=2, n_samples=8_000, n_rotations=100, train=ToyTrainConfig(n_steps=1200, learning_rate=1e-2))
KINDS: dict[str, ToyModelKind] = {"hidden ReLU": "relu_hidden", "linear hidden": "relu_output"}
TRIED_ROTATIONS = 20
HEADLINES = (
    Headline(name="kurtosis_z", label="Privilege of the basis (z)", question="How much heavier are neurons' tails?"),
    Headline(name="smallest_change_by_rotation", label="Change by rotation", question="Do outputs feel a rotation?"),
)


def rotation_changes(models: ToyModels, x: torch.Tensor, seed: int) -> torch.Tensor:
    """Largest absolute difference of any output after W -> QW, [rotations instances]."""
    rotations = [random_rotation(models.config.n_hidden, seed=seed, index=i) for i in range(TRIED_ROTATIONS)]
    with torch.no_grad():
        before = models(x)
        return torch.stack([(rotate_hidden(models, Q)(x) - before).abs().amax(dim=(1, 2)) for Q in rotations])


def measure(config: Config, name: str) -> tuple[list[NamedScore], dict[float, BasisPrivilege], dict[str, torch.Tensor]]:
    """Trains one kind: its scores, its kurtosis against the null, and what its neurons work for."""
    chances, seed = config.probabilities, config.train.seed
    size = ToyModels.Config(n_features=20, n_hidden=10, n_instances=config.n_inits * len(chances), kind=KINDS[name])
    data, importance = ToyData.uniform(chances, 20), 0.9 ** torch.arange(20.0)
    training = train_toy_models(size, data, importance, train=config.train, batch_size=config.batch_size)
    models = best_of(training, config.n_inits).models
    x = data.sample(config.n_samples, generator_for(seed, "privileged basis inputs"))
    hidden, changes = models.hidden(x), rotation_changes(models, x[:, :1000], seed)
    rows, found, scores = [f"{name}, p={p:g}" for p in chances], {}, []
    for i, p in enumerate(chances):
        found[p] = basis_privilege(hidden[i], seed=seed, n_rotations=config.n_rotations)
        values = {"kurtosis_z": found[p].z, "kurtosis_percentile": found[p].percentile}
        values |= {"varying_neurons": found[p].n_neurons, "smallest_change_by_rotation": float(changes[:, i].min())}
        values |= {"largest_change_by_rotation": float(changes[:, i].max())}
        scores += scores_of(rows[i], values, n=config.n_samples)
    return scores, found, dict(zip(rows, neuron_contributions(models.W), strict=True))


def main(config: Config, run: RunFolder) -> Report:
    """Both kinds."""
    parts = {name: measure(config, name) for name in KINDS}
    scores = [score for found, _, _ in parts.values() for score in found]
    stacks = {row: stack for _, _, found in parts.values() for row, stack in found.items()}
    figures = [neuron_stacks_panel(stacks), privilege_panel({name: found for name, (_, found, _) in parts.items()})]
    description = {"inputs": "U[0, 1] with probability p, else 0", "n_features": 20, "importance": "0.9^i"}
    return build_experiment_report(config, run, scores, figures, description=description, headlines=HEADLINES)


SPARSE = (0.3, 0.1, 0.03)
EXPECTED = (
    *(Expectation(score="kurtosis_z", sae=f"hidden ReLU, p={p:g}", at_least=8.0) for p in SPARSE),
    *(Expectation(score="kurtosis_z", sae=f"linear hidden, p={p:g}", at_least=-3.0, at_most=3.0) for p in (1, *SPARSE)),
    *(Expectation(score="smallest_change_by_rotation", sae=f"hidden ReLU, p={p:g}", at_least=0.1) for p in SPARSE),
    *(
        Expectation(score="largest_change_by_rotation", sae=f"linear hidden, p={p:g}", at_most=1e-5)
        for p in (1, *SPARSE)
    ),
)
SMOKE_EXPECTED = EXPECTED
