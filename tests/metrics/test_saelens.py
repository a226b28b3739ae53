"""Against a slow loop written from the published definitions."""

import pytest
import torch
from scipy.optimize import linear_sum_assignment

from sae_toolkit.metrics.controls import FixedDictionary
from sae_toolkit.metrics.matching import assign
from sae_toolkit.metrics.saelens import SAELensRecovery, clamped_unit_rows
from sae_toolkit.saes.coders import LinearTopK


def slow_reference(directions, decoder, latents, coefficients):
    n_features, n_latents = len(directions), len(decoder)
    table = torch.zeros(n_latents, n_features, dtype=torch.float64)
    for i in range(n_latents):
        for j in range(n_features):
            d, v = decoder[i].double(), directions[j].double()
            table[i, j] = (d @ v / (d.norm().clamp_min(1e-8) * v.norm().clamp_min(1e-8))).abs()
    rows, columns = linear_sum_assignment(-table.numpy())
    precisions, recalls, f1s, nearest = [], [], [], []
    for i in range(n_latents):
        j = int(table[i].argmax())
        nearest.append(j)
        tp = fp = fn = 0
        for z, a in zip(latents[:, i].tolist(), coefficients[:, j].tolist(), strict=True):
            tp += z != 0 and a > 0
            fp += z != 0 and not a > 0
            fn += z == 0 and a > 0
        precisions.append(tp / (tp + fp) if tp + fp else 0.0)
        recalls.append(tp / (tp + fn) if tp + fn else 0.0)
        total = precisions[-1] + recalls[-1]
        f1s.append(2 * precisions[-1] * recalls[-1] / total if total else 0.0)
    return {
        "saelens_mcc": table[rows, columns].mean().item(),
        "saelens_uniqueness": len(set(nearest)) / n_latents,
        "saelens_precision": sum(precisions) / n_latents,
        "saelens_recall": sum(recalls) / n_latents,
        "saelens_f1": sum(f1s) / n_latents,
    }


@pytest.mark.parametrize("n_features", [7, 12])
def test_equal_to_the_slow_reference(samples, n_features):
    g = torch.Generator().manual_seed(8)
    directions, decoder = torch.randn(n_features, 6, generator=g), torch.randn(10, 6, generator=g)
    cut = samples._replace(coefficients=samples.coefficients[:, :n_features])
    sae = FixedDictionary(decoder, coder=LinearTopK(1))
    scores = cut.feed(SAELensRecovery(directions), 33).compute(sae)
    expected = slow_reference(directions, decoder, cut.latents, cut.coefficients)
    assert {name: score.value for name, score in scores.items()} == pytest.approx(expected, abs=1e-6)


def mcc(features, decoder):

    return assign(clamped_unit_rows(features), clamped_unit_rows(decoder), signed=False)[2].mean().item()


def test_known_blind_spots(features):
    junk = torch.randn(960, 64, generator=torch.Generator().manual_seed(7))
    for decoder in (-features, features[:1], features[:128], torch.cat([features, junk])):
        assert mcc(features, decoder) == pytest.approx(1.0, abs=1e-6)
