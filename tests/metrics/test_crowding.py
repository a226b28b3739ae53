from math import isnan

import numpy as np
import pytest
import torch
from sklearn.linear_model import LinearRegression

from sae_toolkit.activations.source import ActivationBatch
from sae_toolkit.metrics.controls import FixedDictionary
from sae_toolkit.metrics.crowding import Crowding
from sae_toolkit.saes.base import SAEOutput
from sae_toolkit.saes.coders import LinearTopK


def scores_of(latents, decoder, squared_error):
    """Errors of the given squared lengths, along the first axis."""
    metric = Crowding()
    reconstruction = torch.zeros(len(latents), decoder.shape[1], dtype=torch.float64)
    x = reconstruction.clone()
    x[:, 0] = squared_error.double().sqrt()
    for part in torch.arange(len(latents)).split(97):
        metric.update(ActivationBatch(x[part]), SAEOutput(reconstruction[part], latents[part]))
    return metric.compute(FixedDictionary(decoder, coder=LinearTopK(1)))


def noise(n, *, seed=1):
    return torch.rand(n, generator=torch.Generator().manual_seed(seed))


def world(n=1500, w=20, d=6):
    g = torch.Generator().manual_seed(0)
    latents = torch.rand(n, w, generator=g).double() * (torch.rand(n, w, generator=g) < 0.2)
    return latents, torch.nn.functional.normalize(torch.randn(w, d, generator=g).double(), dim=1)


def brute_force(latents, decoder):
    """U and E of every sample by a loop over pairs."""
    overlaps, energies = [], []
    for z in latents:
        active = z.nonzero()[:, 0].tolist()
        felt = [
            sum(float(z[j] * (decoder[j] @ decoder[i]) / decoder[i].norm()) for j in active if j != i) for i in active
        ]
        overlaps.append(sum(t**2 for t in felt))
        energies.append(sum(float((z[i] * decoder[i].norm()) ** 2) for i in active))
    return np.array(overlaps), np.array(energies)


def test_by_hand():
    # sample 0: z = (1, 1), cosine .6: U = 2 * .36, E = 2; sample 1: one latent alone: U = 0, E = 4; sample 2: nothing
    decoder = torch.tensor([[1.0, 0.0], [0.6, 0.8]])
    latents = torch.tensor([[1.0, 1.0], [2.0, 0.0], [0.0, 0.0]])
    score = scores_of(latents, decoder, torch.tensor([1.0, 0.0, 0.0]))["active_overlap"]
    assert score.value == pytest.approx(0.72 / 6)
    assert score.n == 3


def test_it_is_a_loop_over_pairs_and_a_regression():
    latents, decoder = world(n=200)
    decoder = decoder * torch.linspace(0.5, 2, 20)[:, None]
    overlap, energy = brute_force(latents, decoder)
    error = noise(200).double() + torch.from_numpy(overlap)
    controls = np.stack([(latents > 0).sum(1).numpy(), energy, energy**2], axis=1)
    both = np.concatenate([controls, overlap[:, None]], axis=1)
    fits = [LinearRegression().fit(X, error).score(X, error) for X in (controls, both)]
    unit_decoder = torch.nn.functional.normalize(decoder, dim=1)
    # a FixedDictionary keeps unit rows, so the strength goes into the latents
    scores = scores_of(latents * decoder.norm(dim=1), unit_decoder, error)
    assert scores["active_overlap"].value == pytest.approx(overlap.sum() / energy.sum(), rel=1e-9)
    assert scores["crowding_error_share"].value == pytest.approx(fits[1] - fits[0], abs=1e-8)


def test_error_that_is_overlap_is_explained_and_error_that_falls_with_it_counts_negative():
    latents, decoder = world()
    overlap = torch.from_numpy(brute_force(latents, decoder)[0])
    rising = scores_of(latents, decoder, overlap)["crowding_error_share"]
    falling = scores_of(latents, decoder, overlap.max() - overlap)["crowding_error_share"]
    assert rising.value == pytest.approx(-falling.value)
    assert rising.value > 0.3
    controls = np.stack([(latents > 0).sum(1), *(brute_force(latents, decoder)[1] ** p for p in (1, 2))], axis=1)
    left = 1 - LinearRegression().fit(controls, overlap).score(controls, overlap)
    assert rising.value == pytest.approx(left, abs=1e-8)  # the controls take the rest


def test_error_of_busy_and_strong_samples_is_not_blamed_on_overlap():
    latents, decoder = world()
    busy = 3 * (latents > 0).sum(1) + latents.square().sum(1)
    assert scores_of(latents, decoder, busy)["crowding_error_share"].value == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_error_at_random_scores_zero_within_the_interval(seed):
    latents, decoder = world()
    error = noise(len(latents), seed=seed)
    score = scores_of(latents, decoder, error)["crowding_error_share"]
    assert abs(score.value) < 4 / len(latents)  # chi-squared with 1 degree of freedom, 95 %
    assert score.low <= 0 <= score.high


def test_orthogonal_latents_do_not_crowd():
    latents = world()[0][:, :6]
    assert scores_of(latents, torch.eye(6).double(), noise(len(latents)))["active_overlap"].value == 0


def test_duplicates_crowd_as_much_as_two_latents_can():
    # each feature's work split over two equal rows: t_i = z_i, so U = E; orthogonal otherwise
    latents = world()[0][:, :6].repeat(1, 2)
    scores = scores_of(latents, torch.eye(6).double().repeat(2, 1), noise(len(latents)))
    assert scores["active_overlap"].value == pytest.approx(1)


def test_signs_order_and_zero_rows():
    latents, decoder = world()
    error = noise(len(latents))
    plain = scores_of(latents, decoder, error)
    order = torch.randperm(20, generator=torch.Generator().manual_seed(2))
    changed = scores_of(
        torch.cat([latents[:, order], torch.ones(len(latents), 1)], 1),
        torch.cat([-decoder[order], torch.zeros(1, 6)]),
        error,
    )
    for name, score in plain.items():
        assert changed[name].value == pytest.approx(score.value, abs=1e-9), name


def test_constant_error_and_silence_have_no_answer():
    latents, decoder = world()
    assert isnan(scores_of(latents, decoder, torch.ones(len(latents)))["crowding_error_share"].value)
    assert isnan(scores_of(0 * latents, decoder, noise(len(latents)))["active_overlap"].value)
