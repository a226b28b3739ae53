import pytest
import torch
from tiny_models import blocks_of, every_model, loaded, random_tokens, tiny_model, user_model

from sae_toolkit import BatchTopKSAE, ReluSAE, TopKSAE
from sae_toolkit.activations.generation import generate
from sae_toolkit.activations.hooks import KINDS
from sae_toolkit.analysis import Add, Clamp, Remove, Scale, Where, steered
from sae_toolkit.metrics.controls import FixedDictionary
from sae_toolkit.saes.coders import LinearTopK

LAST = "blocks.1.hook_resid_post"
EVERYWHERE = Where(exclude_positions=(), exclude_token_ids=())


def sae_for(model, hook=LAST, variant=TopKSAE, d_sae=48):
    """An SAE whose normaliser, biases and threshold are those of the model's activations."""
    x = model.capture(random_tokens(model.d_vocab, seed=9), [hook])[hook].flatten(0, 1)
    few = {"k": 6} if variant is not ReluSAE else {}
    sae = variant(variant.Config(d_in=x.shape[1], d_sae=d_sae, normaliser="per_dimension", **few))
    sae.normaliser.fit_(x)
    with torch.no_grad():
        sae.b_dec.add_(0.1)
        sae.b_enc.add_(0.05)
    sae.calibrate_([x])
    return sae.eval()


def n_hooks(module):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in module.modules())


def captured(model, sae, tokens, edits, where=None, hook=LAST):
    with steered(model, sae, hook, edits, where=where):
        return model.capture(tokens, [hook])[hook]


@every_model
@pytest.mark.parametrize("kind", KINDS)
def test_edits_that_change_no_latent_change_no_bit(name, kind):
    model = loaded(name)
    hook = f"blocks.1.{kind}"
    sae, tokens = sae_for(model, hook), random_tokens(model.d_vocab)
    clean = model.logits(tokens)
    nothing = [Add(0, 0.0), Scale(1, 1.0), Add(2, 3.0), Add(2, -3.0), *[Scale(i, 1.0) for i in range(3, 48)]]
    for edits in ([], nothing[:2], nothing[4:]):
        with steered(model, sae, hook, edits, where=EVERYWHERE):
            assert torch.equal(model.logits(tokens), clean)


@pytest.mark.parametrize("variant", [TopKSAE, ReluSAE, BatchTopKSAE])
@pytest.mark.parametrize("name", ["tiny", "stories260K"])
def test_edits_equal_a_loop_over_tokens(name, variant):
    """x' = decode(z') + (x - decode(z)), one token after another."""
    model = loaded(name)
    sae, tokens = sae_for(model, variant=variant), random_tokens(model.d_vocab)
    x = model.capture(tokens, [LAST])[LAST]
    busy = sae.encode(x).mean((0, 1)).argsort(descending=True)[:3].tolist()
    edits = [Add(busy[0], 2.0), Scale(busy[1], -0.5), Clamp(busy[2], 1.5), Scale(busy[0], 3.0), Remove(40)]
    expected = x.clone()
    for row in range(tokens.shape[0]):
        for position in range(1, tokens.shape[1]):
            z = sae.encode(x[row, position][None])[0]
            new = z.clone()
            new[busy[0]] = (z[busy[0]] + 2.0) * 3.0
            new[busy[1]] = -0.5 * z[busy[1]]
            new[busy[2]] = 1.5
            new[40] = 0.0
            expected[row, position] += sae.decode(new) - sae.decode(z)
    found = captured(model, sae, tokens, edits, Where(exclude_token_ids=()))
    torch.testing.assert_close(found, expected.detach(), atol=1e-5, rtol=1e-4)
    assert not torch.allclose(found, x, atol=1e-3)


def test_untouched_tokens_keep_every_bit():
    model = tiny_model()
    sae, tokens = sae_for(model), random_tokens(model.d_vocab)
    end = model.tokenizer.eos_token_id
    tokens[1, 7] = end
    x = model.capture(tokens, [LAST])[LAST]
    found = captured(model, sae, tokens, [Add(5, 10.0)])
    touched = torch.ones_like(tokens, dtype=torch.bool)
    touched[:, 0] = False
    touched[1, 7] = False
    assert int((tokens == end).sum()) == 1
    assert torch.equal((found != x).any(-1), touched)
    at = captured(model, sae, tokens, [Add(5, 10.0)], Where(positions=(3, 7)))
    wanted = torch.zeros_like(touched)
    wanted[:, 3] = wanted[:, 7] = True
    wanted[1, 7] = False
    assert torch.equal((at != x).any(-1), wanted)
    fires = sae.encode(x)[..., 5] != 0
    removed = captured(model, sae, tokens, [Remove(5)], EVERYWHERE)
    assert torch.equal((removed != x).any(-1), fires)
    assert 0 < int(fires.sum()) < fires.numel()


def test_calls_of_the_users_own_are_steered():
    model = tiny_model()
    sae, tokens = sae_for(model), random_tokens(model.d_vocab)
    with steered(model, sae, LAST, [Add(5, 10.0)]), torch.no_grad():
        ours, theirs = model.logits(tokens), model.module(tokens).logits
    assert torch.equal(ours, theirs)
    assert not torch.allclose(ours, model.logits(tokens), atol=0.1)


