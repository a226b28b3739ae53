"""Every variant with every normaliser: the loss and its gradients are the same numbers in both precisions.

The formulas themselves are held against the papers in tests/saes/, variant by variant.
"""

import pytest
import torch
from toy import NORMALISERS, VARIANTS, toy_batch, working_sae

from sae_toolkit import AbstractSAE
from sae_toolkit.saes.base import TrainingSignals


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.__name__)
@pytest.mark.parametrize("normaliser", NORMALISERS)
def test_float32_loses_no_digits(variant: type[AbstractSAE], normaliser: str) -> None:
    found = []
    for dtype in (torch.float32, torch.float64):
        sae, x = working_sae(variant, normaliser=normaliser).to(dtype).train(), toy_batch(32).to(dtype)
        signals = TrainingSignals(torch.arange(16) % 2 == 0, torch.tensor(0.7, dtype=dtype))
        loss = torch.stack(list(sae.loss_terms(x, sae(x), signals).values())).sum()
        loss.backward()
        found.append({"loss": loss.detach(), **{name: p.grad for name, p in sae.named_parameters()}})
    single, double = found
    for name, value in double.items():
        torch.testing.assert_close(
            single[name].double(), value, rtol=1e-3, atol=1e-4 * float(value.abs().max()), msg=name
        )
