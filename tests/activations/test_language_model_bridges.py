import pytest
import torch
from architectures import OTHERS, saved_model
from tiny_models import (
    bridge_of,
    every_model,
    fresh_bridge,
    loaded,
    random_tokens,
    tiny_model,
    tiny_model_folder,
    tiny_tokenizer,
    user_model,
)

from sae_toolkit.activations.hooks import KINDS
from sae_toolkit.activations.language_model import LanguageModel, relative_difference

MIDDLE = "blocks.0.hook_resid_mid"
LAST = "blocks.1.hook_resid_post"


@pytest.mark.parametrize("kind", OTHERS)
def test_other_architectures_equal_transformer_lens(kind, tmp_path):
    model = saved_model(OTHERS[kind], tmp_path)
    tokens = random_tokens(model.d_vocab)
    with torch.no_grad():
        _, cache = fresh_bridge(tmp_path).run_with_cache(tokens)
    found = model.capture(tokens, model.hooks)
    assert len(found) >= 8
    clean = model.logits(tokens)
    for hook, activations in found.items():
        assert activations.shape[:2] == tokens.shape
        assert relative_difference(activations, cache[hook].reshape(activations.shape)) < 1e-5, hook
        if not (kind == "scaled" and "resid_mid" in hook):
            assert torch.equal(model.logits(tokens, {hook: lambda x: x}), clean), hook


def test_where_attention_and_mlp_are_parallel_there_is_no_resid_mid(tmp_path):
    model = saved_model(OTHERS["parallel"], tmp_path)
    with pytest.raises(ValueError, match="no such place"):
        model.capture(model.probe(), [MIDDLE])


def test_a_mixture_of_experts_has_no_one_layer_of_neurons(tmp_path):
    model = saved_model(OTHERS["experts"], tmp_path)
    with pytest.raises(ValueError, match="no such place"):
        model.capture(model.probe(), ["blocks.0.mlp.hook_post"])


def test_resid_mid_is_not_written_where_it_is_no_plain_sum(tmp_path):
    model = saved_model(OTHERS["scaled"], tmp_path)
    assert model.capture(model.probe(), [MIDDLE])[MIDDLE].isfinite().all()
    with pytest.raises(ValueError, match="is not resid_pre \\+ attn_out"):
        model.logits(model.probe(), {MIDDLE: lambda x: x})


def test_what_no_module_computes_cannot_be_read(tmp_path):
    """Granite adds 0.3 times attention's output; that product is neither input nor output of a module."""
    model, hook = saved_model(OTHERS["scaled"], tmp_path), "blocks.0.hook_attn_out"
    assert hook not in model.hooks
    own = LanguageModel.from_bridge(fresh_bridge(tmp_path), tiny_tokenizer(), name="mine")
    with pytest.raises(ValueError, match="mine ran without passing there"):
        own.capture(own.probe(), [hook])


@every_model
def test_a_users_bridge_gives_the_same_activations(name):
    model = loaded(name)
    own = LanguageModel.from_bridge(bridge_of(name), model.tokenizer, name="mine")
    tokens = random_tokens(model.d_vocab)
    assert own.hooks == model.hooks
    assert (own.d_vocab, own.n_layers, own.max_context) == (model.d_vocab, model.n_layers, model.max_context)
    found, expected = own.capture(tokens, own.hooks), model.capture(tokens, model.hooks)
    for hook in model.hooks:
        assert relative_difference(found[hook], expected[hook]) < 1e-5, hook


@pytest.mark.parametrize("kind", KINDS)
def test_a_users_bridge_is_written_to_alike(kind):
    own, tokens = user_model(bridge_of("tiny")), random_tokens(594)
    replace = {f"blocks.0.{kind}": lambda x: 0.5 * x + torch.linspace(-1, 1, x.shape[-1])}
    torch.testing.assert_close(own.logits(tokens, replace), tiny_model().logits(tokens, replace), atol=1e-5, rtol=1e-5)
    assert torch.equal(own.logits(tokens, {f"blocks.0.{kind}": lambda x: x}), own.logits(tokens))


def test_a_users_hooks_stay_and_act():
    bridge = fresh_bridge(tiny_model_folder())
    calls = []

    def double(activations, hook):
        calls.append(hook.name)
        return 2 * activations

    bridge.add_hook("blocks.0.hook_resid_pre", double)
    model, tokens = user_model(bridge), random_tokens(594)
    calls.clear()
    hook = "blocks.0.hook_resid_pre"
    found = model.capture(tokens, [hook])[hook]
    torch.testing.assert_close(found, 2 * tiny_model().capture(tokens, [hook])[hook])
    model.logits(tokens, {hook: torch.zeros_like})
    with torch.no_grad():
        bridge(tokens)
    assert calls == ["blocks.0.hook_in"] * 3


def test_a_bridge_in_compatibility_mode_is_refused():
    bridge = fresh_bridge(tiny_model_folder())
    bridge.enable_compatibility_mode(disable_warnings=True)
    with pytest.raises(ValueError, match=r"compatibility mode.*without enable_compatibility_mode"):
        user_model(bridge)


def test_compatibility_mode_switched_on_later_is_refused_too():
    bridge = fresh_bridge(tiny_model_folder())
    model = user_model(bridge)
    bridge.enable_compatibility_mode(disable_warnings=True)
    with pytest.raises(ValueError, match="compatibility mode"):
        model.capture(model.probe(), [LAST])


def test_a_bridge_with_processed_weights_is_refused():
    bridge = fresh_bridge(tiny_model_folder())
    bridge.process_weights()
    with pytest.raises(ValueError, match="are centred"):
        user_model(bridge)


def test_a_bridge_in_training_mode_is_refused():
    bridge = fresh_bridge(tiny_model_folder())
    bridge.train()
    with pytest.raises(ValueError, match=r"eval\(\)"):
        user_model(bridge)


def test_a_bridge_in_float64_is_refused():
    bridge = fresh_bridge(tiny_model_folder())
    bridge.original_model.double()
    with pytest.raises(ValueError, match=r"torch.float64. Load it in float32 or bfloat16"):
        user_model(bridge)
