"""A small known world and fixed outputs, shared by the tests of all metrics."""

from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from sae_toolkit.activations.source import ActivationBatch
from sae_toolkit.metrics.metric import Metric
from sae_toolkit.saes.base import SAEOutput
from sae_toolkit.sparse_rows import SparseRows


def unit(rows: Tensor) -> Tensor:
    return rows / rows.norm(dim=1, keepdim=True)


class Samples(NamedTuple):
    """Activations, what an SAE made of them, and the truth; cut into batches as a test likes."""

    x: Tensor
    reconstruction: Tensor
    latents: Tensor
    coefficients: Tensor
    document_ids: Tensor | None = None

    def feed(self, metric: Metric, batch_size: int) -> Metric:
        for start in range(0, len(self.x), batch_size):
            part = slice(start, start + batch_size)
            batch = ActivationBatch(
                activations=self.x[part],
                token_ids=torch.arange(len(self.x))[part] % 3,
                document_ids=None if self.document_ids is None else self.document_ids[part],
                coefficients=SparseRows.from_dense(self.coefficients[part]),
            )
            metric.update(batch, SAEOutput(self.reconstruction[part], self.latents[part]))
        return metric


@pytest.fixture(scope="session")
def features() -> Tensor:
    """The 256 unit vectors in 64 dimensions of the edge battery."""
    return unit(torch.randn(256, 64, generator=torch.Generator().manual_seed(0)))


@pytest.fixture(scope="session")
def samples() -> Samples:
    """100 samples of 12 features in 6 dimensions, and an imperfect dictionary of 10 latents; latent 9 is dead."""
    g = torch.Generator().manual_seed(1)
    directions = unit(torch.randn(12, 6, generator=g))
    coefficients = torch.rand(100, 12, generator=g) * (torch.rand(100, 12, generator=g) < 0.3)
    x = coefficients @ directions + 0.5
    latents = (coefficients[:, :10] + 0.3 * torch.randn(100, 10, generator=g)).relu().mul(4).round() / 4
    latents[:, 9] = 0
    reconstruction = x + 0.2 * torch.randn(100, 6, generator=g)
    return Samples(x, reconstruction, latents, coefficients)
