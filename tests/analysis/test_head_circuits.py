import pytest
import torch
from tiny_models import loaded, random_tokens

from sae_toolkit import ReluSAE
from sae_toolkit.activations import AttentionOnly, read_circuit_weights
from sae_toolkit.activations.circuit_weights import Rotary
from sae_toolkit.analysis import (
    key_preference,
    latent_logits,
    latent_ov,
    latent_qk,
    ov_circuit,
    qk_circuit,
    token_ov,
    token_qk,
)

MODEL = AttentionOnly(AttentionOnly.Config(d_vocab=9, n_ctx=6, d_model=8, n_layers=2, n_heads=2), seed=2)
WEIGHTS = MODEL.weights()


def test_token_circuits_are_the_products_of_the_matrices():
    W_E, W_U = MODEL.W_E.detach(), MODEL.W_U.detach()
    ov = [W_E @ MODEL.W_V[1, h].detach() @ MODEL.W_O[1, h].detach() @ W_U for h in range(2)]
    torch.testing.assert_close(token_ov(WEIGHTS, 1, (1,)).dense(), ov[1])
    torch.testing.assert_close(token_ov(WEIGHTS, 1, (0, 1)).dense(), ov[0] + ov[1])
    qk = W_E @ MODEL.W_Q[0, 1].detach() @ MODEL.W_K[0, 1].detach().T @ W_E.T / 2  # d_head is 4
    torch.testing.assert_close(token_qk(WEIGHTS, 0, 1).dense(), qk)
    with pytest.raises(ValueError, match="layer 2"):
        ov_circuit(WEIGHTS, 2, (0,))
    with pytest.raises(ValueError, match="at least one head"):
        ov_circuit(WEIGHTS, 0, ())


def test_latents_that_are_tokens_have_the_circuits_of_tokens():
    sae = ReluSAE(ReluSAE.Config(d_in=8, d_sae=9, normaliser="none"))
    with torch.no_grad():
        sae.W_dec.copy_(MODEL.W_E)
    torch.testing.assert_close(latent_ov(sae, WEIGHTS, 0, (1,)).dense(), token_ov(WEIGHTS, 0, (1,)).dense())
    torch.testing.assert_close(latent_qk(sae, sae, WEIGHTS, 0, 0).dense(), token_qk(WEIGHTS, 0, 0).dense())
    torch.testing.assert_close(latent_logits(sae, WEIGHTS).dense(), (MODEL.W_E @ MODEL.W_U).detach())


@pytest.mark.parametrize("name", ["tiny", "stories260K"])
def test_scores_of_a_real_pattern_are_its_circuits(name):
    # GPT-2: biases add what the query bias prefers; Llama: positions turn. What depends on the query alone cancels.
    model = loaded(name)
    weights = read_circuit_weights(model)
    tokens = random_tokens(model.d_vocab, rows=1, context=8, seed=4)
    hook = "blocks.1.hook_resid_pre"
    residual = model.capture(tokens, [hook])[hook]
    read = (residual / weights.scale(residual))[0]
    for head in (0, weights.n_heads - 1):
        scores = torch.zeros(8)
        for key in range(8):
            circuit = qk_circuit(weights, 1, head, distance=7 - key if weights.rotary else 0)
            scores[key] = read[7] @ circuit.left @ circuit.right @ read[key]
        if weights.rotary is None:
            scores += key_preference(weights, 1, head, read)
        torch.testing.assert_close(scores.softmax(0), weights.pattern(1, residual)[0, head, 7], atol=1e-5, rtol=1e-4)


def test_distances_outside_the_context_are_refused():
    angles = torch.zeros(6, 4)
    turning = type(WEIGHTS)(**{**vars(WEIGHTS), "rotary": Rotary(angles.cos(), angles.sin())})
    with pytest.raises(ValueError, match="positions are 0 to 5"):
        qk_circuit(turning, 0, 0, distance=6)
