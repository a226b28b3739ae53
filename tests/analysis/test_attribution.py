import pytest
import torch
from tiny_models import (
    independent_place,
    loaded,
    plain,
    random_tokens,
    tiny_model,
    tiny_model_folder,
    user_model,
)

from sae_toolkit import ReluSAE, TopKSAE
from sae_toolkit.activations import ModelConfig, load_model
from sae_toolkit.analysis import (
    Remove,
    Scale,
    ablation_effects,
    gradient_attribution,
    integrated_attribution,
    logit_difference,
    next_token_loss,
    norm_exact_attribution,
    steered,
    surprise_at,
    token_logit,
)
from sae_toolkit.analysis.attribution import dealt
from sae_toolkit.analysis.steering import Where

HOOK = "blocks.0.hook_resid_post"


def sae_for(model, hook=HOOK, variant=TopKSAE, d_sae=48):
    x = model.capture(random_tokens(model.d_vocab, seed=9), [hook])[hook].flatten(0, 1)
    few = {"k": 6} if variant is TopKSAE else {}
    sae = variant(variant.Config(d_in=x.shape[1], d_sae=d_sae, normaliser="per_dimension", **few))
    sae.normaliser.fit_(x)
    with torch.no_grad():
        sae.b_dec.add_(0.1)
    return sae.eval()


def independent_gradient(name, tokens, number, layer, kind):
    """x and dM/dx from the plain model, by a hook written here."""
    hf, seen = plain(name), {}
    module, side = independent_place(hf, layer, kind)
    assert side == "out"

    def leaf(_module, _args, out):
        seen["x"] = (out if isinstance(out, torch.Tensor) else out[0]).detach().requires_grad_()
        return seen["x"] if isinstance(out, torch.Tensor) else (seen["x"], *out[1:])

    handle = module.register_forward_hook(leaf)
    value = number(hf(tokens).logits)
    handle.remove()
    (gradient,) = torch.autograd.grad(value.sum(), seen["x"])
    return seen["x"].detach(), gradient


