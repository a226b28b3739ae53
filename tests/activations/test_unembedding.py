import pytest
import torch
import transformers
from architectures import OTHERS, saved_model
from tiny_models import every_model, loaded, plain, random_tokens, tiny_model, user_model

from sae_toolkit.activations.hooks import Tap
from sae_toolkit.activations.unembedding import component, unembedding_of, writes_residual


def by_hand(hf, vectors):
    """Behind the last norm's centring and gain, without its division; less the mean over the vocabulary."""
    if hf.config.model_type == "gpt2":
        read = (vectors - vectors.mean(-1, keepdim=True)) * hf.transformer.ln_f.weight
    else:
        read = vectors * hf.model.norm.weight
    logits = read @ hf.lm_head.weight.T
    return (logits - logits.mean(-1, keepdim=True)).detach()


def vectors(d, n=5):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(0))


@every_model
def test_direct_effects_by_hand(name):
    model, hf = loaded(name), plain(name)
    v = vectors(model.width(f"blocks.{model.n_layers - 1}.hook_resid_post"))
    unembedding = unembedding_of(model)
    torch.testing.assert_close(unembedding.direct(v), by_hand(hf, v), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(v @ unembedding.matrix(), by_hand(hf, v), atol=1e-4, rtol=1e-4)
    assert unembedding.centred == (hf.config.model_type == "gpt2")


@every_model
def test_scale_by_hand(name):
    model, hf = loaded(name), plain(name)
    x = 3 * vectors(model.width("blocks.0.hook_resid_post")) + 1
    if hf.config.model_type == "gpt2":
        expected = (x.var(-1, unbiased=False) + hf.config.layer_norm_epsilon).rsqrt()
    else:
        expected = (x.square().mean(-1) + hf.config.rms_norm_eps).rsqrt()
    torch.testing.assert_close(unembedding_of(model).inverse_scale(x), expected, atol=1e-6, rtol=1e-5)


def through_the_head(model, last, residual):
    """Logits in front of any softcap, where the last residual stream is replaced."""
    seen = []
    handle = Tap(component(model, "unembed"), "out").attach(lambda logits: seen.append(logits.detach()))
    model.logits(random_tokens(model.d_vocab, rows=1, context=len(residual)), {last: lambda _: residual[None]})
    handle.remove()
    return seen[0].reshape(len(residual), -1)


ONE_PLUS_GAIN = transformers.GemmaConfig(
    vocab_size=594,
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=64,
    head_dim=8,
    num_key_value_heads=2,
)


@pytest.mark.parametrize("kind", [*OTHERS, "one plus gain"])
def test_other_architectures(kind, tmp_path):
    """Norms that store gain - 1, softcaps and factors behind the head, flattened inputs, biases."""
    model = saved_model({**OTHERS, "one plus gain": ONE_PLUS_GAIN}[kind], tmp_path)
    last = f"blocks.{model.n_layers - 1}.hook_resid_post"
    unembedding, x = unembedding_of(model), vectors(32)
    logits = through_the_head(model, last, torch.cat([x, -x]))
    odd = (logits[:5] - logits[5:]) / 2  # what does not depend on x, the norm's and the head's bias, cancels
    expected = unembedding.direct(x) * unembedding.inverse_scale(x)[:, None]
    torch.testing.assert_close(expected, odd - odd.mean(-1, keepdim=True), atol=1e-5, rtol=1e-4)


def test_through_a_bridge_of_the_users_own():
    v = vectors(32)
    torch.testing.assert_close(unembedding_of(user_model()).direct(v), unembedding_of(tiny_model()).direct(v))


def test_a_model_with_something_behind_its_last_norm_is_refused():
    model = tiny_model()
    norm = component(model, "ln_final")
    handle = norm.register_forward_hook(lambda _m, _a, out: out + out.square())
    try:
        with pytest.raises(ValueError, match="not the unembedding of a LayerNorm or RMSNorm"):
            unembedding_of(model)
    finally:
        handle.remove()


@every_model
def test_what_writes_into_the_residual_stream(name):
    model = loaded(name)
    written = {hook.partition(".")[2].partition(".")[2] for hook in model.hooks if writes_residual(model, hook)}
    assert written == {"hook_resid_pre", "hook_attn_out", "hook_resid_mid", "hook_mlp_out", "hook_resid_post"}


@pytest.mark.parametrize("place", ["behind", "before"])
def test_a_norm_on_the_way_into_the_residual_stream_is_seen(place, tmp_path):
    """Against the change of the stream behind the block where something is added to what the MLP gives."""
    model = saved_model(OTHERS["extra norms"], tmp_path)
    if place == "before":
        model.taps["blocks.0.hook_mlp_out"] = Tap(model.module.model.layers[0].mlp, "out")
    tokens, seen = random_tokens(model.d_vocab), []
    added = vectors(32, 1)[0]
    for change in (torch.zeros(32), added):
        replace = {"blocks.0.hook_mlp_out": lambda x, change=change: x + change}
        replace["blocks.0.hook_resid_post"] = lambda x: (seen.append(x), x)[1]
        model.logits(tokens, replace)
    plainly = torch.allclose(seen[1] - seen[0], added.expand_as(seen[0]), atol=1e-5)
    assert plainly is (place == "behind")
    assert writes_residual(model, "blocks.0.hook_mlp_out") is plainly
