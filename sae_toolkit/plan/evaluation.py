"""What scoring with controls takes in memory: `score_with_controls`, with which every shipped recipe ends.

Sizes follow from shapes (each formula says what it counts), except for what metrics keep and what a language model's
losses take: these are measured on a little of it. Batches are those of `evaluate`, 1,024 samples.
"""

import importlib
import pickle
from collections.abc import Collection, Mapping
from typing import NamedTuple

import torch

from sae_toolkit.activations.shuffle import buffered_bytes
from sae_toolkit.activations.source import ActivationBatch, ActivationSource, KnownFeatures, SplicingSource
from sae_toolkit.metrics.controls import CHOSEN_LIKE_AN_SAE, FLOORS, NONNEGATIVE
from sae_toolkit.metrics.detection import RANKED_SAMPLES
from sae_toolkit.metrics.evaluate import default_metrics
from sae_toolkit.metrics.ladder import CONTROL_SAMPLES
from sae_toolkit.metrics.matching import BLOCK_ENTRIES
from sae_toolkit.metrics.metric import Metric
from sae_toolkit.metrics.model_loss import LOSS_TOKENS, ModelLoss
from sae_toolkit.plan import memory
from sae_toolkit.plan.sizes import SAESize
from sae_toolkit.saes.base import SAEOutput
from sae_toolkit.sparse_rows import SparseRows

BATCH = 1024
"""Samples that `evaluate` takes at a time."""
N_CEILINGS = 4
"""Coders of the true directions, where these are known."""
PROBED_SAMPLES = 20_000
PROBED_AT_ONCE = 64
"""Samples of each split, and features at a time, of the linear probe."""
FLOAT = 4
"""Bytes of a float32."""
NOT_RETURNED = 2**26
"""Bytes of freed memory that the C library may keep (glibc's highest trim threshold)."""
KMEANS_COSINES = 2**26
"""Bytes of the cosines that k-means has at a time, at most."""


class EvaluationMemory(NamedTuple):
    """Bytes on top of what the process holds when training has ended."""

    main: int
    cuda: int
    """What the losses of a language model take on the GPU, the model included; 0 without one."""


