import json

import pytest
import torch

from sae_toolkit.activations import SuperpositionSource
from sae_toolkit.ground_truth import ConstantMagnitudes, IndependentFiring, World, dataset_a, random_directions


def world(noise_std=0.1, seed=0):
    return World(
        directions=random_directions(12, 5, seed=seed),
        firing=IndependentFiring(probabilities=torch.full((12,), 0.3)),
        magnitudes=ConstantMagnitudes(),
        bias=torch.arange(5.0),
        noise_std=noise_std,
    )


def small_source(folder):
    """For the contract tests."""
    del folder
    return SuperpositionSource(world())


def batches(n, *, seed=3, split="train", source=None):
    stream = (source or SuperpositionSource(world())).stream(16, seed=seed, split=split)
    return [next(stream).activations for _ in range(n)]


def test_activations_follow_from_the_attached_coefficients():
    source = SuperpositionSource(world(noise_std=0.0))
    batch = next(source.stream(16, seed=0, split="train"))
    expected = batch.coefficients.to_dense() @ source.directions + torch.arange(5.0)
    assert batch.activations.shape == (16, source.d_in)
    assert torch.allclose(batch.activations, expected, atol=1e-6)


def test_a_batch_depends_on_seed_split_and_index_alone():
    first, again = batches(3), batches(3)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def test_streams_may_be_read_in_turns():
    source = SuperpositionSource(world())
    one, other = (source.stream(16, seed=3, split=split) for split in ("train", "eval"))
    mixed = [(next(one).activations, next(other).activations) for _ in range(3)]
    for split, column in zip(("train", "eval"), zip(*mixed, strict=True), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(column, batches(3, split=split), strict=True))


def test_no_batch_appears_twice():
    seen = [b for split in ("train", "eval") for seed in (3, 4) for b in batches(4, seed=seed, split=split)]
    assert len({tuple(b.flatten().tolist()) for b in seen}) == 16


def test_global_generator_is_not_asked():
    expected = batches(2)
    with torch.random.fork_rng():
        torch.manual_seed(99)
        assert all(torch.equal(a, b) for a, b in zip(expected, batches(2), strict=True))


def test_resumed_equals_uninterrupted():
    source = SuperpositionSource(world())
    stream = source.stream(16, seed=3, split="train")
    next(stream), next(stream)
    state = json.loads(json.dumps(stream.state_dict()))
    expected = [next(stream) for _ in range(2)]
    resumed = SuperpositionSource(world()).stream(16, seed=3, split="train")
    resumed.load_state_dict(state)
    for a, b in zip(expected, [next(resumed) for _ in range(2)], strict=True):
        assert torch.equal(a.activations, b.activations)
        assert torch.equal(a.coefficients.to_dense(), b.coefficients.to_dense())


@pytest.mark.parametrize(
    "other",
    [
        lambda: SuperpositionSource(world(seed=1)).stream(16, seed=3, split="train"),
        lambda: SuperpositionSource(world()).stream(17, seed=3, split="train"),
        lambda: SuperpositionSource(world()).stream(16, seed=4, split="train"),
        lambda: SuperpositionSource(world()).stream(16, seed=3, split="eval"),
    ],
    ids=["world", "batch size", "seed", "split"],
)
def test_the_state_of_another_stream_is_refused(other):
    state = SuperpositionSource(world()).stream(16, seed=3, split="train").state_dict()
    with pytest.raises(ValueError, match="Open the stream that was saved"):
        other().load_state_dict(state)


@pytest.mark.parametrize("change", [{"next_batch": -1}, {"next_batch": 1.5}, {"next_batch": True}, {"extra": 1}])
def test_a_malformed_state_is_refused(change):
    stream = SuperpositionSource(world()).stream(16, seed=3, split="train")
    with pytest.raises(ValueError, match="SuperpositionStream"):
        stream.load_state_dict(stream.state_dict() | change)


@pytest.mark.usefixtures("as_users_call")
@pytest.mark.parametrize("wrong", [{"batch_size": 0}, {"split": "test"}])
def test_impossible_streams_raise(wrong):
    with pytest.raises(ValueError, match=r"SuperpositionSource\.stream"):
        SuperpositionSource(world()).stream(**({"batch_size": 4, "seed": 0, "split": "train"} | wrong))


def test_description_names_the_world():
    described = json.loads(json.dumps(SuperpositionSource(dataset_a(0)).describe()))
    assert described["world"]["content_sha256"] == dataset_a(0).describe()["content_sha256"]
