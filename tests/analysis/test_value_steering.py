import pytest
import torch

from sae_toolkit import TopKSAE
from sae_toolkit.activations import KnownLatentsSource, ModelConfig, TransformerSource, load_known_latents
from sae_toolkit.analysis import ValueSteering
from sae_toolkit.analysis.value_steering import typical_activation
from sae_toolkit.metrics.co_firing import Column
from sae_toolkit.metrics.controls import FixedDictionary, random_directions
from sae_toolkit.metrics.evaluate import evaluate
from sae_toolkit.metrics.probe import Ridge, indicators, labelled_sample, probe_features
from sae_toolkit.saes.coders import LinearTopK

HOOK = "blocks.1.hook_resid_post"


def known(families):
    return load_known_latents(
        ModelConfig(name=None, device="cpu"),
        TransformerSource.Config(hooks=(HOOK,)),
        KnownLatentsSource.Config(n_documents=600, families=families),
    )


@pytest.fixture(scope="module")
def source():
    return known(("value",))


def flips(sae, source):
    return evaluate(sae, source, n_samples=6_000, metrics=lambda: [ValueSteering(source, HOOK, n_swaps=30)])["sae"]


def readouts(source):
    """Latent v is about 1 where a ridge regression says that value v holds, and writes what is added when it does."""
    sample = labelled_sample(source, 6_000, seed=0, split="train", batch_size=1000)
    ridge, labels = Ridge(sample.activations), indicators(sample, torch.arange(64))
    sae = TopKSAE(TopKSAE.Config(d_in=32, d_sae=64, k=1, normaliser="none"))
    with torch.no_grad():
        said = ridge.fit(labels)(sample.activations)
        scale = labels.sum(0) / (said * labels).sum(0)  # a regression says less than 1 where a rare value holds
        sae.b_dec.copy_(ridge.mean)
        sae.W_enc.copy_(ridge.weights(labels) * scale)
        sae.b_enc.copy_(labels.mean(0) * scale)
        sae.W_dec.copy_(probe_features(source, n_train=6_000, n_eval=500).directions)
    return sae.eval()


def test_readouts_of_values_steer_and_random_directions_do_not(source):
    scores = flips(readouts(source), source)
    assert scores["steering_flips"].value > 0.4
    assert scores["steering_flips_random"].value <= 0.1
    chance = flips(FixedDictionary(random_directions(64, 32, seed=0), coder=LinearTopK(2)), source)
    assert chance["steering_flips"].value <= 0.1
    assert chance["steering_flips"].n == 30


def test_exchanges_are_between_values_of_one_thing(source):
    metric = ValueSteering(source, HOOK, n_swaps=50)
    columns = [Column(torch.tensor([10 + v]).numpy(), torch.ones(1).numpy()) for v in range(64)]
    metric.kept.latents.n_samples = 12  # half: 6
    metric.places = [torch.arange(200).reshape(100, 2)]
    swaps = list(metric.swaps(columns, torch.Generator().manual_seed(0)))
    assert len(swaps) == 50
    assert all(swap.held // 4 == swap.wanted // 4 and swap.held != swap.wanted for swap in swaps)
    assert all((swap.document, swap.position) == (2 * (10 + swap.held), 2 * (10 + swap.held) + 1) for swap in swaps)
    assert len({swap.wanted - swap.held for swap in swaps}) > 2


def test_typical_activations_by_hand():
    latent = Column(torch.tensor([1, 4, 6, 9]).numpy(), torch.tensor([2.0, 4.0, -1.0, 9.0]).numpy())
    held = Column(torch.tensor([4, 6, 9]).numpy(), torch.ones(3).numpy())
    assert typical_activation(latent, held) == pytest.approx(6.5)
    assert typical_activation(latent, Column(torch.tensor([0]).numpy(), torch.ones(1).numpy())) == pytest.approx(5.0)


def test_impossible_requests_are_refused(source):
    with pytest.raises(ValueError, match="Add 'value'"):
        ValueSteering(known(("tone",)), HOOK)
    with pytest.raises(ValueError, match="n_swaps=0"):
        ValueSteering(source, HOOK, n_swaps=0)
