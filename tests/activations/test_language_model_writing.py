import pytest
import torch
from tiny_models import (
    blocks_of,
    every_model,
    independent_place,
    loaded,
    plain,
    random_tokens,
    tiny_model,
    tiny_model_folder,
    user_model,
)

from sae_toolkit.activations.hooks import KINDS
from sae_toolkit.activations.model_loading import ModelConfig, load_model

MIDDLE = "blocks.0.hook_resid_mid"
LAST = "blocks.1.hook_resid_post"


def n_hooks(module):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in module.modules())


@every_model
@pytest.mark.parametrize("kind", KINDS)
def test_replacing_by_the_same_changes_no_bit(name, kind):
    model = loaded(name)
    tokens = random_tokens(model.d_vocab)
    clean = model.logits(tokens)
    for layer in (0, model.n_layers - 1):
        assert torch.equal(model.logits(tokens, {f"blocks.{layer}.{kind}": lambda x: x + 0}), clean)


def push(x):
    """Some change that depends on the value, the position and the column."""
    return 0.5 * x + torch.linspace(-1, 1, x.shape[-1]) + torch.arange(x.shape[1])[:, None] / 10


@every_model
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "hook_resid_mid"])
def test_replacing_equals_a_plain_torch_hook(name, kind):
    model, hf = loaded(name), plain(name)
    tokens = random_tokens(model.d_vocab)
    module, side = independent_place(hf, 1, kind)
    if side == "in":
        handle = module.register_forward_pre_hook(lambda _m, args: (push(args[0]), *args[1:]))
    else:
        handle = module.register_forward_hook(
            lambda _m, _a, out: push(out) if isinstance(out, torch.Tensor) else (push(out[0]), *out[1:])
        )
    with torch.no_grad():
        expected = hf(tokens).logits
    handle.remove()
    found = model.logits(tokens, {f"blocks.1.{kind}": push})
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(found, model.logits(tokens), atol=1e-2)


def logits_with_new_mid(hf, tokens, layer, function):
    """By hand: the block's output becomes new + mlp(norm(new)), so that the skip connection carries the new one."""
    block, seen = blocks_of(hf)[layer], []
    norm = block.ln_2 if hf.config.model_type == "gpt2" else block.post_attention_layernorm
    reader = norm.register_forward_pre_hook(lambda _m, args: seen.append(args[0]))

    def rebuild(_module, _args, _output):
        new = function(seen[0])
        return new + block.mlp(norm(new))

    writer = block.register_forward_hook(rebuild)
    with torch.no_grad():
        logits = hf(tokens).logits
    reader.remove()
    writer.remove()
    return logits


@every_model
@pytest.mark.parametrize("function", [push, torch.zeros_like], ids=["push", "zero"])
def test_what_is_written_at_resid_mid_reaches_the_skip_connection(name, function):
    model = loaded(name)
    tokens = random_tokens(model.d_vocab)
    for layer in (0, model.n_layers - 1):
        expected = logits_with_new_mid(plain(name), tokens, layer, function)
        found = model.logits(tokens, {f"blocks.{layer}.hook_resid_mid": function})
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_a_replacement_sees_what_capture_gives():
    tokens, seen = random_tokens(tiny_model().d_vocab), {}
    for hook in tiny_model().hooks:
        tiny_model().logits(tokens, {hook: lambda x, hook=hook: seen.setdefault(hook, x)})
    captured = tiny_model().capture(tokens, tiny_model().hooks)
    for hook in tiny_model().hooks:
        assert torch.equal(seen[hook], captured[hook]), hook


@pytest.mark.parametrize("order", [1, -1])
def test_several_replacements_act_in_the_order_of_the_computation(order):
    """resid_mid is computed from the new resid_pre and the new attn_out, in whatever order they are given."""
    tokens, seen = random_tokens(tiny_model().d_vocab), []
    replace = {
        "blocks.1.hook_resid_pre": lambda x: torch.full_like(x, 2.0),
        "blocks.1.hook_attn_out": lambda x: torch.full_like(x, 3.0),
        "blocks.1.hook_resid_mid": lambda x: (seen.append(x), torch.full_like(x, 7.0))[1],
        "blocks.1.hook_mlp_out": lambda x: torch.full_like(x, 4.0),
        "blocks.1.hook_resid_post": lambda x: (seen.append(x), x)[1],
    }
    tiny_model().logits(tokens, dict(list(replace.items())[::order]))
    assert torch.equal(seen[0], torch.full_like(seen[0], 5.0))
    assert torch.equal(seen[1], torch.full_like(seen[1], 11.0))


def test_functions_compute_in_float32_also_in_a_bfloat16_model():
    model = load_model(ModelConfig(name=str(tiny_model_folder()), dtype="bfloat16", device="cpu"), offline=True)
    tokens, seen = random_tokens(model.d_vocab), []
    logits = model.logits(tokens, {MIDDLE: lambda x: (seen.append(x.dtype), x)[1]})
    assert seen == [torch.float32]
    assert logits.dtype == torch.bfloat16
    assert torch.equal(logits, model.logits(tokens))


@pytest.mark.parametrize("hook", [MIDDLE, LAST])
def test_a_replacement_of_another_shape_is_refused(hook):
    with pytest.raises(ValueError, match=rf"{hook} returned \(3, 40\)"):
        tiny_model().logits(random_tokens(50), {hook: lambda x: x[..., 0]})


@pytest.mark.parametrize("where", ["plain", "bridge"])
def test_no_hook_is_left_behind(where):
    model = user_model() if where == "bridge" else tiny_model()
    tokens = random_tokens(50)
    model.logits(tokens)
    before = n_hooks(model.module)

    def fails(x):
        raise RuntimeError("inside")

    model.capture(tokens, model.hooks)
    model.logits(tokens, dict.fromkeys(model.hooks, lambda x: 2 * x))
    for hook in (MIDDLE, LAST):
        with pytest.raises(RuntimeError, match="inside"):
            model.logits(tokens, {LAST: fails, hook: fails})
    assert n_hooks(model.module) == before


def test_after_an_early_end_the_model_still_computes_all():
    for model in (tiny_model(), user_model()):
        tokens = random_tokens(50)
        before = model.logits(tokens)
        model.capture(tokens, [MIDDLE])
        assert torch.equal(model.logits(tokens), before)
