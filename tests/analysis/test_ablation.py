import numpy as np
import pytest
from model_sources import last_hook, sae_of, source_of
from scipy.stats import spearmanr
from tiny_models import tiny_model
from toy import ToySource

from sae_toolkit import TopKSAE
from sae_toolkit.analysis import (
    Remove,
    attribution_agreement,
    gradient_attribution,
    integrated_attribution,
    norm_exact_attribution,
    steered,
    surprise_at,
)


def asked(row):
    return surprise_at(len(row) - 2)


@pytest.mark.parametrize("method", [gradient_attribution, integrated_attribution, norm_exact_attribution])
def test_agreement_by_hand(method):
    """Row by row: attributions against removals by steering, strong ones counted, ranks by SciPy."""
    model, hook = tiny_model(), "blocks.0.hook_resid_post"
    source = source_of(model, hook)
    sae = sae_of(source)
    found = attribution_agreement(sae, source, asked, n_rows=3, attribute=method)
    signs, ranks = [], []
    for row in source.spread_rows(3).tokens:
        attributed = method(sae, model, hook, row[None], asked(row)).by_latent()
        whole = asked(row)(model.logits(row[None]), row[None])
        effects = []
        for latent in attributed.indices.tolist():
            with steered(model, sae, hook, [Remove(latent)]):
                effects.append(float(whole - asked(row)(model.logits(row[None]), row[None])))
        effects = np.array(effects)
        strong = np.abs(effects) >= 0.1 * np.abs(effects).max()
        signs += (np.sign(effects) == np.sign(attributed.values.numpy()))[strong].tolist()
        ranks.append(spearmanr(effects, attributed.values.numpy()).statistic)
    assert found["attribution_sign_agreement"].value == pytest.approx(np.mean(signs), abs=1e-9)
    assert found["attribution_sign_agreement"].n == len(signs)
    assert found["attribution_rank_correlation"].value == pytest.approx(np.mean(ranks), abs=0.01)


def test_a_source_without_a_model_is_refused():
    sae = TopKSAE(TopKSAE.Config(d_in=8, d_sae=16, k=2))
    with pytest.raises(ValueError, match="attribution_agreement: ToySource runs no language model"):
        attribution_agreement(sae, ToySource(), asked)
    with pytest.raises(ValueError, match="d_in=8"):
        attribution_agreement(sae, source_of(tiny_model(), last_hook(tiny_model())), asked)
