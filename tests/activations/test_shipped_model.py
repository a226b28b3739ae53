"""The model that ships is the one its card speaks of, and as good."""

import json

import pytest
import torch
from torch.nn import functional as F

from sae_toolkit.activations import (
    KnownLatentsSource,
    ModelConfig,
    TransformerSource,
    load_known_latents,
    load_model,
    read_language,
)
from sae_toolkit.activations.known_latents import shipped_model
from sae_toolkit.ground_truth import draw_documents, read_documents


@pytest.fixture(scope="module")
def model():
    return load_model(ModelConfig(name=str(shipped_model()), device="cpu"), offline=True)


def test_its_weights_are_those_of_the_card(model):
    facts = json.loads((shipped_model() / "known_language.json").read_text())
    card = (shipped_model() / "README.md").read_text()
    assert model.weights_sha256 == facts["weights_sha256"]
    assert facts["weights_sha256"] in card
    assert f"{facts['loss']:.4f}" in card
    assert f"{facts['entropy']:.4f}" in card
    assert sum(path.stat().st_size for path in shipped_model().iterdir()) < 1_000_000


def test_it_is_within_the_stated_distance_of_a_perfect_reader_on_documents_it_never_saw(model):
    language = read_language(shipped_model())
    tokens = draw_documents(language, 1024, seed=12345).tokens
    with torch.no_grad():
        logits = torch.cat([model.logits(part) for part in torch.split(tokens, 256)])
    loss = float(F.cross_entropy(logits[:, :-1].flatten(0, 1).double(), tokens[:, 1:].flatten()))
    gap = loss - float(read_documents(language, tokens).nll.double().mean())
    assert 0 < gap < 0.02


def test_after_a_thing_it_says_the_value(model):
    language = read_language(shipped_model())
    tokens = draw_documents(language, 256, seed=6).tokens
    reading = read_documents(language, tokens)
    with torch.no_grad():
        said = model.logits(tokens).argmax(-1)[:, :-1]
    must = reading.value[:, :-1]
    promised = (must >= 0) & (must < language.lexicon.size["value"])
    right = said[promised] == language.lexicon.first["value"] + must[promised]
    assert promised.sum() > 1000
    assert right.double().mean() > 0.97


def test_name_none_is_the_shipped_model():
    source = load_known_latents(
        ModelConfig(name=None, device="cpu"),
        TransformerSource.Config(hooks=("blocks.1.hook_resid_post",)),
        KnownLatentsSource.Config(n_documents=64, families=("value", "tone")),
    )
    assert source.d_in == 32
    batch = next(source.stream(16, seed=0, split="eval"))
    assert batch.coefficients.shape == (16, 66)


def test_the_unembedding_says_what_a_vector_at_the_last_site_does_to_the_logits():
    source = load_known_latents(
        ModelConfig(name=None, device="cpu"),
        TransformerSource.Config(hooks=("blocks.1.hook_resid_post",)),
        KnownLatentsSource.Config(n_documents=64, families=("value", "ordinary", "tone")),
    )
    assert source.promised_tokens.tolist()[:2] == [source.language.lexicon.words.index(w) for w in ("bright", "steady")]
    assert source.promised_tokens.tolist()[64:] == [source.language.lexicon.words.index("ordinary"), -1, -1]
    # Only the direction counts: logits of a residual stream that is this vector alone, up to a factor per row.
    vectors = torch.randn(5, 32, generator=torch.Generator().manual_seed(0))
    tokens = source.tokens[:1, :5]
    replaced = source.model.logits(tokens, {"blocks.1.hook_resid_post": vectors.expand_as})[0]
    module = source.model.module
    bias = module.transformer.ln_f.bias @ module.lm_head.weight.T
    expected = source.unembedding.direct(vectors)
    replaced = replaced - replaced.mean(1, keepdim=True)
    bias = bias - bias.mean()
    for row, want in zip(replaced - bias, expected, strict=True):
        assert float(F.cosine_similarity(row, want, dim=0)) == pytest.approx(1.0, abs=1e-4)
