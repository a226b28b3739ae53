import json
import math

import pytest
import torch
from safetensors.torch import load_file, save_file

from sae_toolkit.ground_truth import (
    ConstantMagnitudes,
    CopulaFiring,
    ExclusiveFiring,
    ExponentialMagnitudes,
    FoldedNormalMagnitudes,
    Hierarchy,
    IndependentFiring,
    LowRankFiring,
    RectifiedNormalMagnitudes,
    UniformMagnitudes,
    World,
    orthogonal_directions,
    random_directions,
)
from sae_toolkit.ground_truth.firing import Firing
from sae_toolkit.ground_truth.magnitudes import Magnitudes

N_FEATURES, D_IN = 5, 4
RATES = torch.tensor([0.5, 0.3, 0.2, 0.6, 0.1])
PARTS = {
    "directions": random_directions(N_FEATURES, D_IN, seed=0),
    "firing": IndependentFiring(probabilities=RATES),
    "magnitudes": ConstantMagnitudes(value=2.0),
}
FIRINGS = [
    IndependentFiring(probabilities=RATES),
    LowRankFiring(probabilities=RATES, factors=torch.full((N_FEATURES, 2), 0.5)),
    CopulaFiring(probabilities=RATES, correlation=0.5 * torch.eye(N_FEATURES) + 0.5),
    ExclusiveFiring.pairs(RATES),
]
MAGNITUDES = [
    ConstantMagnitudes(value=2.0),
    UniformMagnitudes(low=0.5, high=2.0),
    FoldedNormalMagnitudes(mean=0.3, std=1.5),
    ExponentialMagnitudes(mean=0.7),
    RectifiedNormalMagnitudes(mean=torch.linspace(0, 1, N_FEATURES), std=torch.linspace(1, 2, N_FEATURES)),
]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def full_world(firing=FIRINGS[1], magnitudes=MAGNITUDES[4]):
    return World(
        directions=PARTS["directions"],
        firing=firing,
        magnitudes=magnitudes,
        hierarchy=Hierarchy.from_children(
            {0: [1, 2]}, n_features=N_FEATURES, exclusive_siblings=True, reference_magnitudes=torch.full((5,), 0.7)
        ),
        bias=torch.tensor([0.5, 0.0, -1.0, 2.0]),
        noise_std=0.1,
        importance=torch.linspace(1, 2, N_FEATURES),
    )


def test_activations_are_coefficients_times_directions_plus_bias():
    bias = torch.tensor([1.0, 2.0, 3.0, 4.0])
    sample = World(**PARTS, bias=bias).sample(50, generator())
    expected = sample.coefficients.to_dense() @ PARTS["directions"] + bias
    assert torch.allclose(sample.activations, expected, atol=1e-6)


def test_noise_has_its_standard_deviation():
    world = World(**PARTS, noise_std=0.5)
    sample = world.sample(4000, generator())
    noise = sample.activations - sample.coefficients.combine(world.directions)
    # the standard deviation of a standard deviation over 16,000 numbers is 0.5 / sqrt(32,000)
    assert abs(float(noise.std()) - 0.5) < 4.5 * 0.5 / math.sqrt(32_000)


def test_noise_does_not_move_the_coefficients():
    plain, noisy = (World(**PARTS, noise_std=s).sample(50, generator()).coefficients for s in (0.0, 0.5))
    assert torch.equal(plain.to_dense(), noisy.to_dense())


@pytest.mark.parametrize("with_hierarchy", [False, True])
def test_magnitude_zero_is_not_stored(with_hierarchy):
    parts = PARTS | {"magnitudes": RectifiedNormalMagnitudes.same_for_all(N_FEATURES, mean=0.0, std=1.0)}
    hierarchy = Hierarchy.from_children({0: [1]}, n_features=N_FEATURES) if with_hierarchy else None
    coefficients = World(**parts, hierarchy=hierarchy).sample_coefficients(4000, generator())
    assert (coefficients.values > 0).all()
    rate = float(coefficients.column_counts()[3]) / 4000  # 0.6 * 1/2
    assert abs(rate - 0.3) < 4.5 * math.sqrt(0.3 * 0.7 / 4000)


def test_rows_own_their_entries():
    coefficients = full_world().sample_coefficients(200, generator())
    assert coefficients.shape == (200, N_FEATURES)
    assert coefficients.offsets[-1] == len(coefficients.values)
    keys = coefficients.rows * N_FEATURES + coefficients.indices
    assert (keys.diff() > 0).all()


def test_defaults_of_bias_and_importance():
    world = World(**PARTS)
    assert torch.equal(world.bias, torch.zeros(D_IN))
    assert torch.equal(world.importance, torch.ones(N_FEATURES))


