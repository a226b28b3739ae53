import dataclasses

import pytest
import torch

from sae_toolkit.ground_truth.synth_sae_bench import (
    SynthSAEBenchConfig,
    breadth_first_parents,
    rates_given_parent,
    synth_sae_bench,
)
from sae_toolkit.seeding import generator_for

SMALL = SynthSAEBenchConfig(n_features=60, d_in=16, n_roots=4, children_per_parent=2, depth=2, correlation_rank=3)


def test_forest_of_the_published_world():
    parents = breadth_first_parents(SynthSAEBenchConfig())
    assert int((parents < 0).sum()) == 128 + 5504
    assert (parents[10_880:] == -1).all()
    assert parents[[127, 128, 131, 132, 639, 640, 644, 10_879]].tolist() == [-1, 0, 0, 1, 127, 128, 129, 2687]


def test_rates_by_hand():
    # children .2 and .1 of a parent .4: .5 * (1 + .25) = .625 and .25 * (1 + .5) = .375; an only child .3 of .2 -> 1
    found = rates_given_parent(torch.tensor([0.4, 0.2, 0.1, 0.3]), torch.tensor([-1, 0, 0, 1]))
    assert torch.allclose(found, torch.tensor([0.4, 0.625, 0.375, 1.0]))


def test_small_world_is_what_the_definition_says():
    world = synth_sae_bench(SMALL)
    assert (world.n_features, world.d_in) == (60, 16)
    assert world.hierarchy.exclusive_siblings
    assert world.hierarchy.depths.bincount().tolist() == [4 + 60 - 28, 8, 16]
    assert float(world.bias.norm()) == pytest.approx(0.5)
    assert world.magnitudes.mean[[0, -1]].tolist() == [5.0, 4.0]
    assert torch.equal(world.hierarchy.reference_magnitudes, world.magnitudes.mean)


def test_every_field_changes_the_world():
    base = synth_sae_bench(SMALL).describe()["content_sha256"]
    changes = {"n_features": 61, "n_roots": 3, "children_per_parent": 3, "depth": 1, "bias_norm": 1.0, "seed": 1}
    changes |= {"d_in": 17, "correlation_rank": 4, "correlation_scale": 0.2, "orthogonalisation_steps": 2}
    assert set(changes) == {field.name for field in dataclasses.fields(SMALL)}
    for change in changes.items():
        config = dataclasses.replace(SMALL, **dict([change]))
        assert synth_sae_bench(config).describe()["content_sha256"] != base, change


def test_lazy_hierarchy_equals_a_dense_simulation():
    """Every cell drawn, then level by level scaled and thinned, as the definition reads."""
    world, n = synth_sae_bench(SMALL), 20_000
    firing, parents, depths = world.firing, world.hierarchy.parents, world.hierarchy.depths
    generator = torch.Generator().manual_seed(0)
    z, noise, spread = (torch.randn(n, columns, generator=generator) for columns in (3, 60, 60))
    normals = z @ firing.factors.T + (1 - firing.factors.square().sum(1)).sqrt() * noise
    dense = (normals > 2**0.5 * torch.erfinv(1 - 2 * firing.probabilities)) * torch.relu(
        world.magnitudes.mean + world.magnitudes.std * spread
    )
    for depth in (1, 2):
        children = (depths == depth).nonzero()[:, 0]
        dense[:, children] *= dense[:, parents[children]] / world.magnitudes.mean[parents[children]]
        families = dense[:, children].reshape(n, -1, 2)
        winner = (torch.rand(families.shape, generator=generator) * (families > 0)).argmax(dim=2)
        dense[:, children] = (families * torch.nn.functional.one_hot(winner, 2)).reshape(n, -1)
    ours = world.sample_coefficients(n, torch.Generator().manual_seed(1)).to_dense()
    for statistic in (lambda x: (x > 0).float(), lambda x: x):
        a, b = statistic(ours), statistic(dense)
        error = ((a.var(0) + b.var(0)) / n).sqrt()
        assert ((a.mean(0) - b.mean(0)).abs() < 4.5 * error + 1e-3).all()
    l0 = [(x > 0).sum(1).float() for x in (ours, dense)]
    assert abs(float(l0[0].mean() - l0[1].mean())) < 4.5 * float((l0[0].var() + l0[1].var()) / n) ** 0.5
    assert float(l0[0].std() / l0[1].std()) == pytest.approx(1, abs=0.03)


def test_check_values_of_the_published_world():
    # an independent implementation, 10,000 samples: L0 34.7 (sd 11.7), first 4,096 features 25.3, roots 8.25,
    # norm 28.5, variance 815
    world = synth_sae_bench(SynthSAEBenchConfig(orthogonalisation_steps=0))
    n, counts, firsts, roots, activations = 4096, [], [], [], []
    for index in range(4):
        sample = world.sample(n // 4, generator_for(0, "check values", index))
        columns = sample.coefficients.indices
        counts.append(sample.coefficients.offsets.diff())
        firsts.append(int((columns < 4096).sum()))
        roots.append(int((columns < 128).sum()))
        activations.append(sample.activations)
    l0, x = torch.cat(counts).float(), torch.cat(activations)
    assert float(l0.mean()) == pytest.approx(34.7, rel=0.03)  # 4,096 samples: standard error 0.18, 0.5 %
    assert float(l0.std()) == pytest.approx(11.7, rel=0.05)
    assert sum(firsts) / n == pytest.approx(25.3, rel=0.03)
    assert sum(roots) / n == pytest.approx(8.25, rel=0.03)
    assert float(x.norm(dim=1).mean()) == pytest.approx(28.5, rel=0.02)
    assert float(x.var(dim=0).sum()) == pytest.approx(815, rel=0.04)


@pytest.mark.parametrize("wrong", [{"n_features": 27}, {"n_roots": 0}, {"depth": 0}, {"children_per_parent": 0}])
def test_impossible_sizes_raise(wrong):
    with pytest.raises(ValueError, match="SynthSAEBench"):
        dataclasses.replace(SMALL, **wrong)
