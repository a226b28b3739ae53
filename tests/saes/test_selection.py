"""Selection against `torch.topk` of the whole matrix of pre-activations, for every way it can be cut into pieces."""

import pytest
import torch
from torch import Tensor
from toy import ToySource, gaussian, toy_batch, working_sae

from sae_toolkit import AbstractSAE, BatchTopKSAE, LearningConfig, TopKSAE, TrainConfig, train, weights_sha256
from sae_toolkit.saes import selection
from sae_toolkit.saes.selection import Encoder, all_above, guessed_bound, top_of_batch, top_of_rows, top_per_row
from sae_toolkit.saes.sparse_ops import dense_pre_acts

EXACT = torch.float64


def encoder(d_in: int = 8, d_sae: int = 50, *, seed: int = 0) -> Encoder:
    weights = (gaussian(d_in, d_sae, seed=seed), gaussian(d_sae, seed=seed + 1), gaussian(d_in, seed=seed + 2))
    return Encoder(*(weight.double() for weight in weights))


def kept_by_row(pre_acts: Tensor, k: int) -> Tensor:
    chosen = pre_acts.topk(k, dim=1)
    return torch.zeros_like(pre_acts).scatter(1, chosen.indices, chosen.values)


def kept_of_batch(pre_acts: Tensor, n: int) -> Tensor:
    smallest = pre_acts.flatten().sort(descending=True).values[n - 1]
    return pre_acts * ((pre_acts >= smallest) & (pre_acts > 0))


