import pytest
import torch

from sae_toolkit.analysis import MeanProducts
from sae_toolkit.analysis import mean_products as module
from sae_toolkit.sparse_rows import SparseRows


def sparse(rows, columns, seed):
    generator = torch.Generator().manual_seed(seed)
    dense = torch.rand(rows, columns, generator=generator)
    return dense * (torch.rand(rows, columns, generator=generator) < 0.4)


@pytest.mark.parametrize("entries", [3, 2**22])
def test_on_the_same_token_they_are_the_mean_of_products(entries, monkeypatch):
    monkeypatch.setattr(module, "ENTRIES_AT_ONCE", entries)
    a, b = sparse(9, 4, 0), sparse(9, 3, 1)
    products = MeanProducts(4, 3)
    for part in (slice(0, 2), slice(2, 9)):
        products.update(SparseRows.from_dense(a[part]), SparseRows.from_dense(b[part]))
    expected = sum(torch.outer(x, y) for x, y in zip(a, b, strict=True)).double() / 9
    torch.testing.assert_close(products.mean(), expected, atol=1e-6, rtol=1e-6)


def test_through_attention_they_are_sums_over_pairs_of_tokens():
    a, b = sparse(5, 4, 2), sparse(5, 3, 3)
    pattern = torch.rand(5, 5, generator=torch.Generator().manual_seed(4)).tril()
    products = MeanProducts(4, 3)
    products.update_through(pattern, SparseRows.from_dense(a), SparseRows.from_dense(b))
    expected = torch.zeros(4, 3)
    for t in range(5):
        for s in range(5):
            expected += pattern[t, s] * torch.outer(a[s], b[t])
    torch.testing.assert_close(products.mean(), expected.double() / 5, atol=1e-6, rtol=1e-6)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="Select some latents"):
        MeanProducts(2**14, 2**13)
    products = MeanProducts(4, 3)
    with pytest.raises(ValueError, match="no token seen"):
        products.mean()
    a, b = SparseRows.from_dense(sparse(5, 4, 0)), SparseRows.from_dense(sparse(6, 3, 0))
    with pytest.raises(ValueError, match="on the same tokens"):
        products.update(a, b)
    with pytest.raises(ValueError, match="one row of text"):
        products.update_through(torch.eye(4), a, SparseRows.from_dense(sparse(5, 3, 0)))
