"""End-to-end training: the loss and its gradient are those of a model spliced by hand."""

import functools
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import independent_place, loaded, plain, tiny_text_file
from torch import Tensor
from toy import ToySource, small_config

from sae_toolkit import Checkpoints, ReluSAE, TopKSAE, TrainConfig, TrainingSignals, train, weights_sha256
from sae_toolkit.activations import Text, TextConfig, TransformerSource, WholeRowsSource
from sae_toolkit.activations import divergence as divergences
from sae_toolkit.saes.base import AbstractSAE
from sae_toolkit.training import EndToEnd

HOOK = "blocks.0.hook_resid_post"
SIGNALS = TrainingSignals(torch.zeros(48, dtype=torch.bool), torch.tensor(0.7))


@functools.cache
def whole_rows() -> WholeRowsSource:
    model = loaded("tiny")
    text = Text.read(model.tokenizer, TextConfig(path=str(tiny_text_file()), context_length=16, eval_share=0.2))
    return WholeRowsSource(TransformerSource(model, text, TransformerSource.Config(hooks=(HOOK,))))


def relu_sae() -> ReluSAE:
    return ReluSAE(ReluSAE.Config(d_in=32, d_sae=48, normaliser="none"), seed=1).train()


def by_hand(sae: AbstractSAE, tokens: Tensor, kept: Tensor) -> Tensor:
    """KL(clean || spliced), by a plain forward hook on the Hugging Face model, with the SAE inside the graph."""
    hf: Any = plain("tiny")
    module, side = independent_place(hf, 0, "hook_resid_post")
    assert side == "out"

    def splice(_module: Any, _inputs: Any, output: Any) -> Any:
        hidden = output[0] if isinstance(output, tuple) else output
        replaced = torch.where(kept.unsqueeze(-1), sae(hidden).reconstruction, hidden)
        return (replaced, *output[1:]) if isinstance(output, tuple) else replaced

    clean = hf(tokens).logits.detach().log_softmax(-1)
    handle = module.register_forward_hook(splice)
    try:
        spliced = hf(tokens).logits.log_softmax(-1)
    finally:
        handle.remove()
    per_token = (clean.exp() * (clean - spliced)).sum(-1)
    return per_token[:, :-1][kept[:, :-1]].mean()


@pytest.mark.parametrize("logits_at_once", [2**24, 1])
def test_loss_and_gradient_are_those_of_a_model_spliced_by_hand(
    logits_at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All rows at once, and row by row."""
    monkeypatch.setattr(divergences, "MAX_LOGITS", logits_at_once)
    sae, source = relu_sae(), whole_rows()
    batch = next(source.stream(50, seed=0, split="train"))
    assert batch.token_rows is not None
    own = sae.loss_terms(batch.activations, output := sae(batch.activations), SIGNALS)
    objective = EndToEnd(source, EndToEnd.Config(kl_coefficient=2.0, reconstruction_coefficient=0.25))
    ours = sum(objective.terms(own, output, batch, HOOK).values())
    again = sae.loss_terms(batch.activations, sae(batch.activations), SIGNALS)
    expected = 2.0 * by_hand(sae, *batch.token_rows) + 0.25 * again["mse"] + again["l1"]
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-6)
    names, parameters = zip(*sae.named_parameters(), strict=True)
    theirs = torch.autograd.grad(expected, parameters)
    for name, mine, wanted in zip(names, torch.autograd.grad(ours, parameters), theirs, strict=True):
        torch.testing.assert_close(mine, wanted, rtol=1e-4, atol=1e-6, msg=lambda text, name=name: f"{name}: {text}")


def test_the_model_keeps_no_gradient() -> None:
    sae, source = relu_sae(), whole_rows()
    batch = next(source.stream(30, seed=0, split="train"))
    output = sae(batch.activations)
    terms = EndToEnd(source).terms(sae.loss_terms(batch.activations, output, SIGNALS), output, batch, HOOK)
    terms["kl"].backward()
    assert sae.W_dec.grad is not None
    assert all(parameter.grad is None for parameter in source.transformer.model.module.parameters())


def test_what_changes_nothing_costs_nothing() -> None:
    source = whole_rows()
    batch = next(source.stream(30, seed=0, split="train"))
    assert batch.token_rows is not None
    found = divergences.spliced_divergence(source.transformer.model, batch.token_rows, HOOK, batch.activations)
    assert float(found.kl) == pytest.approx(0, abs=1e-6)
    assert found.gradient.abs().max() < 1e-5


CONFIG = TrainConfig(n_samples=320, batch_size=32, preparation_samples=64)


def trained(seed: int = 0, **options: Any) -> AbstractSAE:
    sae = TopKSAE(TopKSAE.Config(d_in=32, d_sae=48, k=4), seed=seed)
    train(sae, whole_rows(), CONFIG, objective=EndToEnd(whole_rows()), **options)
    return sae


def test_a_resumed_run_is_the_uninterrupted_one(tmp_path: Path) -> None:
    class StopsHere(Checkpoints):
        def save(self, snapshot: Any, saes: Any) -> Path:
            super().save(snapshot, saes)
            raise RuntimeError(f"stop at {snapshot.step}")

    with pytest.raises(RuntimeError, match="stop at 4"):
        trained(checkpoints=StopsHere(tmp_path, every_samples=128))
    resumed = trained(seed=9, resume_from=Checkpoints(tmp_path).latest())
    assert weights_sha256(resumed) == weights_sha256(trained())


def test_another_objective_is_another_setup(tmp_path: Path) -> None:
    keeper = Checkpoints(tmp_path)
    trained(checkpoints=keeper)
    sae = TopKSAE(TopKSAE.Config(d_in=32, d_sae=48, k=4))
    other = EndToEnd(whole_rows(), EndToEnd.Config(reconstruction_coefficient=1.0))
    with pytest.raises(ValueError, match=r"objective\.reconstruction_coefficient: saved 0\.0, asked 1\.0"):
        train(sae, whole_rows(), CONFIG, objective=other, resume_from=keeper.latest())


def test_batches_without_rows_are_refused() -> None:
    sae = TopKSAE(small_config(TopKSAE))
    with pytest.raises(ValueError, match="Train on WholeRowsSource"):
        train(sae, ToySource(), CONFIG, objective=EndToEnd(whole_rows()))


@pytest.mark.parametrize("field", ["kl_coefficient", "reconstruction_coefficient"])
def test_a_negative_weight_is_refused(field: str) -> None:
    with pytest.raises(ValueError, match=f"{field}=-1"):
        EndToEnd.Config(**{field: -1.0})
