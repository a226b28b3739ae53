"""Whole rows of text: the samples of a batch are the kept tokens of its rows, in their order."""

from pathlib import Path

import pytest
import torch
from tiny_models import loaded, plain, random_tokens
from toy import ToySource

from sae_toolkit.activations import Text, TextConfig, TransformerSource, WholeRowsSource
from sae_toolkit.activations.source import ActivationSource

CONTEXT, HOOK = 16, "blocks.1.hook_resid_pre"


def text(eval_share: float = 0.3) -> Text:
    documents = [f"The cat slept in the garden, and then it {word}." for word in ("ran", "sang", "ate") for _ in "ab"]
    documents = [f"{i} {text}" for i, text in enumerate(8 * documents)]
    config = TextConfig(context_length=CONTEXT, eval_share=eval_share)
    return Text(documents, loaded("tiny").tokenizer, config)


def source(**changes: object) -> TransformerSource:
    config = TransformerSource.Config(hooks=(HOOK,), shuffle_buffer="4096 tokens", **changes)
    return TransformerSource(loaded("tiny"), text(), config)


def small_source(folder: Path) -> ActivationSource:
    """For the contract tests."""
    del folder
    tokenizer = loaded("tiny").tokenizer
    documents = list(random_tokens(len(tokenizer), rows=40, context=40).numpy())
    ids = Text(documents, tokenizer, TextConfig(context_length=CONTEXT, eval_share=0.3))
    # rows that begin with the same words begin with the same activations
    later = TransformerSource.Config(hooks=(HOOK,), shuffle_buffer="4096 tokens", exclude_positions=(0, 1, 2, 3))
    return WholeRowsSource(TransformerSource(loaded("tiny"), ids, later))


def test_samples_are_the_kept_tokens_of_the_rows() -> None:
    batch = next(WholeRowsSource(source()).stream(40, seed=0, split="train"))
    assert batch.token_rows is not None
    assert batch.token_ids is not None
    tokens, kept = batch.token_rows
    assert tokens.shape == kept.shape == (3, CONTEXT)  # BOS at position 0 is left out: 15 of 16 tokens of a row
    assert kept.sum() == len(batch.activations) == 40
    assert not kept[:, 0].any()
    assert torch.equal(tokens[kept], batch.token_ids)
    hidden = plain("tiny")(tokens, output_hidden_states=True).hidden_states[1].detach()
    torch.testing.assert_close(batch.activations, hidden[kept], atol=1e-5, rtol=1e-5)
    assert batch.excluded["batch_end"] == 3 * CONTEXT - 40 - sum(
        batch.excluded[reason] for reason in ("token_id", "position")
    )


def test_a_pass_over_eval_gives_each_row_once_in_order() -> None:
    whole = WholeRowsSource(source())
    window = text().window("eval", 0)
    seen = [batch.token_rows.tokens for batch in whole.stream(15, seed=0, split="eval") if batch.token_rows]
    assert torch.equal(torch.cat(seen), window.rows(torch.arange(window.n_rows)).tokens)


def test_train_passes_differ_in_their_order() -> None:
    stream = WholeRowsSource(source()).stream(15, seed=0, split="train")
    n_rows = text().window("train", 0).n_rows
    passes = [stream.next_rows(n_rows).tokens.tolist() for _ in range(2)]
    assert passes[0] != passes[1]
    assert sorted(passes[0]) == sorted(passes[1])


def test_text_that_keeps_no_token_is_refused() -> None:
    nothing = source(exclude_positions=tuple(range(CONTEXT)))
    with pytest.raises(ValueError, match="gave no sample"):
        next(WholeRowsSource(nothing).stream(4, seed=0, split="train"))


def test_the_sites_are_those_of_the_model() -> None:
    whole: TransformerSource = source()
    assert WholeRowsSource(whole).sites == whole.sites == {HOOK: 32}
    assert WholeRowsSource(whole).token_texts == whole.token_texts
    assert next(ToySource().stream(4, seed=0, split="train")).token_rows is None
