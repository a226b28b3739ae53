"""Co-firing of latents against counting in a loop, and against SciPy and scikit-learn."""

import numpy as np
import pytest
from scipy import sparse
from scipy.stats import pearsonr
from sklearn.metrics import jaccard_score
from sklearn.metrics.pairwise import cosine_similarity

from sae_toolkit.analysis import firing_together
from sae_toolkit.analysis.firing_together import cosine, fires_together, jaccard, phi

N_LATENTS = 9


@pytest.fixture(scope="module")
def acts():
    """2,000 samples; latent 0 always fires, 8 never, 1 and 2 mostly together."""
    rng = np.random.default_rng(0)
    z = rng.random((2000, N_LATENTS)) * (rng.random((2000, N_LATENTS)) < 0.2)
    z[:, 0], z[:, 8] = 1.0, 0.0
    z[:1800, 2] = z[:1800, 1]
    return z


REFERENCES = {
    phi: lambda a, b: pearsonr(a, b).statistic if a.std() > 0 and b.std() > 0 else 0.0,
    jaccard: lambda a, b: jaccard_score(a, b, zero_division=0),
    cosine: lambda a, b: cosine_similarity(a[None], b[None])[0, 0],
}


@pytest.mark.parametrize("measure", REFERENCES)
@pytest.mark.parametrize("at_once", [2, 256])
def test_the_partners_are_those_of_all_pairs(acts, measure, at_once, monkeypatch):
    monkeypatch.setattr(firing_together, "LATENTS_AT_ONCE", at_once)
    fires = (acts > 0).astype(int)
    chosen = [1, 0, 7, 8, 3]
    found = fires_together(sparse.csr_matrix(acts), chosen, 3, measure=measure)
    for latent, partners in zip(chosen, found, strict=True):
        values = {
            other: REFERENCES[measure](fires[:, latent], fires[:, other])
            for other in range(N_LATENTS)
            if other != latent
        }
        expected = sorted((value for value in values.values() if value > 1e-12), reverse=True)[:3]
        assert [partner.value for partner in partners] == pytest.approx(expected, abs=1e-12)
        assert all(values[partner.index] == pytest.approx(partner.value, abs=1e-12) for partner in partners)
        assert all(partner.label == f"latent {partner.index}" for partner in partners)


def test_a_latent_that_always_or_never_fires_has_no_correlated_partner(acts):
    assert fires_together(sparse.csr_matrix(acts), [0, 8], 5) == [(), ()]


def test_the_partner_that_copies_comes_first(acts):
    (partners,) = fires_together(sparse.csr_matrix(acts), [1], 1)
    assert partners[0].index == 2
