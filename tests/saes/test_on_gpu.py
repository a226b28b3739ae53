"""The same kernels, selections and training steps on a GPU as on the CPU. Skipped where there is no GPU."""

import copy

import pytest
import torch
from torch import Tensor
from toy import VARIANTS, gaussian, toy_batch, working_sae

from sae_toolkit import AbstractSAE, LearningConfig, RevivalConfig
from sae_toolkit.saes.cuts import kept_above, kept_inside
from sae_toolkit.saes.selection import Encoder, few_above, top_of_batch, top_of_rows
from sae_toolkit.saes.sparse_ops import gathered_dots, row_dots, sparse_decode, with_encoder_gradient
from sae_toolkit.sparse_rows import SparseRows
from sae_toolkit.training.learner import Learner

GPU = torch.device("cuda")
pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here: nothing to compare the CPU with")


def on_gpu(*tensors: Tensor) -> list[Tensor]:
    return [tensor.detach().to(GPU).requires_grad_(tensor.requires_grad) for tensor in tensors]


def same(ours: Tensor, reference: Tensor) -> None:
    assert ours.device.type == GPU.type
    torch.testing.assert_close(ours.cpu(), reference, rtol=1e-5, atol=1e-5)


def weights(d_sae: int = 40) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    shapes = ((64, 16), (16, d_sae), (d_sae,), (16,))
    return tuple(gaussian(*shape, seed=i).requires_grad_() for i, shape in enumerate(shapes))  # type: ignore[return-value]


@pytest.mark.parametrize("selection", ["rows", "batch", "above"])
def test_selections_and_their_gradients(selection: str) -> None:
    def run(x: Tensor, W_enc: Tensor, b_enc: Tensor, b_dec: Tensor, W_dec: Tensor) -> list[Tensor]:
        encoder = Encoder(W_enc.detach(), b_enc.detach(), b_dec.detach())
        if selection == "rows":
            chosen = top_of_rows(x.detach(), encoder, k=5, rank_in=torch.float32)
        elif selection == "batch":
            chosen = top_of_batch(x.detach(), encoder, n=300, rank_in=torch.float32)
        else:
            chosen = few_above(x.detach(), encoder, threshold=2.0, at_most=1.0)
        latents = with_encoder_gradient(chosen, x, W_enc, b_enc, b_dec)
        decoded = sparse_decode(latents, W_dec)
        gradients = torch.autograd.grad(decoded.square().sum(), [x, W_enc, b_enc, b_dec, W_dec])
        return [latents.to_dense(), decoded, *(gradient / 1000 for gradient in gradients)]

    inputs = (*weights(), gaussian(40, 16, seed=9).requires_grad_())
    for ours, reference in zip(run(*on_gpu(*inputs)), run(*inputs), strict=True):
        same(ours.detach(), reference.detach())


def test_products_and_cuts() -> None:
    left, right, values = gaussian(6, 32, seed=1), gaussian(9, 32, seed=2), gaussian(50, seed=3)
    rows, columns = torch.arange(50) % 6, torch.arange(50) % 9
    order = columns.argsort()
    there = gathered_dots(*on_gpu(left, right, rows, columns), order=order.to(GPU))
    same(there, gathered_dots(left, right, rows, columns, order=order))
    same(row_dots(*on_gpu(left, right[:6])), row_dots(left, right[:6]))
    margins = values.roll(1)
    same(kept_above(*on_gpu(values, margins)), kept_above(values, margins))
    same(kept_inside(*on_gpu(values, margins), within=0.5), kept_inside(values, margins, within=0.5))
    dense = gaussian(5, 7, seed=4).relu()
    same(SparseRows.from_dense(dense.to(GPU)).combine(right[:7].to(GPU)), dense @ right[:7])


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("half_dead", [False, True])
def test_a_training_step(variant: type[AbstractSAE], half_dead: bool) -> None:
    """Loss terms and Adam's moments (the clipped, projected gradients), with and without dead latents to revive.

    Weights are no measure: the first step of Adam is the sign of a gradient, and rounding decides that of a small one.
    """
    x, sae = toy_batch(64), working_sae(variant)
    config = LearningConfig(warmup_steps=0, revival=RevivalConfig(dead_after_samples=1_000))
    ended = []
    for device in (GPU, torch.device("cpu")):
        learner = Learner(copy.deepcopy(sae).to(device), config, n_steps=100, batch_size=64, seed=0)
        if half_dead:
            learner.dead.samples_since_fired[:8] = 10**6
        result = learner.step(x.to(device), 0, before_update=lambda result: None)
        assert bool(result.finite)
        state = {name: value.cpu() for name, value in learner.state_dict().items() if "exp_avg" in name}
        assert state
        ended.append(state | {name: value.cpu() for name, value in result.terms.items()})
    for name, ours in ended[0].items():
        torch.testing.assert_close(ours, ended[1][name], rtol=1e-3, atol=1e-6, msg=f"{variant.__name__}: {name}")
