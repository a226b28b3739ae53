import numpy as np
import pytest
import torch
from model_sources import last_hook, sae_of, source_of
from scipy.stats import spearmanr
from tiny_models import every_model, loaded, plain, tiny_model
from toy import ToySource

from sae_toolkit import TopKSAE
from sae_toolkit.activations import build_cache, site_of
from sae_toolkit.analysis import (
    Remove,
    direct_logit_effects,
    effect_agreement,
    has_direct_logit_effects,
    steered,
)
from sae_toolkit.analysis import logits as logits_file


@pytest.fixture(scope="module")
def source():
    return source_of(tiny_model(), last_hook(tiny_model()))


def effects_by_hand(name, sae, source):
    """Decoder rows in raw units through the last norm at its mean scale, and the unembedding, less their mean."""
    hf, rows, totals = plain(name), sae.decoder_directions().detach(), []
    gpt2 = hf.config.model_type == "gpt2"
    norm = hf.transformer.ln_f if gpt2 else hf.model.norm
    for tokens in source.spread_rows(16).tokens:
        seen = []
        handle = norm.register_forward_pre_hook(lambda _m, args: seen.append(args[0][0].detach()))  # noqa: B023
        with torch.no_grad():
            hf(tokens[None])
        handle.remove()
        keep = ~torch.isin(tokens, torch.tensor(sorted(set(source.text.special_token_ids.values()))))
        keep[0] = False
        x = seen[0][keep]
        if gpt2:
            totals.append((x.var(-1, unbiased=False) + norm.eps).rsqrt())
        else:
            totals.append((x.square().mean(-1) + hf.config.rms_norm_eps).rsqrt())
    read = (rows - rows.mean(1, keepdim=True)) * norm.weight if gpt2 else rows * norm.weight
    logits = read @ hf.lm_head.weight.T
    return ((logits - logits.mean(1, keepdim=True)) * torch.cat(totals).mean()).detach()


@every_model
def test_promoted_and_suppressed_tokens_by_hand(name):
    model = loaded(name)
    source = source_of(model, last_hook(model))
    sae = sae_of(source)
    expected = effects_by_hand(name, sae, source)[:, : len(source.token_texts)]
    found = direct_logit_effects(sae, source, [3, 0, 17], n_top=5)
    assert list(found) == [3, 0, 17]
    for latent, (promoted, suppressed) in found.items():
        ranked = expected[latent].argsort(descending=True)
        assert [one.index for one in promoted] == ranked[:5].tolist()
        assert [one.index for one in suppressed] == ranked.flip(0)[:5].tolist()
        for one in (*promoted, *suppressed):
            assert one.value == pytest.approx(float(expected[latent, one.index]), rel=1e-3, abs=1e-5)
            assert one.label == source.token_texts[one.index]


def test_chunks_change_nothing(source, monkeypatch):
    sae = sae_of(source)
    whole = direct_logit_effects(sae, source, range(10), n_top=3)
    monkeypatch.setattr(logits_file, "LOGITS_AT_ONCE", 3 * tiny_model().d_vocab)
    parts = direct_logit_effects(sae, source, range(10), n_top=3)
    for latent in range(10):
        for a, b in zip(whole[latent][0], parts[latent][0], strict=True):
            assert (a.index, a.label) == (b.index, b.label)
            assert a.value == pytest.approx(b.value, rel=1e-5)


def true_effect(model, sae, source, latent, n_rows):
    """Row by row, with the steering context: change of centred logits where it fires, per unit of activation."""
    change, strength, n_tokens = 0.0, 0.0, 0
    for tokens in source.spread_rows(n_rows).tokens:
        z = sae.encode(model.capture(tokens[None], [last_hook(model)])[last_hook(model)][0])[:, latent].detach()
        special = torch.isin(tokens, torch.tensor(sorted(set(source.text.special_token_ids.values()))))
        fires = (z != 0) & ~special
        fires[0] = False
        with steered(model, sae, last_hook(model), [Remove(latent)]):
            without = model.logits(tokens[None])[0]
        difference = (model.logits(tokens[None])[0] - without)[fires].double()
        change = change + (difference - difference.mean(-1, keepdim=True)).sum(0)
        strength, n_tokens = strength + float(z[fires].double().sum()), n_tokens + int(fires.sum())
    return change / strength, n_tokens