def evaluation_memory(
    source: ActivationSource,
    sizes: Mapping[str, SAESize],
    sites: Mapping[str, str],
    *,
    n_samples: int,
    leave_out: Collection[str],
) -> EvaluationMemory:
    """The largest moment of scoring the given SAEs on n_samples held-out samples."""
    libraries = load_libraries(source, leave_out)
    sample = -(-CONTROL_SAMPLES // BATCH) * BATCH * source.d_in * FLOAT
    moments = [2 * sample + buffered_at_most(source, CONTROL_SAMPLES)]
    groups: dict[tuple[str | None, int, int], list[SAESize]] = {}
    for name, size in sizes.items():
        groups.setdefault((sites.get(name), size.d_sae, size.k), []).append(size)
    for group in groups.values():
        first = group[0]  # of which the controls are made
        held = sample + len(floors_built(leave_out)) * FLOAT * first.d_sae * first.d_in
        building = building_floors(first, leave_out)
        kept = (n_controls(source, leave_out) + len(group)) * kept_by_metrics(source, first, n_samples)
        moments += [
            held + building,
            held + kept + scoring(source, first, n_samples),
        ]
        if isinstance(source, KnownFeatures):
            moments.append(held + kept + probing(source))  # what metrics kept is in small pieces, which stay
    losses = losses_of_model(source)
    return EvaluationMemory(libraries + max(*moments, sample + losses["cpu"]), losses.get("cuda", 0))


def load_libraries(source: ActivationSource, leave_out: Collection[str]) -> int:
    """Imports what scoring will import, and says what that took."""
    before = memory.resident_bytes()
    if isinstance(source, KnownFeatures):
        importlib.import_module("scipy.optimize")
    if "floor/ica" not in leave_out:
        importlib.import_module("sklearn.decomposition")
    return max(0, memory.resident_bytes() - before)


def buffered_at_most(source: ActivationSource, n_samples: int) -> int:
    """What a stream's shuffle buffer holds after n_samples were read from it."""
    room = sum(part.bytes for part in source.memory_bytes() if not part.held and part.device == "cpu")
    return min(room, n_samples * buffered_bytes(source.d_in))


def n_controls(source: ActivationSource, leave_out: Collection[str]) -> int:
    """Controls that SAEs of one width and sparsity share: floors, some once more by top-k, an untrained SAE, truth."""
    floors = floors_built(leave_out)
    chosen = [name for name in floors if name in CHOSEN_LIKE_AN_SAE]
    return len(floors) + len(chosen) + 1 + (N_CEILINGS if isinstance(source, KnownFeatures) else 0)


def floors_built(leave_out: Collection[str]) -> list[str]:
    """All but those left out and non-negative factors, which few activations allow (and take less than k-means)."""
    return [name for name in FLOORS if name not in leave_out and name != NONNEGATIVE]


def building_floors(size: SAESize, leave_out: Collection[str]) -> int:
    """Temporaries while directions are made from the sample X `[n d_in]`."""
    numbers = CONTROL_SAMPLES * size.d_in
    shuffled = 5 * FLOAT * numbers  # order (8 bytes each), shuffled X, its centred copy, the usable rows of that
    cosines = min(KMEANS_COSINES, FLOAT * CONTROL_SAMPLES * size.d_sae)
    kmeans = 3 * FLOAT * numbers + cosines  # X centred, divided by its length, without the samples at the mean
    ica = 4 * 8 * numbers  # float64: X, scikit-learn's copy, that one whitened, that one unmixed
    return max(
        shuffled,
        0 if "floor/kmeans" in leave_out else kmeans,
        0 if "floor/ica" in leave_out else ica,
    )


def scoring(source: ActivationSource, size: SAESize, n_samples: int) -> int:
    """Temporaries while one dictionary goes through one batch, or its scores are computed at the end."""
    d_in, w, k = size.d_in, size.d_sae, min(size.k, size.d_in)
    # correlations, the same with taken atoms masked, the mask; basis and chosen atoms; normal equations in float64
    pursuit = BATCH * (9 * w + 3 * 4 * k * d_in + 28 * k * k)
    cosines = 3 * 8 * min(BLOCK_ENTRIES, w * w) + 2 * 8 * w * d_in  # a block, its absolute values, squares; unit rows
    if not isinstance(source, KnownFeatures):
        return max(pursuit, cosines)
    n_features = len(source.directions)
    lasso = 7 * 4 * BATCH * n_features
    matching = 2 * 8 * n_features * w + 60 * min(n_samples, RANKED_SAMPLES) * 2 * k  # costs; entries by column
    return max(pursuit, cosines, lasso, matching)


def probing(source: KnownFeatures) -> int:
    """The linear probe, in float64: both samples, centred, their covariance's inverse on them; labels and readouts."""
    return PROBED_SAMPLES * 8 * (6 * source.d_in + 5 * PROBED_AT_ONCE)


def kept_by_metrics(source: ActivationSource, size: SAESize, n_samples: int) -> int:
    """What the metrics of one dictionary hold at the end, from what they hold after a few batches and how that grows.

    Whatever grows without end is capped at the first 50,000 samples by the metrics themselves; what grows until the
    first few thousand is full by then.
    """
    metrics = [metric for metric in default_metrics(source) if not isinstance(metric, ModelLoss)]
    batch = sample_like(source, size)
    empty, sizes = pickled_bytes(metrics), []
    points = [min(n_samples, n) for n in (5 * BATCH, 7 * BATCH)]
    done = 0
    for point in points:
        while done < point:
            feed(metrics, batch, size)
            done += BATCH
        sizes.append(pickled_bytes(metrics) - empty)
    growing = max(0, min(n_samples, RANKED_SAMPLES) - points[1])
    per_sample = (sizes[1] - sizes[0]) / max(1, points[1] - points[0])
    return sizes[1] + round(growing * per_sample)


def pickled_bytes(value: object) -> int:
    """What something would be as a pickle: the bytes of all numbers it holds, however deep."""
    count = ByteCount()
    pickle.Pickler(count, protocol=pickle.HIGHEST_PROTOCOL).dump(value)
    return count.n


class ByteCount:
    """A file that keeps nothing but the number of bytes written to it."""

    n = 0

    def write(self, data: bytes | memoryview | pickle.PickleBuffer) -> int:
        n = memoryview(data).nbytes
        self.n += n
        return n


def sample_like(source: ActivationSource, size: SAESize) -> ActivationBatch:
    """One batch of the right shape, with the world's own coefficients where there is one."""
    if isinstance(source, KnownFeatures):
        return next(source.stream(BATCH, seed=0, split="eval"))
    ramp = torch.linspace(-1, 1, BATCH * size.d_in).reshape(BATCH, size.d_in)
    batch = ActivationBatch(activations=ramp, document_ids=torch.arange(BATCH))
    if source.feature_names is None:
        return batch
    n_features = len(source.feature_names)
    on = SparseRows.from_topk(torch.ones(BATCH, 1), torch.arange(BATCH)[:, None] % n_features, n_features)
    return batch._replace(coefficients=on)


@torch.no_grad()
def feed(metrics: list[Metric], batch: ActivationBatch, size: SAESize) -> None:
    """One batch, and an output in which k latents fire on every sample."""
    columns = (torch.arange(BATCH)[:, None] * size.k + torch.arange(size.k)) % size.d_sae
    latents = SparseRows.from_topk(torch.ones(BATCH, size.k), columns, size.d_sae)
    for metric in metrics:
        metric.update(batch, SAEOutput(batch.activations / 2, latents))


def losses_of_model(source: ActivationSource) -> dict[str, int]:
    """What the first chunk of a language model's losses takes, really computed; nothing elsewhere."""
    if not isinstance(source, SplicingSource):
        return {"cpu": 0}
    before = memory.resident_bytes()
    memory.reset_peaks()
    site = next(iter(source.sites))
    next(iter(source.losses_with({"spliced": lambda x: x.clone()}, n_tokens=LOSS_TOKENS, site=site)))
    found = memory.peaks()
    return found | {"cpu": max(0, found["cpu"] - before)}