@pytest.mark.parametrize("firing", FIRINGS, ids=lambda f: type(f).__name__)
@pytest.mark.parametrize("magnitudes", MAGNITUDES, ids=lambda m: type(m).__name__)
def test_a_loaded_world_gives_the_same_samples_bit_for_bit(firing, magnitudes, tmp_path):
    world = full_world(firing, magnitudes)
    world.save(tmp_path)
    loaded = World.load(tmp_path)
    ours, theirs = world.sample(300, generator(7)), loaded.sample(300, generator(7))
    assert torch.equal(ours.activations, theirs.activations)
    assert torch.equal(ours.coefficients.to_dense(), theirs.coefficients.to_dense())
    assert torch.equal(world.importance, loaded.importance)
    assert world.describe() == loaded.describe()


def test_every_shipped_model_is_in_the_round_trip():
    shipped = "sae_toolkit.ground_truth"
    assert {type(f) for f in FIRINGS} == {m for m in Firing.models.values() if m.__module__.startswith(shipped)}
    assert {type(m) for m in MAGNITUDES} == {m for m in Magnitudes.models.values() if m.__module__.startswith(shipped)}


def test_a_world_without_hierarchy_round_trips(tmp_path):
    World(**PARTS).save(tmp_path)
    assert World.load(tmp_path).hierarchy is None


def test_description_is_json_and_its_hash_tells_worlds_apart():
    variants = [
        World(**PARTS),
        World(**PARTS, noise_std=0.1),
        World(**PARTS, bias=torch.ones(D_IN)),
        World(**PARTS, importance=torch.zeros(N_FEATURES)),
        World(**PARTS, hierarchy=Hierarchy.from_children({0: [1]}, n_features=N_FEATURES)),
        World(**PARTS, hierarchy=Hierarchy.from_children({0: [2]}, n_features=N_FEATURES)),
        World(**PARTS | {"firing": FIRINGS[3]}),
        World(**PARTS | {"magnitudes": ConstantMagnitudes(value=3.0)}),
        World(**PARTS | {"directions": random_directions(N_FEATURES, D_IN, seed=1)}),
    ]
    described = [json.loads(json.dumps(world.describe())) for world in variants]
    assert len({d["content_sha256"] for d in described}) == len(variants)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"directions": 2 * PARTS["directions"]}, "unit vectors"),
        ({"directions": orthogonal_directions(4, 4, seed=0)}, "firing for 5"),
        ({"directions": PARTS["directions"] * math.nan}, "NaN"),
        ({"directions": PARTS["directions"].double()}, "float32"),
        ({"bias": torch.ones(3)}, "bias of shape"),
        ({"bias": torch.full((4,), math.inf)}, "NaN"),
        ({"importance": torch.ones(4)}, "importance for 4"),
        ({"importance": -torch.ones(5)}, "negative importance"),
        ({"noise_std": -0.1}, "noise_std"),
        ({"noise_std": math.nan}, "noise_std"),
        ({"magnitudes": RectifiedNormalMagnitudes.same_for_all(3, mean=1.0, std=1.0)}, "magnitudes for 3"),
        ({"hierarchy": Hierarchy.from_children({0: [1]}, n_features=2)}, "hierarchy for 2"),
    ],
)
@pytest.mark.usefixtures("as_users_call")
def test_parts_that_disagree_raise(change, message):
    with pytest.raises(ValueError, match=message):
        World(**(PARTS | change))


def test_no_samples_raise():
    with pytest.raises(ValueError, match="n_samples=0"):
        World(**PARTS).sample_coefficients(0, generator())


def test_missing_folder_raises(tmp_path):
    with pytest.raises(ValueError, match="does not exist"):
        World.load(tmp_path / "nowhere")


@pytest.mark.parametrize("broken", ["json", "tensors", "version", "one number", "setting", "list", "model"])
def test_incorrect_files_raise(broken, tmp_path):
    full_world().save(tmp_path)
    index_file, tensor_file = tmp_path / "world.json", tmp_path / "world.safetensors"
    index, tensors = json.loads(index_file.read_text()), load_file(tensor_file)
    if broken == "json":
        index_file.write_text("{")
    elif broken == "tensors":
        tensor_file.write_bytes(b"12345678 not safetensors")
    elif broken == "version":
        index_file.write_text(json.dumps(index | {"schema_version": 99}))
    elif broken == "one number":
        tensors["directions"][0, 0] = math.nan
        save_file(tensors, tensor_file)
    elif broken == "setting":
        index_file.write_text(json.dumps(index | {"noise_std": 0.2}))
    elif broken == "list":
        index_file.write_text("[]")
    else:
        index["firing"]["name"] = "Unheard"
        index_file.write_text(json.dumps(index))
    with pytest.raises(ValueError, match=r"World\.load"):
        World.load(tmp_path)


def test_a_model_that_is_not_imported_is_named(tmp_path, monkeypatch):
    full_world().save(tmp_path)
    monkeypatch.delitem(Firing.models, "LowRankFiring")
    with pytest.raises(ValueError, match="'LowRankFiring' asked for"):
        World.load(tmp_path)
