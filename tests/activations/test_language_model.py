import copy
import json

import pytest
import torch
from tiny_models import (
    CONTEXT,
    D_MODEL,
    blocks_of,
    bridge_of,
    every_model,
    independent_place,
    loaded,
    plain,
    random_tokens,
    tiny_model,
    tiny_model_folder,
    tiny_tokenizer,
    user_model,
)

from sae_toolkit.activations.hooks import KINDS, hook_names
from sae_toolkit.activations.language_model import relative_difference
from sae_toolkit.activations.model_hash import hash_weights
from sae_toolkit.activations.model_loading import ModelConfig, load_model

MIDDLE = "blocks.0.hook_resid_mid"
LAST = "blocks.1.hook_resid_post"


def first(value):
    return value if isinstance(value, torch.Tensor) else value[0]


def read_by_torch_hooks(hf, tokens):
    """Every standard activation of a Hugging Face model."""
    seen, handles = {}, []
    for layer in range(len(blocks_of(hf))):
        for kind in KINDS:
            module, side = independent_place(hf, layer, kind)
            name = f"blocks.{layer}.{kind}"
            if side == "in":
                handles.append(
                    module.register_forward_pre_hook(lambda _m, args, name=name: seen.update({name: args[0].clone()}))
                )
            else:
                handles.append(
                    module.register_forward_hook(lambda _m, _a, out, name=name: seen.update({name: first(out).clone()}))
                )
    with torch.no_grad():
        hf(tokens)
    for handle in handles:
        handle.remove()
    return seen


def calls_of(model, run):
    """Names of the modules whose forward pass ended while `run` ran."""
    called, handles = set(), []
    for name, module in model.module.named_modules():
        handles.append(module.register_forward_hook(lambda _m, _a, _o, name=name: called.add(name)))
    run()
    for handle in handles:
        handle.remove()
    return called


@every_model
def test_residuals_equal_the_hidden_states_of_hugging_face(name):
    model, hf = loaded(name), plain(name)
    tokens = random_tokens(model.d_vocab)
    with torch.no_grad():
        states = hf(tokens, output_hidden_states=True).hidden_states
    n = model.n_layers
    residuals = [f"blocks.{layer}.{kind}" for kind in ("hook_resid_pre", "hook_resid_post") for layer in range(n)]
    found = model.capture(tokens, residuals)
    for layer in range(n):
        torch.testing.assert_close(found[f"blocks.{layer}.hook_resid_pre"], states[layer], atol=1e-5, rtol=1e-5)
    for layer in range(n - 1):
        torch.testing.assert_close(found[f"blocks.{layer}.hook_resid_post"], states[layer + 1], atol=1e-5, rtol=1e-5)
    final_norm = hf.transformer.ln_f if hf.config.model_type == "gpt2" else hf.model.norm
    with torch.no_grad():  # the last hidden state is given after the final norm
        normed = final_norm(found[f"blocks.{n - 1}.hook_resid_post"])
    torch.testing.assert_close(normed, states[-1], atol=1e-5, rtol=1e-5)


@every_model
def test_every_hook_equals_a_plain_torch_hook(name):
    model = loaded(name)
    tokens = random_tokens(model.d_vocab)
    expected = read_by_torch_hooks(plain(name), tokens)
    assert model.hooks == tuple(hook_names(model.n_layers))
    found = model.capture(tokens, model.hooks)
    assert set(found) == set(expected)
    for hook in model.hooks:
        assert relative_difference(found[hook], expected[hook]) < 1e-6, hook


@every_model
def test_every_hook_equals_the_cache_of_transformer_lens(name):
    model, bridge = loaded(name), bridge_of(name)
    tokens = random_tokens(model.d_vocab)
    with torch.no_grad():
        _, cache = bridge.run_with_cache(tokens)
    found = model.capture(tokens, model.hooks)
    for hook in model.hooks:
        assert relative_difference(found[hook], cache[hook]) < 1e-5, hook


@every_model
def test_logits_equal_hugging_face_bit_for_bit(name):
    model = loaded(name)
    tokens = random_tokens(model.d_vocab)
    with torch.no_grad():
        assert torch.equal(model.logits(tokens), plain(name)(tokens).logits)


def test_one_hook_alone_gives_what_all_together_give():
    tokens = random_tokens(tiny_model().d_vocab)
    together = tiny_model().capture(tokens, tiny_model().hooks)
    for hook in tiny_model().hooks:
        assert torch.equal(tiny_model().capture(tokens, [hook])[hook], together[hook])


def test_hooks_come_back_in_the_order_asked():
    hooks = [LAST, "blocks.0.mlp.hook_post", MIDDLE]
    assert list(tiny_model().capture(random_tokens(50), hooks)) == hooks


def test_captured_tensors_are_plain_and_own_their_memory():
    tokens = random_tokens(50, rows=2, context=5)
    for hook, activations in tiny_model().capture(tokens, tiny_model().hooks).items():
        assert activations.shape == (2, 5, tiny_model().width(hook))
        assert activations.is_contiguous()
        assert activations.untyped_storage().nbytes() == activations.nbytes
        assert not activations.requires_grad
        assert not activations.is_inference()


def test_widths():
    widths = {hook: tiny_model().width(f"blocks.1.{hook}") for hook in KINDS}
    assert widths == dict.fromkeys(KINDS, D_MODEL) | {"mlp.hook_post": 4 * D_MODEL}


