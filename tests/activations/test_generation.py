import pytest
import torch
from tiny_models import every_model, loaded, plain, random_tokens, tiny_model

from sae_toolkit.activations.generation import generate, most_likely, sampled


@every_model
def test_greedy_equals_hugging_face(name):
    model = loaded(name)
    tokens = random_tokens(model.d_vocab, rows=2, context=5)
    expected = plain(name).generate(
        tokens, attention_mask=torch.ones_like(tokens), do_sample=False, max_new_tokens=6, min_new_tokens=6,
        pad_token_id=0, repetition_penalty=1.0, eos_token_id=None,
    )  # fmt: skip
    assert torch.equal(generate(model, tokens, 6), expected)


def test_the_prompt_stays_and_the_most_likely_token_follows():
    tokens = random_tokens(50, rows=2, context=4)
    found = generate(tiny_model(), tokens, 1)
    assert torch.equal(found[:, :4], tokens)
    assert torch.equal(found[:, 4], tiny_model().logits(tokens)[:, -1].argmax(-1))


def test_draws_follow_the_softmax():
    logits = torch.tensor([[0.0, 1.0, 2.0, -torch.inf]]).expand(20_000, -1)
    for temperature in (1.0, 0.5):
        drawn = sampled(seed=3, temperature=temperature)(logits)
        shares = torch.bincount(drawn, minlength=4) / len(drawn)
        assert torch.allclose(shares, (logits[0] / temperature).softmax(0), atol=0.012)  # 3 standard errors
        assert shares[3] == 0


def test_the_same_seed_gives_the_same_text_and_another_does_not():
    tokens = random_tokens(50, rows=2, context=4)
    texts = [generate(tiny_model(), tokens, 10, choose=sampled(seed=seed)) for seed in (0, 0, 1)]
    assert torch.equal(texts[0], texts[1])
    assert not torch.equal(texts[0], texts[2])


def test_impossible_requests_are_refused():
    tokens = random_tokens(50, rows=1, context=60)
    for n_new in (0, 5):
        with pytest.raises(ValueError, match="reads 1 to 64 tokens"):
            generate(tiny_model(), tokens, n_new)
    with pytest.raises(ValueError, match="temperature=0"):
        sampled(seed=0, temperature=0.0)
    assert torch.equal(most_likely(torch.tensor([[1.0, 3.0, 3.0]])), torch.tensor([1]))
