import pytest
import torch

from sae_toolkit.activations.source import ActivationBatch
from sae_toolkit.metrics import LogitAttribution, ProbeDirection
from sae_toolkit.metrics.controls import FixedDictionary
from sae_toolkit.saes.base import SAEOutput
from sae_toolkit.saes.coders import LinearTopK
from sae_toolkit.sparse_rows import SparseRows


def fed(metric, features, latents):
    """Latent j fires with column j of `latents`; feature i with column i of `features`."""
    n = len(features)
    batch = ActivationBatch(torch.zeros(n, 2), coefficients=SparseRows.from_dense(features.float()))
    metric.update(batch, SAEOutput(torch.zeros(n, 2), SparseRows.from_dense(latents.float())))
    return metric


def one_at_a_time(n=300):
    return torch.eye(3)[torch.arange(n) % 3]


def dictionary(rows):
    return FixedDictionary(torch.tensor(rows), coder=LinearTopK(1))


def test_attribution_by_hand():
    # Words 0 to 3 are read along +x, +y, -x, -y. Latents 0, 1, 2 detect features 0, 1, 2 and write x, y, y.
    features = one_at_a_time()
    unembedding = torch.tensor([[1.0, 0.0, -1.0, 0.0], [0.0, 1.0, 0.0, -1.0]])
    sae = dictionary([[1.0, 0.1], [0.0, 1.0], [0.2, 1.0]])
    promised = torch.tensor([0, 1, 3])  # the third one writes y, which is word 1, not word 3
    score = fed(LogitAttribution(unembedding, promised), features, features).compute(sae)["logit_attribution_top1"]
    assert score.value == pytest.approx(2 / 3)
    assert score.n == 3
    some = fed(LogitAttribution(unembedding, torch.tensor([0, -1, 3])), features, features).compute(sae)
    assert some["logit_attribution_top1"].value == 0.5
    negated = dictionary([[-1.0, -0.1], [0.0, -1.0], [-0.2, -1.0]])
    found = fed(LogitAttribution(unembedding, promised), features, features).compute(negated)
    assert found["logit_attribution_top1"].value == pytest.approx(1 / 3)  # -y is word 3


def test_a_feature_without_a_latent_is_missed_and_a_silent_one_left_out():
    features = one_at_a_time()
    latents = features.clone()
    latents[:, 0] = 0
    unembedding = torch.tensor([[1.0, 0.0, -1.0, 0.0], [0.0, 1.0, 0.0, -1.0]])
    sae = dictionary([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    promised = torch.tensor([0, 1, 1])
    score = fed(LogitAttribution(unembedding, promised), features, latents).compute(sae)["logit_attribution_top1"]
    assert score.value == pytest.approx(2 / 3)
    silent = features.clone()
    silent[:, 1] = 0
    score = fed(LogitAttribution(unembedding, promised), silent, latents).compute(sae)["logit_attribution_top1"]
    assert score.n == 2


def test_cosines_with_the_probe_by_hand():
    features = one_at_a_time()
    directions = torch.tensor([[2.0, 0.0], [0.0, -3.0], [1.0, 1.0]])
    sae = dictionary([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    score = fed(ProbeDirection(directions), features, features).compute(sae)["probe_direction_cosine"]
    assert score.value == pytest.approx((1 - 1 + 2**-0.5) / 3, abs=1e-6)
    unknown = torch.tensor([[2.0, 0.0], [float("nan"), 0.0], [0.0, 0.0]])
    score = fed(ProbeDirection(unknown), features, features).compute(sae)["probe_direction_cosine"]
    assert score.value == pytest.approx(1.0)
    assert score.n == 1