def test_nothing_runs_after_the_last_hook():
    model = tiny_model()
    assert any(name.startswith("transformer.h.1.mlp") for name in calls_of(model, lambda: model.logits(model.probe())))
    called = calls_of(model, lambda: model.capture(model.probe(), [MIDDLE, "blocks.0.hook_resid_pre"]))
    assert "transformer.h.0.attn" in called
    assert not [name for name in called if "mlp" in name or "h.1" in name or "ln_2" in name or "head" in name]


def test_resid_pre_of_a_block_does_not_run_the_block():
    model = tiny_model()
    called = calls_of(model, lambda: model.capture(model.probe(), ["blocks.1.hook_resid_pre"]))
    assert "transformer.h.0" in called
    assert not [name for name in called if "h.1" in name]


def test_bfloat16_is_close_to_float32():
    model = load_model(ModelConfig(name=str(tiny_model_folder()), dtype="bfloat16", device="cpu"), offline=True)
    tokens = random_tokens(model.d_vocab)
    found, expected = (m.capture(tokens, m.hooks) for m in (model, tiny_model()))
    for hook in model.hooks:
        assert found[hook].dtype == torch.bfloat16
        assert relative_difference(found[hook], expected[hook]) < 3e-2, hook


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (torch.tensor([[0, 594]]), "0 to 594 given, but .* knows 0 to 593"),
        (torch.tensor([[-100, 5]]), "-100 to 5 given"),
        (torch.zeros(1, CONTEXT + 1, dtype=torch.long), "context_length=65 asked, .* at most 64"),
        (torch.zeros(1, 0, dtype=torch.long), "rows context"),
        (torch.zeros(0, 3, dtype=torch.long), "rows context"),
    ],
)
def test_impossible_tokens_are_refused(tokens, message):
    assert len(tiny_tokenizer()) == 594
    for run in (lambda: tiny_model().capture(tokens, [MIDDLE]), lambda: tiny_model().logits(tokens)):
        with pytest.raises(ValueError, match=message):
            run()


@pytest.mark.usefixtures("as_users_call")
def test_a_single_row_without_its_dimension_is_refused():
    with pytest.raises(ValueError, match="rows context"):
        tiny_model().logits(torch.zeros(5, dtype=torch.long))


@pytest.mark.parametrize(
    ("hooks", "message"),
    [
        (["blocks.0.hook_resid_mod"], "Did you mean 'blocks.0.hook_resid_mid'"),
        (["blocks.2.hook_resid_mid"], "from 0 to 1"),
        ([MIDDLE, MIDDLE], "more than once"),
        ([], "no hook asked"),
    ],
)
def test_impossible_hooks_are_refused(hooks, message):
    with pytest.raises(ValueError, match=message):
        tiny_model().capture(random_tokens(50), hooks)


def test_an_unknown_hook_cannot_be_replaced():
    with pytest.raises(ValueError, match="Did you mean"):
        tiny_model().logits(random_tokens(50), {"blocks.0.hook_resid_mud": lambda x: x})


def test_a_place_that_the_forward_pass_skips_is_an_error():
    model = copy.copy(tiny_model())
    model.taps = model.taps | {MIDDLE: model.taps[MIDDLE]._replace(module=torch.nn.Identity())}
    with pytest.raises(ValueError, match=r"\['blocks.0.hook_resid_mid'\] asked, but .* without passing"):
        model.capture(random_tokens(50), [MIDDLE, LAST])


def test_the_probe_is_64_fixed_ids_in_rows_the_model_can_read():
    assert tiny_model().probe().shape == (1, 64)
    assert torch.equal(tiny_model().probe(), tiny_model().probe())
    short = copy.copy(tiny_model())
    short.max_context = 20
    assert short.probe().shape == (4, 16)
    assert torch.equal(short.probe().flatten(), tiny_model().probe().flatten())


def test_description_is_json_and_names_the_weights():
    described = json.loads(json.dumps(tiny_model().describe()))
    assert described["name"] == str(tiny_model_folder())
    assert described["architecture"] == "GPT2LMHeadModel"
    assert (described["n_layers"], described["d_vocab"], described["max_context"]) == (2, 594, CONTEXT)
    assert described["dtype"] == "float32"
    assert described["weights_sha256"] == tiny_model().weights_sha256
    assert json.loads(json.dumps(user_model().describe()))["loaded_by"] == "TransformerBridge"


def test_the_hash_depends_on_names_shapes_types_and_values():
    ones = torch.ones(2, 3)
    states = [
        {"a": ones},
        {"b": ones},
        {"a": ones.view(3, 2)},
        {"a": ones.to(torch.bfloat16)},
        {"a": 2 * ones},
        {"a": ones, "b": ones.clone()},
        {},
    ]
    assert len({hash_weights(state) for state in states}) == len(states)


def test_the_hash_ignores_order_strides_and_sharing():
    a, b = torch.arange(6.0).view(2, 3), torch.tensor(1.5)
    assert hash_weights({"a": a, "b": b}) == hash_weights({"b": b.clone(), "a": a.T.contiguous().T})
    assert hash_weights({"a": a, "tied": a}) == hash_weights({"a": a})


def test_the_hash_of_a_model_is_that_of_its_file():
    assert tiny_model().weights_sha256 == hash_weights(plain("tiny").state_dict())