@pytest.fixture(params=[1, 7 * 50, 2**21], ids=["row by row", "seven rows", "at once"])
def chunk_elements(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setitem(selection.CHUNK_ELEMENTS, "cpu", request.param)
    monkeypatch.setattr(selection, "CHUNK_ROWS", 1)
    return int(request.param)


@pytest.mark.parametrize("width", [1, 2, 5, 16, 63, 64, 65, 257, 1000])
@pytest.mark.parametrize("k", [1, 2, 5, 16])
def test_top_per_row_is_topk(width: int, k: int) -> None:
    """Widths with and without a rest in their groups, at one level of groups and at several."""
    if k > width:
        pytest.skip("no such selection")
    rows = gaussian(20, width, seed=width)
    values, indices = top_per_row(rows, k)
    assert torch.equal(values.sort(1).values, rows.topk(k, dim=1).values.sort(1).values)
    assert torch.equal(rows.gather(1, indices), values)
    assert all(len(set(row)) == k for row in indices.tolist())


def test_top_per_row_of_equal_entries_takes_k_different_ones() -> None:
    values, indices = top_per_row(torch.ones(3, 101), 7)
    assert values.tolist() == [[1.0] * 7] * 3
    assert all(len(set(row)) == 7 for row in indices.tolist())


def test_top_per_row_does_not_lose_a_nan() -> None:
    rows = gaussian(4, 100)
    rows[2, 57] = float("nan")
    assert torch.isnan(top_per_row(rows, 3)[0]).sum(1).tolist() == [0, 0, 1, 0]


@pytest.mark.parametrize("k", [1, 6, 50])
def test_top_of_rows_is_topk_of_the_pre_activations(k: int, chunk_elements: int) -> None:
    x = gaussian(40, 8, seed=9).double()
    expected = kept_by_row(dense_pre_acts(x, *encoder()), k)
    torch.testing.assert_close(top_of_rows(x, encoder(), k=k, rank_in=EXACT).to_dense(), expected)


@pytest.mark.parametrize("n", [1, 13, 400])
def test_top_of_batch_is_topk_of_the_flattened_pre_activations(n: int, chunk_elements: int) -> None:
    x = gaussian(40, 8, seed=9).double()
    selected = top_of_batch(x, encoder(), n=n, rank_in=EXACT)
    assert selected.values.numel() == n
    torch.testing.assert_close(selected.to_dense(), kept_of_batch(dense_pre_acts(x, *encoder()), n))


@pytest.mark.parametrize("order", ["rising", "falling"])
def test_a_guess_from_unusual_first_rows_costs_nothing_but_time(order: str, chunk_elements: int) -> None:
    """Rows sorted by size: the bound guessed from the first ones lets far too many, or far too few, through."""
    sizes = torch.linspace(0.01, 10, 40, dtype=torch.float64) ** 3
    x = gaussian(40, 8, seed=9).double() * (sizes if order == "rising" else sizes.flip(0)).unsqueeze(1)
    centred = x + encoder().b_dec
    selected = top_of_batch(centred, encoder(), n=200, rank_in=EXACT)
    torch.testing.assert_close(selected.to_dense(), kept_of_batch(dense_pre_acts(centred, *encoder()), 200))


def test_fewer_are_kept_where_fewer_are_positive(chunk_elements: int) -> None:
    x, (W_enc, _, b_dec) = gaussian(40, 8, seed=9).double(), encoder()
    silent = Encoder(W_enc, torch.full((50,), -8.0, dtype=torch.float64), b_dec)
    pre_acts = dense_pre_acts(x, *silent)
    n_positive = int((pre_acts > 0).sum())
    assert 0 < n_positive < 500
    selected = top_of_batch(x, silent, n=500, rank_in=EXACT)
    assert selected.values.numel() == n_positive
    torch.testing.assert_close(selected.to_dense(), pre_acts.clamp_min(0))


def test_all_above_a_threshold(chunk_elements: int) -> None:
    x = gaussian(40, 8, seed=9).double()
    pre_acts = dense_pre_acts(x, *encoder())
    torch.testing.assert_close(all_above(x, encoder(), threshold=1.5).to_dense(), pre_acts * (pre_acts > 1.5))


def test_a_selection_has_no_memory() -> None:
    """The same batch after any other one is selected bit for bit as before."""
    x, other = gaussian(40, 8, seed=9).double(), 100 * gaussian(40, 8, seed=10).double()
    first = top_of_batch(x, encoder(), n=77, rank_in=EXACT)
    top_of_batch(other, encoder(), n=3, rank_in=EXACT)
    again = top_of_batch(x, encoder(), n=77, rank_in=EXACT)
    assert torch.equal(first.values, again.values)
    assert torch.equal(first.indices, again.indices)


@pytest.mark.parametrize("d_sae", [64, 96, 50])
def test_the_guess_looks_at_every_column(d_sae: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only column 0 is positive; a sample whose stride divides the width would see it always or never."""
    monkeypatch.setattr(selection, "GUESS_SAMPLE", 100)
    pre_acts = -torch.ones(4 * d_sae, d_sae)
    pre_acts[:, 0] = torch.linspace(1, 2, 4 * d_sae)
    assert 1 <= guessed_bound(pre_acts, 0.5 / d_sae) <= 2
    assert guessed_bound(pre_acts, 5 / d_sae) == 0


def test_ranking_in_bfloat16_gives_exact_values_of_nearly_the_same_latents() -> None:
    """Wide enough for rounding to swap neighbours; whatever is selected carries its full-precision value."""
    x, weights = gaussian(64, 32, seed=9), encoder(32, 1024)
    weights = Encoder(*(weight.float() for weight in weights))
    pre_acts = dense_pre_acts(x, *weights)
    for exact, rounded in (
        [top_of_rows(x, weights, k=16, rank_in=dtype) for dtype in (torch.float32, torch.bfloat16)],
        [top_of_batch(x, weights, n=16 * 64, rank_in=dtype) for dtype in (torch.float32, torch.bfloat16)],
    ):
        assert rounded.values.numel() == exact.values.numel() == 16 * 64
        torch.testing.assert_close(rounded.values, pre_acts[rounded.rows, rounded.indices], rtol=1e-5, atol=1e-5)
        shared = int(((exact.to_dense() != 0) & (rounded.to_dense() != 0)).sum())
        assert shared >= 0.99 * exact.values.numel()


def test_ranking_in_bfloat16_where_spares_do_not_exist() -> None:
    x, weights = gaussian(5, 8), Encoder(*(weight.float() for weight in encoder()))
    selected = top_of_rows(x, weights, k=50, rank_in=torch.bfloat16)
    torch.testing.assert_close(selected.to_dense(), dense_pre_acts(x, *weights), rtol=1e-5, atol=1e-5)
    whole = top_of_batch(x, weights, n=250, rank_in=torch.bfloat16)
    assert (whole.values > 0).all()


@pytest.mark.parametrize("variant", [TopKSAE, BatchTopKSAE])
def test_ranking_in_bfloat16_is_for_training_alone(variant: type[AbstractSAE]) -> None:
    """In eval mode not a bit differs; in training mode the trained SAE is another one, and the same one twice."""
    sae, x = working_sae(variant), toy_batch(64)
    exact = sae.encode(x)
    sae.rank_in = torch.bfloat16
    assert torch.equal(sae.encode(x), exact)
    hashes = []
    for rank_in in ("float32", "bfloat16", "bfloat16"):
        trained = variant(variant.Config(d_in=8, d_sae=64, k=3))
        config = TrainConfig(n_samples=320, batch_size=32, learning=LearningConfig(rank_in=rank_in))
        train(trained, ToySource(), config)
        hashes.append(weights_sha256(trained))
    assert hashes[0] != hashes[1] == hashes[2]
