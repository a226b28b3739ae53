import math

import pytest
import torch
from tiny_models import loaded, plain, random_tokens

from sae_toolkit import ReluSAE
from sae_toolkit.activations import read_circuit_weights
from sae_toolkit.analysis import Site, edge_average_precision, edge_effects, edge_precision, edge_weights

TOKENS = random_tokens(120, rows=2, context=6, seed=2)
PLACES = ("blocks.0.hook_resid_post", "blocks.1.hook_resid_mid")


@pytest.fixture(scope="module")
def sites():
    model = loaded("tiny")
    found = []
    for hook, x in model.capture(TOKENS, PLACES).items():
        sae = ReluSAE(ReluSAE.Config(d_in=x.shape[-1], d_sae=6), seed=0).eval()  # one reads what the other writes
        sae.normaliser.fit_(x.flatten(0, 1))
        found.append(Site(sae, hook))
    return found


def by_hand(latent, sites):
    """Plain Hugging Face hooks, and the SAEs' own forward passes."""
    hf, seen, handles = plain("tiny"), [], []
    writer, reader = (site.dictionary for site in sites)

    def subtract(module, args, output):
        x = output[0] if isinstance(output, tuple) else output
        if latent is not None:
            x = x - writer.encode(x)[..., latent, None] * writer.decoder_directions()[latent]
        return (x, *output[1:]) if isinstance(output, tuple) else x

    handles.append(hf.transformer.h[0].register_forward_hook(subtract))
    handles.append(hf.transformer.h[1].ln_2.register_forward_pre_hook(lambda module, args: seen.append(args[0])))
    try:
        with torch.no_grad():
            hf(TOKENS)
            return reader.encode(seen[0]).double().mean((0, 1))
    finally:
        for handle in handles:
            handle.remove()


def test_taking_out_a_latent_does_what_hooks_by_hand_do(sites):
    found = edge_effects(loaded("tiny"), *sites, TOKENS, [0, 3])
    torch.testing.assert_close(found.clean, by_hand(None, sites), atol=1e-5, rtol=1e-4)
    for row, latent in enumerate((0, 3)):
        expected = by_hand(latent, sites) - by_hand(None, sites)
        assert float(expected.abs().max()) > 1e-4
        torch.testing.assert_close(found.effects[row], expected, atol=1e-6, rtol=1e-3)


def test_edge_weights_are_sums_over_tokens_heads_and_the_residual_stream(sites):
    model = loaded("tiny")
    weights = read_circuit_weights(model)
    seen = model.capture(TOKENS, PLACES)
    (writer, _), (reader, _) = sites
    with torch.no_grad():
        a, b = writer.encode(seen[PLACES[0]]), reader.encode(seen[PLACES[1]])
    pattern, scale = weights.pattern(1, seen[PLACES[0]]), weights.scale(seen[PLACES[0]])
    D = writer.decoder_directions().detach()
    read = (reader.W_enc / reader.normaliser.scale[:, None]).detach()
    direct = D @ read
    raw, weighted, expected = direct.abs(), torch.zeros(6, 6), torch.zeros(6, 6)
    heads = [D @ weights.W_V[1, h] @ weights.W_O[1, h] @ read for h in range(weights.n_heads)]
    raw = raw + sum(head.abs() for head in heads)
    for row in range(2):
        for t in range(6):
            for other, total in ((b[row, t], weighted), ((b[row, t] > 0).float(), expected)):
                total.add_(torch.outer(a[row, t], other) * direct)
                for s in range(t + 1):
                    for h, head in enumerate(heads):
                        moved = pattern[row, h, t, s] / scale[row, s]
                        total.add_(moved * torch.outer(a[row, s], other) * head)
    found = edge_weights(weights, 1, writer, reader, *seen.values())
    torch.testing.assert_close(found.raw.float(), raw, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found.weighted.float(), weighted / 12, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found.expected.float(), expected / 12, atol=1e-5, rtol=1e-4)
    mean = b.mean((0, 1))
    assert bool((mean > 0).any())
    share = torch.where(mean > 0, expected / 12 / mean, 0.0)
    torch.testing.assert_close(found.share.float(), share, atol=1e-5, rtol=1e-4)


def test_ranking_by_hand():
    edges = torch.tensor([[True, False], [False, True]])
    scores = torch.tensor([[-4.0, 3.0], [0.5, 2.0]]).double()  # by magnitude: right, wrong, right, wrong
    assert edge_average_precision(scores, edges) == pytest.approx((1 / 1 + 2 / 3) / 2)
    assert edge_precision(scores, edges) == 0.5
    assert math.isnan(edge_average_precision(scores, torch.zeros(2, 2, dtype=torch.bool)))


def test_places_in_the_wrong_order_are_refused(sites):
    with pytest.raises(ValueError, match="computes first"):
        edge_effects(loaded("tiny"), *reversed(sites), TOKENS, [0])
