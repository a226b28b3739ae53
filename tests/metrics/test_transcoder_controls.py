"""Controls of transcoders and crosscoders against least squares written out, and on truths known by construction."""

import pytest
import torch
from sklearn.linear_model import Ridge
from torch import Tensor
from toy import gaussian

from sae_toolkit import SkipTopKTranscoder, TopKTranscoder, evaluate
from sae_toolkit.activations import ViewsSource
from sae_toolkit.ground_truth import IndependentFiring, RectifiedNormalMagnitudes, World, random_directions
from sae_toolkit.metrics import SiteReconstruction
from sae_toolkit.metrics.controls import FixedDictionary, InUnits, untrained
from sae_toolkit.metrics.transcoder_controls import (
    LinearMap,
    fitted_transcoder,
    own_directions,
    rebuilds,
    ridge_decoder,
)
from sae_toolkit.saes.coders import LinearTopK, MatchingPursuit
from sae_toolkit.saes.normalise import SitewiseNormaliser
from sae_toolkit.sparse_rows import SparseRows


def test_the_decoder_is_the_ridge_regression() -> None:
    z = gaussian(200, 12, seed=1).double().relu() * (gaussian(200, 12, seed=2) > 0)
    y = gaussian(200, 5, seed=3).double()
    ridge = z[z > 0].square().mean()
    expected = torch.linalg.solve(z.T @ z + ridge * torch.eye(12, dtype=z.dtype), z.T @ y)
    torch.testing.assert_close(ridge_decoder(SparseRows.from_dense(z), y), expected, rtol=1e-3, atol=1e-3)


def test_a_latent_that_never_fires_writes_nothing() -> None:
    z = torch.tensor([[1.0, 0.0], [2.0, 0.0]])
    writes = ridge_decoder(SparseRows.from_dense(z), torch.tensor([[1.0], [2.0]]))
    # 5 W + 2.5 W = 5: the squares sum to 5, and the penalty is their mean
    assert writes.tolist() == [[pytest.approx(2 / 3)], [0.0]]


def test_nothing_active_predicts_the_mean() -> None:
    silent = SparseRows.from_dense(torch.zeros(3, 2))
    assert ridge_decoder(silent, torch.ones(3, 4)).tolist() == [[0.0] * 4] * 2


def test_the_linear_map_is_the_ridge_regression() -> None:
    x, y = gaussian(300, 6, seed=4), gaussian(300, 3, seed=5)
    fitted = LinearMap(x, y)
    centred = (x - x.mean(0)).double()
    reference = Ridge(alpha=float(centred.square().mean())).fit(x.double().numpy(), y.double().numpy())
    predicted = torch.from_numpy(reference.predict(x.double().numpy()))
    output = fitted.forward(x)
    torch.testing.assert_close(output.reconstruction.double(), predicted, rtol=1e-4, atol=1e-5)
    assert output.dense_latents().shape == (300, 6)


def two_views(second_scale: float = 1.0) -> ViewsSource:
    """Eight features on orthogonal axes of one space, in random directions of another."""
    world = World(
        directions=torch.eye(8),
        firing=IndependentFiring(probabilities=torch.full((8,), 0.2)),
        magnitudes=RectifiedNormalMagnitudes.same_for_all(8, mean=1.0, std=0.25),
    )
    return ViewsSource(world, {"read": torch.eye(8), "written": second_scale * random_directions(8, 5, seed=3)})


def columns(source: ViewsSource, seed: int = 0) -> tuple[Tensor, Tensor]:
    activations = next(source.stream(4000, seed=seed, split="train")).activations
    return activations[:, :8], activations[:, 8:]


def test_true_reading_directions_predict_the_target() -> None:
    """Every positive coordinate is a feature, and the best decoder is what the feature is written as."""
    x, y = columns(two_views())
    at_rest = FixedDictionary(torch.eye(8), coder=LinearTopK(8)).forward(x).sparse_latents()
    torch.testing.assert_close(ridge_decoder(at_rest, y), two_views().directions["written"], atol=5e-3, rtol=0)
    fitted = fitted_transcoder(torch.eye(8), x, y, coder=LinearTopK(8))
    chance = fitted_transcoder(random_directions(8, 8, seed=1), x, y, coder=LinearTopK(2))
    left = [float((y - each.forward(x).reconstruction).square().sum()) for each in (fitted, chance)]
    assert left[0] < 0.1 * left[1]
    assert fitted.decoder_directions().shape == (8, 5)


def small_transcoder(kind: type = TopKTranscoder) -> TopKTranscoder:
    sae = kind(kind.Config(d_in=8, d_out=5, d_sae=8, k=2), seed=0)
    x, y = columns(two_views())
    sae.normaliser.fit_(x)
    sae.output_normaliser.fit_(y)
    return sae.eval()


def test_own_directions_are_those_of_the_target_around_what_no_latent_gives() -> None:
    sae = small_transcoder()
    control = own_directions(sae, 2)
    _, y = columns(two_views())
    torch.testing.assert_close(control.offset, y.mean(0))  # b_dec is 0, so nothing active means the mean
    cosines = torch.cosine_similarity(control.decoder_directions(), sae.W_dec.detach())
    torch.testing.assert_close(cosines, torch.ones(8))
    one_atom = y.mean(0) + 2 * control.decoder_directions()[3]
    torch.testing.assert_close(control.forward(one_atom[None]).reconstruction[0], one_atom)


def test_an_untrained_transcoder_keeps_both_normalisers_and_fits_its_skip_anew() -> None:
    sae = small_transcoder(SkipTopKTranscoder)
    x, y = columns(two_views())
    with torch.no_grad():
        sae.W_skip += 1.0
    assert not rebuilds(sae, x)
    assert rebuilds(small_transcoder(), x)
    fresh = untrained(sae, x, seed=3, target=y)
    assert isinstance(fresh, SkipTopKTranscoder)
    for kept, own in ((fresh.normaliser, sae.normaliser), (fresh.output_normaliser, sae.output_normaliser)):
        for name, tensor in own.state_dict().items():
            assert torch.equal(kept.state_dict()[name], tensor)
    a, b = (rows.double() - rows.double().mean(0) for rows in (fresh.normaliser.normalise(x), y / y.std()))
    wanted = torch.linalg.solve(a.T @ a + 8 * torch.eye(8), a.T @ b)
    assert float(torch.cosine_similarity(fresh.W_skip.detach().flatten().double(), wanted.flatten(), dim=0)) > 0.999
    assert not torch.equal(fresh.W_enc, sae.W_enc)


def test_controls_of_several_sites_do_not_depend_on_their_units() -> None:
    """A site in units a hundred times smaller counts as before; without common units it would drown the other."""
    inner = FixedDictionary(random_directions(20, 13, seed=2), coder=MatchingPursuit(3))
    by_scale, without = [], []
    for scale in (1.0, 100.0):
        source = two_views(scale)
        units = SitewiseNormaliser("mean_scalar", [8, 5])
        units.fit_(torch.cat(columns(source), dim=1))
        both = {"in units": InUnits(inner, units), "raw": inner}
        found = evaluate(both, source, n_samples=500, metrics=lambda: [SiteReconstruction({"read": 8, "written": 5})])
        by_scale.append({name: score.value for name, score in found["in units"].items()})
        without.append(found["raw"]["explained_variance_of_read"].value)
    assert by_scale[0] == pytest.approx(by_scale[1], rel=1e-3)
    assert abs(without[0] - without[1]) > 0.05
