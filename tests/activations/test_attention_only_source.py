import pytest
import torch

from sae_toolkit.activations import AttentionOnly, AttentionOnlySource
from sae_toolkit.ground_truth import Language, LanguageConfig

LANGUAGE = Language(LanguageConfig(n_classes=4, context_length=12, header_events=2))
SIZE = AttentionOnly.Config(d_vocab=len(LANGUAGE.lexicon), n_ctx=12, d_model=8, n_heads=2)


def small_source(folder):
    del folder
    return source_at(("blocks.0.hook_resid_post",))


def source_at(hooks):
    documents = AttentionOnlySource.Config(n_documents=60, eval_share=0.5, exclude_positions=(0, 1, 2, 3), hooks=hooks)
    return AttentionOnlySource(AttentionOnly(SIZE, seed=0), LANGUAGE, documents)


def test_sites_are_the_residual_streams_before_and_behind_the_layer():
    source = source_at(None)
    assert source.sites == {"blocks.0.hook_resid_pre": 8, "blocks.0.hook_resid_post": 8}
    batch = next(source.stream(16, seed=0, split="eval"))
    assert torch.equal(batch.activations[:, :8], source.model.W_E[batch.token_ids].detach())
    assert int(batch.positions.min()) == 4
    assert not torch.equal(batch.activations[:, 8:], batch.activations[:, :8])
    bare = AttentionOnly(AttentionOnly.Config(**{**vars(SIZE), "n_layers": 0}))
    assert AttentionOnlySource(bare, LANGUAGE, AttentionOnlySource.Config(n_documents=8)).sites == {"resid": 8}


def test_one_site_is_a_part_of_all():
    both, last = (
        next(source_at(hooks).stream(16, seed=0, split="eval")) for hooks in (None, ("blocks.0.hook_resid_post",))
    )
    assert torch.equal(last.activations, both.activations[:, 8:])
    with pytest.raises(ValueError, match=r"choose among blocks.0.hook_resid_pre, blocks.0.hook_resid_post"):
        source_at(("blocks.1.hook_resid_pre",))


def test_token_texts_belong_to_token_ids():
    source = small_source(None)
    assert source.token_texts[LANGUAGE.lexicon.first["noun"]] == " lamp"
