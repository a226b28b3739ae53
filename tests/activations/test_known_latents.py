import json
from dataclasses import replace
from functools import cache

import pytest
import torch
from tiny_language import TINY

from sae_toolkit import Checkpoints, TopKSAE, TrainConfig, train
from sae_toolkit.activations import (
    KnownLatentsSource,
    ModelConfig,
    TransformerSource,
    load_model,
    save_language_model,
    train_language_model,
)
from sae_toolkit.activations.known_latents import read_language, rows_of
from sae_toolkit.attach import attach
from sae_toolkit.ground_truth import Language, LanguageConfig, LanguageFeatures
from sae_toolkit.sparse_rows import SparseRows

HOOKS = ("blocks.0.hook_resid_mid", "blocks.0.hook_resid_post")


def small_source(folder, *, hooks=HOOKS[-1:], first=8, **choices):
    """Without the first positions: different documents begin with the same words, and so with the same activations."""
    config = replace(TINY, n_steps=2)
    path = save_language_model(train_language_model(config), config, folder / "model")
    model = load_model(ModelConfig(name=str(path), device="cpu"), offline=True)
    activations = TransformerSource.Config(
        hooks=hooks, shuffle_buffer="4096 tokens", exclude_positions=tuple(range(first))
    )
    return KnownLatentsSource(
        model, read_language(path), activations, KnownLatentsSource.Config(n_documents=200, **choices)
    )


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return small_source(tmp_path_factory.mktemp("known"), first=1)


@pytest.mark.parametrize("split", ["train", "eval"])
def test_every_sample_carries_what_is_true_of_its_token(source, split):
    features = LanguageFeatures(source.language)
    truth_of = cache(lambda document: features.coefficients(source.tokens[document][None]).to_dense()[0])
    n_seen = 0
    for batch, _ in zip(source.stream(64, seed=0, split=split), range(2), strict=False):
        found = batch.coefficients.to_dense()
        for row in range(len(batch.activations)):
            document, position = int(batch.document_ids[row]), int(batch.positions[row])
            assert int(batch.token_ids[row]) == int(source.tokens[document][position])
            assert torch.equal(found[row], truth_of(document)[position])
            n_seen += 1
    assert n_seen > 100


def test_activations_are_those_of_the_document(source):
    batch = next(source.stream(32, seed=0, split="train"))
    for row in range(8):
        ids = source.tokens[int(batch.document_ids[row])]
        whole = source.model.capture(ids[None], [HOOKS[-1]])[HOOKS[-1]][0]
        assert torch.allclose(batch.activations[row], whole[int(batch.positions[row])], atol=1e-5)


def test_bos_is_left_out_and_both_splits_have_their_own_documents(source):
    seen = {"train": set(), "eval": set()}
    for split, documents in seen.items():
        for batch, _ in zip(source.stream(256, seed=0, split=split), range(4), strict=False):
            assert batch.positions.min() >= 1
            documents.update(batch.document_ids.tolist())
    assert seen["train"]
    assert seen["eval"]
    assert not seen["train"] & seen["eval"]


def test_it_says_what_it_knows(source):
    assert source.feature_names == tuple(source.features.names)
    assert source.hierarchy_pairs.shape[1] == 2
    assert source.token_texts[source.language.lexicon.first["noun"]] == " lamp"
    assert len(source.token_texts) == source.model.d_vocab
    described = json.loads(json.dumps(source.describe()))
    assert described["language"]["n_classes"] == 4
    assert described["fingerprints"]


def test_losses_are_the_transformers_own(source):
    losses = next(source.losses_with({"same": lambda x: x}, n_tokens=50))
    assert torch.equal(losses["clean"].nll, losses["same"].nll)


def test_the_truth_follows_each_site_of_several(tmp_path):
    source = small_source(tmp_path, hooks=HOOKS)
    saes = {hook: TopKSAE(TopKSAE.Config(d_in=8, d_sae=12, k=2)) for hook in HOOKS}
    train(saes, source, TrainConfig(n_samples=512, batch_size=64), sites={hook: hook for hook in HOOKS})
    assert source.d_in == 16
    assert next(source.stream(5, seed=0, split="eval")).coefficients.shape == (5, len(source.features))


def test_a_trained_sae_is_attached_to_the_model_again(source, tmp_path):
    sae = TopKSAE(TopKSAE.Config(d_in=8, d_sae=12, k=2))
    train(sae, source, TrainConfig(n_samples=512, batch_size=64), checkpoints=Checkpoints(tmp_path))
    saved = next(tmp_path.glob("step_*")) / "saes" / "sae"
    assert torch.equal(attach(saved, source.model).W_dec, sae.W_dec)
    other = load_model(ModelConfig(name=source.model.name, device="cpu", reinitialise_seed=1), offline=True)
    with pytest.raises(ValueError, match="other weights"):
        attach(saved, other)


def test_another_language_is_refused(source):
    with pytest.raises(ValueError, match="another vocabulary"):
        KnownLatentsSource(source.model, Language(LanguageConfig(n_classes=8)), source.transformer.config)


def test_impossible_choices_are_refused():
    with pytest.raises(ValueError, match="strictly between 0 and 1"):
        KnownLatentsSource.Config(eval_share=1.0)


def test_rows_are_picked_in_the_order_asked_for():
    dense = torch.tensor([[0.0, 2.0], [0.0, 0.0], [3.0, 4.0]])
    picked = rows_of(SparseRows.from_dense(dense), torch.tensor([2, 1, 0, 2]))
    assert torch.equal(picked.to_dense(), dense[[2, 1, 0, 2]])


def test_held_out_rows_carry_what_is_true_of_every_token(source):
    features = LanguageFeatures(source.language)
    rows = next(source.held_out_rows())
    assert torch.equal(rows.token_ids, source.tokens[rows.document_ids[:, 0]])
    assert torch.equal(rows.coefficients.to_dense(), features.coefficients(rows.token_ids).to_dense())
    assert not rows.kept[:, 0].any()
    assert source.neuron_hooks == {HOOKS[-1]: "blocks.0.mlp.hook_post"}
