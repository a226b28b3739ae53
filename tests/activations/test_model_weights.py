"""Weights read from GPT-2 and Llama kinds against the models' own hooks."""

import copy

import pytest
import torch
from tiny_models import every_model, loaded, plain, random_tokens, tiny_tokenizer, user_model
from transformers import LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM

from sae_toolkit.activations import ModelConfig, load_model, read_circuit_weights
from sae_toolkit.activations.language_model import relative_difference
from sae_toolkit.activations.model_loading import quiet
from sae_toolkit.activations.model_weights import check_against


@every_model
def test_attention_and_logits_are_those_of_the_hooks(name):
    model = loaded(name)
    weights = read_circuit_weights(model)
    tokens = random_tokens(model.d_vocab, rows=2, context=24, seed=3)
    hooks = [f"blocks.{i}.{kind}" for i in range(model.n_layers) for kind in ("hook_resid_pre", "hook_attn_out")]
    last = f"blocks.{model.n_layers - 1}.hook_resid_post"
    seen = model.capture(tokens, [*hooks, last])
    assert relative_difference(weights.embed(tokens), seen[hooks[0]]) < 1e-6
    for layer in range(model.n_layers):
        found = weights.attn_out(layer, seen[f"blocks.{layer}.hook_resid_pre"])
        assert relative_difference(found, seen[f"blocks.{layer}.hook_attn_out"]) < 1e-5
    assert relative_difference(weights.unembed(seen[last]), model.logits(tokens)) < 1e-5


def test_a_bridge_of_the_users_own_is_read_as_well():
    weights, expected = read_circuit_weights(user_model()), read_circuit_weights(loaded("tiny"))
    for name in ("W_E", "W_Q", "b_K", "W_V", "W_O", "W_U", "b_U"):
        torch.testing.assert_close(vars(weights)[name], vars(expected)[name])


def test_the_pattern_is_the_one_the_model_attends_with():

    model, hf = loaded("tiny"), copy.deepcopy(plain("tiny"))
    hf.set_attn_implementation("eager")
    tokens = random_tokens(model.d_vocab, rows=2, context=12, seed=1)
    with torch.no_grad():
        attentions = hf(tokens, output_attentions=True).attentions
    weights = read_circuit_weights(model)
    for layer in range(model.n_layers):
        hook = f"blocks.{layer}.hook_resid_pre"
        found = weights.pattern(layer, model.capture(tokens, [hook])[hook])
        torch.testing.assert_close(found, attentions[layer], atol=1e-5, rtol=1e-4)


def test_weights_that_do_not_explain_the_model_are_refused():
    model = loaded("tiny")
    weights = read_circuit_weights(model)
    wrong = type(weights)(**{**vars(weights), "W_V": 2 * weights.W_V})
    with pytest.raises(ValueError, match=r"attn_out wrong by .* \(relative\)"):
        check_against(model, wrong)


def saved(folder, model_class, config):
    """A random model of a small architecture, in a folder with the tiny tokenizer."""
    with torch.random.fork_rng(devices=[]), quiet():
        torch.default_generator.manual_seed(0)
        model = model_class(config)
        for name, parameter in model.named_parameters():
            if name.endswith(("bias", "norm.weight", "layernorm.weight")):
                parameter.data += 0.3 * torch.randn(parameter.shape)
        model.save_pretrained(folder)
        tiny_tokenizer().save_pretrained(folder)
    return load_model(ModelConfig(name=str(folder), device="cpu"), offline=True)


def sizes(**more):
    return {
        "vocab_size": len(tiny_tokenizer()),
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 64,
        **more,
    }


def test_grouped_heads_biases_and_gains_of_a_llama_are_read(tmp_path):
    model = saved(tmp_path, LlamaForCausalLM, LlamaConfig(**sizes(attention_bias=True)))
    weights = read_circuit_weights(model)
    assert weights.W_K.shape == (2, 4, 32, 8)
    assert torch.equal(weights.W_K[:, 0], weights.W_K[:, 1])
    assert not torch.equal(weights.W_Q[:, 0], weights.W_Q[:, 1])
    assert weights.b_K.abs().max() > 0
    seen = model.capture(
        random_tokens(model.d_vocab, rows=1, context=30), ["blocks.1.hook_resid_pre", "blocks.1.hook_attn_out"]
    )
    before, added = seen.values()
    assert relative_difference(weights.attn_out(1, before), added) < 1e-5


def test_attention_in_windows_is_refused(tmp_path):
    model = saved(tmp_path, MistralForCausalLM, MistralConfig(**sizes(sliding_window=4)))
    with pytest.raises(ValueError, match="do not explain its attention"):
        read_circuit_weights(model)