def test_agreement_with_removal_by_hand(source):
    model, sae = tiny_model(), sae_of(source)
    batch = next(source.stream(512, seed=0, split="eval")).activations
    latent = int((sae.encode(batch) != 0).sum(0).argmax())
    expected, n_tokens = true_effect(model, sae, source, latent, 6)
    direct = effects_by_hand("tiny", sae, source)[latent].double()
    found = effect_agreement(sae, source, [latent, latent], n_rows=6)[latent]
    assert found.n_tokens == n_tokens > 3
    assert found.cosine == pytest.approx(float(expected @ direct / expected.norm() / direct.norm()), abs=1e-4)
    assert found.rank_correlation == pytest.approx(spearmanr(expected, direct).statistic, abs=1e-3)
    assert found.size == pytest.approx(float(expected @ direct / (direct @ direct)), rel=1e-3)
    assert found.frozen_cosine == pytest.approx(1.0, abs=1e-4)  # nothing lies behind this hook but the norm
    assert found.cosine < found.frozen_cosine


def test_later_layers_may_make_something_else_of_a_latent():
    source = source_of(tiny_model(), "blocks.0.hook_resid_pre")
    sae = sae_of(source)
    batch = next(source.stream(512, seed=0, split="eval")).activations
    latents = (sae.encode(batch) != 0).sum(0).topk(3).indices.tolist()
    found = effect_agreement(sae, source, latents, n_rows=6)
    assert all(-1 <= one.frozen_cosine < 0.999 for one in found.values())


def test_a_latent_that_never_fires_has_no_agreement(source):
    sae = sae_of(source)
    with torch.no_grad():
        sae.b_enc[7] = -1e6
    found = effect_agreement(sae, source, [7], n_rows=2)[7]
    assert np.isnan(found.cosine)
    assert found.n_tokens == 0


def test_where_there_is_no_direct_effect_it_is_said(source, tmp_path):
    sae = TopKSAE(TopKSAE.Config(d_in=8, d_sae=16, k=2))
    assert not has_direct_logit_effects(ToySource())
    with pytest.raises(ValueError, match="ToySource runs no language model"):
        direct_logit_effects(sae, ToySource(), [0])
    with pytest.raises(ValueError, match="d_in=8"):
        direct_logit_effects(sae, source, [0])
    neurons = source_of(tiny_model(), "blocks.1.mlp.hook_post")
    assert not has_direct_logit_effects(neurons)
    with pytest.raises(ValueError, match="does not go into the residual stream"):
        direct_logit_effects(sae_of(neurons), neurons, [0])
    for latents in ([40], [-1]):
        with pytest.raises(ValueError, match="the SAE has 0 to 39"):
            direct_logit_effects(sae_of(source), source, latents)
    with pytest.raises(ValueError, match="n_top=0"):
        direct_logit_effects(sae_of(source), source, [0], n_top=0)
    assert not has_direct_logit_effects(build_cache(source, tmp_path))


def test_one_site_of_several():
    both = source_of(tiny_model(), "blocks.0.hook_resid_post", last_hook(tiny_model()))
    alone, site = source_of(tiny_model(), last_hook(tiny_model())), site_of(both, last_hook(tiny_model()))
    sae = sae_of(alone)
    assert direct_logit_effects(sae, site, [2]) == direct_logit_effects(sae, alone, [2])
    with pytest.raises(ValueError, match="say at which site"):
        has_direct_logit_effects(both)
