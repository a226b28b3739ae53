"""Whole held-out rows: the samples of the eval stream, in its order, with what stands around them."""

from collections import Counter
from dataclasses import replace

import pytest
import torch
from tiny_models import tiny_model, tiny_text_file
from toy import ToySource

from sae_toolkit.activations import CachedSource, SiteSource, Text, TextConfig, TransformerSource, build_cache
from sae_toolkit.activations.hooks import neurons_before
from sae_toolkit.activations.splicing_site import site_of

HOOK, OTHER = "blocks.1.hook_resid_pre", "blocks.0.hook_attn_out"


def small(hooks=(HOOK,), **changes):
    text = Text.read(
        tiny_model().tokenizer,
        TextConfig(path=str(tiny_text_file()), context_length=16, eval_share=0.3, limit_tokens=3000),
    )
    config = TransformerSource.Config(hooks=hooks, rows_per_forward=4, shuffle_buffer="512 tokens")
    return TransformerSource(tiny_model(), text, replace(config, **changes))


def kept_of(rows):
    """What streams give, taken from rows."""
    columns = {
        "activations": torch.cat([part.activations[part.kept] for part in rows]),
        "token_ids": torch.cat([part.token_ids[part.kept] for part in rows]),
        "document_ids": torch.cat([part.document_ids[part.kept] for part in rows]),
        "positions": torch.cat([part.kept.nonzero()[:, 1] for part in rows]),
    }
    excluded = {reason: sum(part.excluded[reason] for part in rows) for reason in rows[0].excluded}
    return columns, excluded


def streamed(source):
    batches = list(source.stream(64, seed=0, split="eval"))
    names = ("activations", "token_ids", "document_ids", "positions")
    excluded = Counter()
    for batch in batches:
        excluded.update(batch.excluded)
    return {name: torch.cat([getattr(batch, name) for batch in batches]) for name in names}, dict(excluded)


def assert_same_samples(source):
    ours, excluded = kept_of(list(source.held_out_rows()))
    theirs, left_out = streamed(source)
    assert len(theirs["positions"]) > 100
    for name, column in theirs.items():
        assert torch.equal(ours[name], column), name
    assert excluded == left_out


def test_the_kept_tokens_are_the_samples_of_the_eval_stream():
    assert_same_samples(small())


def test_special_tokens_are_there_and_marked():
    """BOS, EOS and PAD are one token with id 0 here."""
    end = tiny_model().tokenizer.eos_token_id
    assert end == tiny_model().tokenizer.bos_token_id == tiny_model().tokenizer.pad_token_id == 0
    rows = list(small().held_out_rows())
    ids, kept = torch.cat([part.token_ids for part in rows]), torch.cat([part.kept for part in rows])
    assert (ids[:, 0] == end).all()
    assert (ids[:, 1:] == end).any()
    assert torch.equal(kept, ids != end)


def test_each_call_reads_the_same_rows():
    source = small()
    first, again = list(source.held_out_rows()), list(source.held_out_rows())
    assert all(torch.equal(a.activations, b.activations) for a, b in zip(first, again, strict=True))


def test_a_site_shows_its_own_columns():
    source = small((HOOK, OTHER))
    whole = next(source.held_out_rows())
    for site in (HOOK, OTHER):
        part = next(site_of(source, site).held_out_rows())
        assert torch.equal(part.activations, whole.activations[..., source.columns(site)])
        assert torch.equal(part.token_ids, whole.token_ids)
    assert SiteSource(ToySource(), "activations").held_out_rows() is None


def test_neurons_are_read_in_the_same_pass():
    source = small()
    hook = source.neuron_hooks[HOOK]
    assert hook == "blocks.0.mlp.hook_post"
    rows = next(source.held_out_rows(beside=(hook,)))
    torch.testing.assert_close(rows.beside[hook], tiny_model().capture(rows.token_ids, [hook])[hook])
    plain = next(source.held_out_rows())
    torch.testing.assert_close(rows.activations, plain.activations)


def test_neurons_that_are_the_site_itself_are_read_once():
    hook = "blocks.0.mlp.hook_post"
    source = small((hook,))
    rows = next(source.held_out_rows(beside=(source.neuron_hooks[hook],)))
    assert torch.equal(rows.beside[hook], rows.activations)


@pytest.mark.parametrize(
    ("site", "neurons"),
    [
        ("blocks.0.hook_resid_pre", None),
        ("blocks.0.hook_resid_mid", None),
        ("blocks.0.mlp.hook_post", "blocks.0.mlp.hook_post"),
        ("blocks.0.hook_mlp_out", "blocks.0.mlp.hook_post"),
        ("blocks.3.hook_resid_post", "blocks.3.mlp.hook_post"),
        ("blocks.3.hook_attn_out", "blocks.2.mlp.hook_post"),
    ],
)
def test_the_neurons_of_a_place_are_the_last_ones_before_it(site, neurons):
    assert neurons_before(site) == neurons


def test_a_cache_gives_the_rows_of_what_it_was_made_of(tmp_path):
    source = small()
    cached = build_cache(source, tmp_path / "cache")
    assert isinstance(cached, CachedSource)
    for ours, theirs in zip(cached.held_out_rows(), source.held_out_rows(), strict=True):
        assert torch.equal(ours.activations, theirs.activations)
        assert torch.equal(ours.kept, theirs.kept)
        assert torch.equal(ours.document_ids, theirs.document_ids)
    assert cached.neuron_hooks == {}
    with pytest.raises(ValueError, match="beside its sites"):
        cached.held_out_rows(beside=("blocks.0.mlp.hook_post",))


def test_a_source_without_text_has_no_rows():
    assert ToySource().held_out_rows() is None