@pytest.mark.parametrize("variant", [TopKSAE, ReluSAE])
@pytest.mark.parametrize("kind", ["hook_resid_post", "hook_mlp_out", "hook_attn_out"])
@pytest.mark.parametrize("name", ["tiny", "stories260K"])
def test_contributions_sum_to_the_first_order_change(name, kind, variant):
    model = loaded(name)
    sae, tokens = sae_for(model, f"blocks.0.{kind}", variant), random_tokens(model.d_vocab)
    found = gradient_attribution(sae, model, f"blocks.0.{kind}", tokens, logit_difference(3, 7))
    x, gradient = independent_gradient(name, tokens, lambda z: z[:, -1, 3] - z[:, -1, 7], 0, kind)
    torch.testing.assert_close(found.total(), (x * gradient).double().sum((1, 2)), atol=2e-4, rtol=1e-4)
    z = sae.encode(x)
    expected = z * (gradient @ sae.decoder_directions().T)
    expected[:, 0] = 0  # the first position is left out
    torch.testing.assert_close(found.latents.to_dense(), expected.detach(), atol=1e-4, rtol=1e-4)
    bias = (sae.decode(torch.zeros_like(z)) * gradient).sum(-1).detach()
    error = ((x - sae.decode(z)) * gradient).sum(-1).detach()
    torch.testing.assert_close(found.bias[:, 1:], bias[:, 1:], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found.error[:, 1:], error[:, 1:], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found.left_out[:, 0], (x * gradient).sum(-1)[:, 0], atol=1e-4, rtol=1e-4)
    assert not found.left_out[:, 1:].any()
    dense = expected.detach().double().sum(1)
    torch.testing.assert_close(found.by_latent().to_dense(), dense, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("hook", [HOOK, "blocks.1.hook_resid_mid", "blocks.1.hook_resid_pre", "blocks.1.mlp.hook_post"])
def test_contributions_are_slopes_by_finite_differences(hook):
    """d M / d log(scale of the latent) at scale 1, by steering."""
    model = tiny_model()
    sae, tokens = sae_for(model, hook), random_tokens(model.d_vocab, rows=1)
    asked = token_logit(3)
    found = gradient_attribution(sae, model, hook, tokens, asked)
    by_latent = found.by_latent()
    strongest = by_latent.values.abs().topk(4).indices
    for latent, value in zip(by_latent.indices[strongest].tolist(), by_latent.values[strongest].tolist(), strict=True):
        moved = []
        for factor in (1.02, 0.98):
            with steered(model, sae, hook, [Scale(latent, factor)]):
                moved.append(float(asked(model.logits(tokens), tokens)[0]))
        assert (moved[0] - moved[1]) / 0.04 == pytest.approx(value, rel=0.02, abs=2e-4)
    torch.testing.assert_close(found.prediction, asked(model.logits(tokens), tokens))


def test_integrated_gradients_account_for_removing_all_latents():
    model = tiny_model()
    sae, tokens = sae_for(model), random_tokens(model.d_vocab, rows=2)
    asked = next_token_loss
    with steered(model, sae, HOOK, [Remove(latent) for latent in range(48)]):
        without = asked(model.logits(tokens), tokens)
    expected = (asked(model.logits(tokens), tokens) - without).double()
    errors = []
    for n_steps in (1, 32):
        found = integrated_attribution(sae, model, HOOK, tokens, asked, n_steps=n_steps)
        errors.append(float((found.by_latent().to_dense().sum(1) - expected).abs().max()))
    assert errors[1] < 1e-3 * float(expected.abs().max()) + 1e-5
    assert errors[1] < errors[0]


@pytest.mark.parametrize("name", ["tiny", "stories260K"])
def test_behind_the_last_block_norm_exact_is_ablation(name):
    """One norm and a linear map are left: no approximation remains, and only the token that is asked counts."""
    model = loaded(name)
    hook = f"blocks.{model.n_layers - 1}.hook_resid_post"
    sae, tokens = sae_for(model, hook), random_tokens(model.d_vocab, rows=2)
    for asked in (logit_difference(3, 7), token_logit(5)):
        found = norm_exact_attribution(sae, model, hook, tokens, asked)
        dense = found.by_latent().to_dense().float()
        for row in range(2):
            removed = ablation_effects(sae, model, hook, tokens[row], range(48), asked)
            torch.testing.assert_close(dense[row], removed, atol=2e-4, rtol=1e-3)
        plain_gradient = gradient_attribution(sae, model, hook, tokens, asked)
        torch.testing.assert_close(found.error, plain_gradient.error)
        torch.testing.assert_close(found.bias, plain_gradient.bias)


def independent_norm_exact(hf, x, z, directions, norms, number, tokens):
    """Every norm's output is a leaf of the graph's cut: total derivatives there, differences of calls, all dense."""
    given, made = {}, {}
    handles = [
        hf.transformer.h[0].register_forward_hook(lambda _m, _a, out: x if torch.is_tensor(out) else (x, *out[1:]))
    ]
    for name, norm in norms.items():

        def keep(_module, args, out, name=name):
            given[name], made[name] = args[0].detach(), out

        handles.append(norm.register_forward_hook(keep))
    gradients = torch.autograd.grad(number(hf(tokens).logits).sum(), list(made.values()))
    for handle in handles:
        handle.remove()
    expected = torch.zeros_like(z)
    with torch.no_grad():
        for latent in range(z.shape[-1]):
            lost = z[..., latent, None] * directions[latent]
            for name, gradient in zip(made, gradients, strict=True):
                change = norms[name](given[name]) - norms[name](given[name] - lost)
                expected[..., latent] += (change * gradient).sum(-1)
    return expected


def test_norm_exact_by_a_loop_over_norms_and_latents():
    model, hf = tiny_model(), plain("tiny")
    sae, tokens = sae_for(model), random_tokens(model.d_vocab, rows=2)
    block = hf.transformer.h[1]
    norms = {"attention": block.ln_1, "mlp": block.ln_2, "last": hf.transformer.ln_f}
    x = model.capture(tokens, [HOOK])[HOOK].requires_grad_()
    with torch.no_grad():
        z, directions = sae.encode(x), sae.decoder_directions()
    expected = independent_norm_exact(hf, x, z, directions, norms, lambda y: y[:, -1, 3] - y[:, -1, 7], tokens)
    expected[:, 0] = 0  # the first position is left out
    found = norm_exact_attribution(sae, model, HOOK, tokens, logit_difference(3, 7))
    torch.testing.assert_close(found.latents.to_dense(), expected, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("hook", ["blocks.0.hook_mlp_out", "blocks.1.hook_attn_out", "blocks.1.hook_resid_mid"])
def test_for_small_latents_norm_exact_is_the_gradient(hook):
    """What the norms are told is then linear: at every place that writes into the stream."""
    model = tiny_model()
    sae, tokens = sae_for(model, hook), random_tokens(model.d_vocab, rows=1)
    with torch.no_grad():
        sae.W_dec.mul_(1e-3)
    expected = gradient_attribution(sae, model, hook, tokens, token_logit(3)).latents.to_dense()
    found = norm_exact_attribution(sae, model, hook, tokens, token_logit(3)).latents.to_dense()
    torch.testing.assert_close(found, expected, atol=0.02 * float(expected.abs().max()), rtol=0.02)


@pytest.mark.parametrize("exact", [False, True])
def test_a_group_for_each_latent_tends_to_ablation(exact):
    model = tiny_model()
    sae, tokens = sae_for(model), random_tokens(model.d_vocab, rows=1)
    asked = surprise_at(20)
    removed = ablation_effects(sae, model, HOOK, tokens[0], range(48), asked).double()

    def error(n_groups, n_steps):
        if exact:
            found = norm_exact_attribution(sae, model, HOOK, tokens, asked, n_groups=n_groups)
        else:
            found = integrated_attribution(sae, model, HOOK, tokens, asked, n_groups=n_groups, n_steps=n_steps)
        return float((found.by_latent().to_dense()[0] - removed).abs().max() / removed.abs().max())

    together, alone = error(1, 4), error(48, 4)
    assert alone < 0.05
    assert alone < together / 2


def test_latents_are_dealt_evenly_and_each_into_one_group():
    latents = torch.tensor([4, 9, 4, 7, 30, 2, 9, 11])
    groups = dealt(latents, 4, seed=0)
    assert groups[0] == groups[2]
    assert groups[1] == groups[6]
    of_latent = {int(latent): int(group) for latent, group in zip(latents, groups, strict=True)}
    assert sorted(torch.bincount(torch.tensor(list(of_latent.values())), minlength=4).tolist()) == [1, 1, 2, 2]


def test_ablation_equals_one_removal_after_another():
    model = tiny_model()
    sae, tokens = sae_for(model), random_tokens(model.d_vocab, rows=1)
    tokens[0, 9] = model.tokenizer.eos_token_id
    latents = [5, 0, 17, 30]
    for asked in (surprise_at(20), token_logit(3), next_token_loss):
        expected = []
        for latent in latents:
            with steered(model, sae, HOOK, [Remove(latent)]):
                expected.append(float(asked(model.logits(tokens), tokens)[0]))
        whole = float(asked(model.logits(tokens), tokens)[0])
        found = ablation_effects(sae, model, HOOK, tokens[0], latents, asked)
        torch.testing.assert_close(found, whole - torch.tensor(expected), atol=1e-5, rtol=1e-4)
    assert ablation_effects(sae, model, HOOK, tokens[0], [], token_logit(3)).numel() == 0


def test_predictions_by_hand():
    logits = torch.tensor([[[1.0, 2.0, 3.0], [0.0, 0.0, 6.0]]])
    tokens = torch.tensor([[0, 2]])
    assert float(token_logit(2)(logits, tokens)) == pytest.approx(4.0)
    assert float(token_logit(0, position=0)(logits, tokens)) == pytest.approx(-1.0)
    assert float(logit_difference(2, 1, position=0)(logits, tokens)) == pytest.approx(1.0)
    expected = -torch.log(torch.tensor(3.0).exp() / torch.tensor([1.0, 2.0, 3.0]).exp().sum())
    assert float(surprise_at(0)(logits, tokens)) == pytest.approx(float(expected), abs=1e-6)
    assert float(next_token_loss(logits, tokens)) == pytest.approx(float(expected), abs=1e-6)


def test_a_bridge_gives_the_same_and_keeps_its_hooks():
    model = user_model()
    sae, tokens = sae_for(tiny_model()), random_tokens(50, rows=1)
    before = sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.module.modules())
    found = gradient_attribution(sae, model, HOOK, tokens, token_logit(3))
    expected = gradient_attribution(sae, tiny_model(), HOOK, tokens, token_logit(3))
    torch.testing.assert_close(found.latents.to_dense(), expected.latents.to_dense(), atol=1e-4, rtol=1e-3)
    found = norm_exact_attribution(sae, model, HOOK, tokens, token_logit(3))
    expected = norm_exact_attribution(sae, tiny_model(), HOOK, tokens, token_logit(3))
    torch.testing.assert_close(found.latents.to_dense(), expected.latents.to_dense(), atol=1e-4, rtol=1e-3)
    assert sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.module.modules()) == before


