import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment

import sae_toolkit.metrics.matching as matching_file
from sae_toolkit.metrics.matching import assign, match_latents, unit_rows


def test_zero_rows_have_cosine_zero():
    units = unit_rows(torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
    assert units.flatten().tolist() == pytest.approx([0.6, 0.8, 0.0, 0.0])


@pytest.mark.parametrize("shape", [(20, 20), (12, 30), (30, 12)])
def test_assignment_is_scipys_on_the_dense_table(shape):
    g = torch.Generator().manual_seed(3)
    features, latents = (unit_rows(torch.randn(n, 8, generator=g)) for n in shape)
    dense = np.maximum((features @ latents.T).numpy(), 0)
    rows, columns = linear_sum_assignment(dense, maximize=True)
    ours = assign(features, latents)
    assert ours[2].sum().item() == pytest.approx(dense[rows, columns].sum(), abs=1e-12)
    assert sorted(zip(ours[0].tolist(), ours[1].tolist(), strict=True)) == sorted(zip(rows, columns, strict=True))


def test_blocks_change_nothing(features, monkeypatch):
    decoder = torch.randn(40, 64, generator=torch.Generator().manual_seed(4))
    alive = torch.rand(40, generator=torch.Generator().manual_seed(5)) < 0.7
    whole = match_latents(features, decoder, alive)
    monkeypatch.setattr(matching_file, "BLOCK_ENTRIES", 100)
    cut = match_latents(features, decoder, alive)
    for name, tensor in vars(whole).items():
        assert torch.allclose(tensor.double(), getattr(cut, name).double(), atol=1e-12), name


def test_other_width_is_an_error(features):
    with pytest.raises(ValueError, match="64 dimensions, decoder rows 32"):
        match_latents(features, torch.ones(5, 32))
