import pytest
import torch
from tiny_models import loaded, random_tokens

from sae_toolkit import ReluSAE
from sae_toolkit.activations import read_circuit_weights
from sae_toolkit.analysis import MeanProducts, strongest_edges, virtual_weights, virtual_weights_through
from sae_toolkit.sparse_rows import SparseRows


def fitted(d_in, d_sae, seed, normaliser="mean_scalar"):
    sae = ReluSAE(ReluSAE.Config(d_in=d_in, d_sae=d_sae, normaliser=normaliser), seed=seed).eval()
    sample = torch.randn(500, d_in, generator=torch.Generator().manual_seed(seed)) * 3 + 1
    sae.normaliser.fit_(sample)
    return sae


def pre_activations(sae, x):
    """By the definition of a ReLU SAE, without its own code for virtual weights."""
    return (sae.normaliser.normalise(x) - sae.b_dec) @ sae.W_enc + sae.b_enc


@pytest.mark.parametrize("normaliser", ["none", "mean_scalar", "per_dimension", "whitening"])
def test_a_latent_moves_a_pre_activation_by_its_virtual_weight(normaliser):
    writer, reader = fitted(6, 4, 0), fitted(6, 5, 1, normaliser)
    x = torch.randn(3, 6, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        moved = x + 0.7 * writer.decoder_directions()[2]
        change = pre_activations(reader, moved) - pre_activations(reader, x)
    expected = 0.7 * virtual_weights(writer, reader).dense()[2].expand(3, -1)
    torch.testing.assert_close(change, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ["tiny", "stories260K"])
def test_through_heads_the_same_holds_in_a_model_with_its_attention_frozen(name):
    model = loaded(name)
    weights = read_circuit_weights(model)
    d, layer = weights.d_model, 1
    writer, reader = fitted(d, 8, 0), fitted(d, 8, 1)
    tokens = random_tokens(model.d_vocab, rows=1, context=6, seed=1)
    hook = f"blocks.{layer}.hook_resid_pre"
    residual = model.capture(tokens, [hook])[hook]
    pattern, scale = weights.pattern(layer, residual), weights.scale(residual)
    step, latent, source = 0.3, 5, 2
    moved = residual / scale
    moved[0, source] += step * writer.decoder_directions()[latent].detach() / scale[0, source]
    frozen = type(weights)(**{**vars(weights), "norm": "none"})  # the scales stay those of the untouched text
    before, after = (frozen.attn_out(layer, x, pattern) for x in (residual / scale, moved))
    change = (pre_activations(reader, after) - pre_activations(reader, before)).detach()[0]
    by_head = [
        virtual_weights_through(writer, weights, layer, (h,), reader).dense()[latent] for h in range(weights.n_heads)
    ]
    expected = step / scale[0, source] * pattern[0, :, :, source].T @ torch.stack(by_head)
    torch.testing.assert_close(change, expected, atol=1e-5, rtol=1e-3)
    together = virtual_weights_through(writer, weights, layer, range(weights.n_heads), reader).dense()
    torch.testing.assert_close(together[latent], torch.stack(by_head).sum(0), atol=1e-5, rtol=1e-4)


def test_edges_are_ordered_by_what_flows():
    writer, reader = fitted(4, 3, 0), fitted(4, 3, 1)
    edges = virtual_weights(writer, reader)
    raw = strongest_edges(edges, 9)
    products = MeanProducts(3, 3)
    on = torch.zeros(2, 3)
    on[0, int(raw.rows[-1])] = 1.0  # of all latents only the two ends of the weakest edge are ever active
    other = torch.zeros(2, 3)
    other[0, int(raw.columns[-1])] = 4.0
    products.update(SparseRows.from_dense(on), SparseRows.from_dense(other))
    weighted = strongest_edges(edges, 1, products)
    assert (int(weighted.rows), int(weighted.columns)) == (int(raw.rows[-1]), int(raw.columns[-1]))
    assert float(weighted.values) == pytest.approx(2 * float(raw.values[-1]), rel=1e-5)  # E over two tokens
    with pytest.raises(ValueError, match="same two SAEs"):
        strongest_edges(edges, 1, add_nothing(MeanProducts(3, 2)))
    with pytest.raises(ValueError, match="one model"):
        virtual_weights(writer, fitted(5, 3, 1))


def add_nothing(products):
    rows = [SparseRows.from_dense(torch.zeros(1, n)) for n in products.sums.shape]
    products.update(*rows)
    return products