def test_a_model_that_reads_its_stream_elsewhere_is_refused():
    model = load_model(ModelConfig(name=str(tiny_model_folder()), device="cpu"), offline=True)
    sae, tokens = sae_for(model), random_tokens(50, rows=1)
    block, seen = model.module.transformer.h[1], []
    block.register_forward_pre_hook(lambda _module, args: seen.append(args[0]))
    block.mlp.register_forward_hook(lambda _module, _args, out: out + seen.pop().tanh())
    with pytest.raises(ValueError, match="do not explain how the prediction depends on it"):
        norm_exact_attribution(sae, model, HOOK, tokens, token_logit(3))


def test_impossible_requests_are_refused():
    model, sae = tiny_model(), sae_for(tiny_model())
    tokens = random_tokens(50, rows=2)
    with pytest.raises(ValueError, match="one number per row"):
        gradient_attribution(sae, model, HOOK, tokens, lambda logits, _: logits.sum())
    with pytest.raises(ValueError, match="NaN or infinity"):
        gradient_attribution(sae, model, HOOK, tokens, lambda logits, _: logits[:, 0, 0] / 0)
    with pytest.raises(ValueError, match="no token"):
        gradient_attribution(sae, model, HOOK, tokens[:, :1], token_logit(3))
    with pytest.raises(ValueError, match="at least 1"):
        integrated_attribution(sae, model, HOOK, tokens, token_logit(3), n_steps=0)
    with pytest.raises(ValueError, match="n_groups=0"):
        integrated_attribution(sae, model, HOOK, tokens, token_logit(3), n_groups=0)
    neurons = "blocks.0.mlp.hook_post"
    with pytest.raises(ValueError, match="does not write into the residual stream"):
        norm_exact_attribution(sae_for(model, neurons), model, neurons, tokens, token_logit(3))
    with pytest.raises(ValueError, match="d_in=8"):
        gradient_attribution(TopKSAE(TopKSAE.Config(d_in=8, d_sae=9, k=1)), model, HOOK, tokens, token_logit(3))
    with pytest.raises(ValueError, match="from 0"):
        surprise_at(-1)
    everywhere = Where(exclude_positions=(), exclude_token_ids=())
    assert not gradient_attribution(sae, model, HOOK, tokens, token_logit(3), where=everywhere).left_out.any()