def test_generation_with_and_without_a_key_value_cache():
    model = tiny_model()
    sae, tokens = sae_for(model), random_tokens(model.d_vocab, rows=2, context=5)
    for where in (None, Where(positions=tuple(range(6, 20)))):
        with steered(model, sae, LAST, [Add(5, 30.0)], where=where):
            ours = generate(model, tokens, 8)
            theirs = model.module.generate(
                tokens, attention_mask=torch.ones_like(tokens), do_sample=False, max_new_tokens=8, eos_token_id=None
            )
        assert torch.equal(ours, theirs)
        assert not torch.equal(ours, generate(model, tokens, 8))


def test_other_functions_at_the_same_place_see_the_edit():
    model = tiny_model()
    sae, tokens, seen = sae_for(model), random_tokens(model.d_vocab), []
    x = model.capture(tokens, [LAST])[LAST]
    with steered(model, sae, LAST, [Add(5, 10.0)], where=EVERYWHERE):
        model.logits(tokens, {LAST: lambda given: (seen.append(given), given)[1]})
    torch.testing.assert_close(seen[0], x + 10 * sae.decoder_directions()[5].detach(), atol=1e-5, rtol=1e-4)


def test_contexts_nest():
    model = tiny_model()
    sae, tokens = sae_for(model), random_tokens(model.d_vocab)
    directions = sae.decoder_directions().detach()
    with steered(model, sae, LAST, [Add(5, 10.0)], where=EVERYWHERE):
        once = model.capture(tokens, [LAST])[LAST]
        with steered(model, sae, LAST, [Add(7, 3.0)], where=EVERYWHERE):
            twice = model.capture(tokens, [LAST])[LAST]
        assert torch.equal(model.capture(tokens, [LAST])[LAST], once)
    torch.testing.assert_close(twice, once + 3 * directions[7], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("where", ["plain", "bridge"])
@pytest.mark.parametrize("hook", [LAST, "blocks.0.hook_resid_mid"])
def test_hooks_are_those_of_before_also_after_errors(where, hook):
    model = user_model() if where == "bridge" else tiny_model()
    sae, tokens = sae_for(tiny_model(), hook), random_tokens(50)
    model.width(hook)  # measured once, by a call
    clean, before, calls = model.logits(tokens), n_hooks(model.module), []
    place = blocks_of(model.module)[1] if where == "plain" else model.module.blocks[1]
    own = place.register_forward_hook(lambda *_: calls.append(1))

    def fails():
        with steered(model, sae, hook, [Add(5, 10.0)]):
            assert not torch.equal(model.logits(tokens), clean)
            raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        fails()
    assert n_hooks(model.module) == before + 1
    with steered(model, sae, hook, [Add(5, 10.0)]):
        with pytest.raises(ValueError, match="reads at most"):
            model.logits(torch.zeros(1, 65, dtype=torch.long))
        steered_logits = model.logits(tokens)
    assert torch.equal(model.logits(tokens), clean)
    assert not torch.equal(steered_logits, clean)
    assert len(calls) == 3
    own.remove()
    assert n_hooks(model.module) == before


def test_a_batch_topk_sae_reads_with_its_threshold_and_stays_in_its_mode():
    """In training mode its latents would depend on the batch: one row alone would be edited differently."""
    model = tiny_model()
    sae, tokens = sae_for(model, variant=BatchTopKSAE).train(), random_tokens(model.d_vocab)
    together = captured(model, sae, tokens, [Scale(i, 0.0) for i in range(48)])
    alone = captured(model, sae, tokens[:1], [Scale(i, 0.0) for i in range(48)])
    torch.testing.assert_close(together[:1], alone, atol=1e-5, rtol=1e-5)
    assert sae.training
    fresh = BatchTopKSAE(BatchTopKSAE.Config(d_in=32, d_sae=48, k=2))
    with pytest.raises(ValueError, match="none has been calibrated"):
        captured(model, fresh, tokens, [Remove(0)])


def test_any_dictionary_steers():
    model = tiny_model()
    rows = torch.eye(32)
    sae, tokens = FixedDictionary(rows, coder=LinearTopK(4)), random_tokens(model.d_vocab)
    x = model.capture(tokens, [LAST])[LAST]
    found = captured(model, sae, tokens, [Add(3, 2.0)], EVERYWHERE)
    torch.testing.assert_close(found, x + 2 * rows[3], atol=1e-5, rtol=1e-5)


def test_gradients_flow_through_an_edit():
    model = tiny_model()
    sae, tokens = sae_for(model), random_tokens(model.d_vocab, rows=1)
    with steered(model, sae, LAST, [Scale(5, 2.0)]):
        leaf = torch.zeros(1, requires_grad=True)
        with model.replacing({"blocks.0.hook_resid_post": lambda x: x + leaf}):
            (slope,) = torch.autograd.grad(model.forward(tokens)[0, -1, 3], leaf)
    assert float(slope) != 0


def test_impossible_edits_are_refused():
    model, sae = tiny_model(), sae_for(tiny_model())
    for edit in (Remove(48), Add(-1, 1.0)):
        with pytest.raises(ValueError, match="latents 0 to 47"), steered(model, sae, LAST, [edit]):
            pass
    with pytest.raises(ValueError, match="must be finite"), steered(model, sae, LAST, [Clamp(0, float("nan"))]):
        pass
    narrow = TopKSAE(TopKSAE.Config(d_in=16, d_sae=8, k=2))
    with pytest.raises(ValueError, match="d_in=16"), steered(model, narrow, LAST, [Remove(0)]):
        pass
    with pytest.raises(ValueError, match="Did you mean"), steered(model, sae, "blocks.1.resid_post", [Remove(0)]):
        pass
    with pytest.raises(ValueError, match=r"\[0\] are asked for and excluded"):
        Where(positions=(0, 1))
