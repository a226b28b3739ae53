"""One pass over held-out data feeds every metric of every dictionary."""

import importlib
import inspect
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import nn

from sae_toolkit.activations.source import ActivationBatch, ActivationSource
from sae_toolkit.metrics.co_firing import first_rows
from sae_toolkit.metrics.metric import Metric
from sae_toolkit.metrics.model_loss import LOSS_TOKENS, ModelLoss
from sae_toolkit.metrics.score import Score
from sae_toolkit.saes.base import AbstractDictionary, SAEOutput
from sae_toolkit.sparse_rows import SparseRows

Scores = dict[str, Score]


class Evaluation(NamedTuple):
    """What one pass found."""

    scores: dict[str, Scores]
    """By dictionary and by score name."""
    excluded: dict[str, int]
    """Samples that the source left out on the way, by reason."""


def metric_classes() -> list[type[Metric]]:
    """Every metric that the package exports, in the order of its list."""
    exported = vars(importlib.import_module("sae_toolkit.metrics")).values()
    return [kind for kind in exported if inspect.isclass(kind) and issubclass(kind, Metric) and kind is not Metric]


def default_metrics(source: ActivationSource, *, loss_tokens: int = LOSS_TOKENS) -> list[Metric]:
    """What can be asked anywhere; where features are known, what needs them; of a language model, what it loses.

    `loss_tokens` is the number of held-out tokens behind the losses.
    """
    return metrics_for(source, [kind for kind in metric_classes() if kind.always_on], loss_tokens)


def full_metrics(source: ActivationSource, *, loss_tokens: int = LOSS_TOKENS) -> list[Metric]:
    """All of `default_metrics`, and what costs more than they do."""
    return metrics_for(source, metric_classes(), loss_tokens)


def metrics_for(source: ActivationSource, kinds: Iterable[type[Metric]], loss_tokens: int) -> list[Metric]:
    """Those of some kinds that make sense for a source."""
    built = [metric for kind in kinds for metric in kind.for_source(source)]
    return [ModelLoss(metric.source, loss_tokens) if isinstance(metric, ModelLoss) else metric for metric in built]


def evaluate(
    saes: AbstractDictionary | Mapping[str, AbstractDictionary],
    source: ActivationSource,
    *,
    n_samples: int,
    metrics: Callable[[], list[Metric]] | None = None,
    seed: int = 0,
    batch_size: int = 1024,
) -> dict[str, Scores]:
    """Scores by dictionary (a single one is called "sae") and by score name, over n_samples of the eval split.

    A stream that ends earlier ends the evaluation; every Score tells its n. `metrics` builds a fresh list for each
    dictionary; without it, `default_metrics`. Nothing is left changed: weights, training mode, global generators.
    """
    return evaluate_and_count(
        saes, source, n_samples=n_samples, metrics=metrics, seed=seed, batch_size=batch_size
    ).scores


def evaluate_and_count(
    saes: AbstractDictionary | Mapping[str, AbstractDictionary],
    source: ActivationSource,
    *,
    n_samples: int,
    metrics: Callable[[], list[Metric]] | None = None,
    seed: int = 0,
    batch_size: int = 1024,
) -> Evaluation:
    """`evaluate`, and how many samples the source left out while it was read."""
    named = dict(saes) if isinstance(saes, Mapping) else {"sae": saes}
    fed, excluded = feed(named, source, n_samples=n_samples, metrics=metrics, seed=seed, batch_size=batch_size)
    with torch.no_grad(), inference_mode_of(named.values()):
        return Evaluation({name: all_scores(fed[name], sae) for name, sae in named.items()}, excluded)


def feed(
    saes: Mapping[str, AbstractDictionary],
    source: ActivationSource,
    *,
    n_samples: int,
    metrics: Callable[[], list[Metric]] | None = None,
    seed: int = 0,
    batch_size: int = 1024,
) -> tuple[dict[str, list[Metric]], dict[str, int]]:
    """The metrics of each dictionary after the pass, before anything is computed; and the samples left out, by reason.

    What `evaluate` does first: for scores of several dictionaries at once, which no single metric can compute.
    """
    if n_samples < 1:
        raise ValueError(f"evaluate: n_samples={n_samples} asked, but at least 1 sample is needed.")
    fed = {name: default_metrics(source) if metrics is None else metrics() for name in saes}
    n_seen, excluded = 0, Counter[str]()
    with torch.no_grad(), inference_mode_of(saes.values()):
        devices = {name: sae.decoder_directions().device for name, sae in saes.items()}
        for whole in source.stream(batch_size, seed=seed, split="eval"):
            excluded.update(whole.excluded)
            batch = on_cpu(first_samples(whole, n_samples - n_seen))
            for name, sae in saes.items():
                output = output_on_cpu(sae.forward(batch.activations.to(devices[name])))
                for metric in fed[name]:
                    metric.update(batch, output)
            n_seen += len(batch.activations)
            if n_seen >= n_samples:
                break
    if n_seen == 0:
        raise ValueError("evaluate: the eval split gave no sample, so there is nothing to score. Check the source.")
    return fed, dict(excluded)


def all_scores(metrics: Iterable[Metric], sae: AbstractDictionary) -> Scores:
    """The scores of several metrics in one dictionary; two of the same name are an error."""
    scores: Scores = {}
    for metric in metrics:
        computed = metric.compute(sae)
        twice = scores.keys() & computed.keys()
        if twice:
            raise ValueError(
                f"evaluate: {type(metric).__name__} gives {sorted(twice)}, which another metric gives too."
            )
        scores |= computed
    return scores


def with_reference(scores: Scores, floor_scores: Scores | None, ceiling_scores: Scores | None = None) -> Scores:
    """The same scores with the floor and ceiling that a control and a perfect dictionary reached on the same data.

    The floor is the random dictionary (`controls.FLOOR`) unless the report says otherwise. A reference whose definition
    id differs is no reference and is refused.
    """
    return {
        name: replace(
            score,
            floor=score.floor if floor_scores is None else reference(score, floor_scores.get(name)),
            ceiling=score.ceiling if ceiling_scores is None else reference(score, ceiling_scores.get(name)),
        )
        for name, score in scores.items()
    }


def reference(score: Score, other: Score | None) -> float | None:
    """The value of the same definition on another dictionary; None where it was not computed."""
    if other is None:
        return None
    if other.id != score.id:
        raise ValueError(f"with_reference: {score.id} and {other.id} are different definitions. Evaluate both anew.")
    return other.value


@contextmanager
def inference_mode_of(saes: Iterable[AbstractDictionary]) -> Iterator[None]:
    """Every module in eval mode inside; each one's own mode is put back afterwards, also after an error."""
    modules = [module for sae in saes if isinstance(sae, nn.Module) for module in sae.modules()]
    modes = [module.training for module in modules]
    try:
        for module in modules:
            module.training = False
        yield
    finally:
        for module, mode in zip(modules, modes, strict=True):
            module.training = mode


def first_samples(batch: ActivationBatch, n: int) -> ActivationBatch:
    """The first n samples of a batch."""
    if len(batch.activations) <= n:
        return batch
    return batch._replace(
        activations=batch.activations[:n],
        token_ids=None if batch.token_ids is None else batch.token_ids[:n],
        positions=None if batch.positions is None else batch.positions[:n],
        document_ids=None if batch.document_ids is None else batch.document_ids[:n],
        coefficients=None if batch.coefficients is None else first_rows(batch.coefficients, n),
        targets=None if batch.targets is None else batch.targets[:n],
        token_rows=None,  # whole rows, of which these samples are no longer all that is kept
    )


def on_cpu(batch: ActivationBatch) -> ActivationBatch:
    """Metrics sum in float64, which not every accelerator has."""
    return batch._replace(
        activations=batch.activations.cpu(),
        token_ids=None if batch.token_ids is None else batch.token_ids.cpu(),
        positions=None if batch.positions is None else batch.positions.cpu(),
        document_ids=None if batch.document_ids is None else batch.document_ids.cpu(),
        coefficients=None if batch.coefficients is None else rows_on_cpu(batch.coefficients),
        targets=None if batch.targets is None else batch.targets.cpu(),
    )


def output_on_cpu(output: SAEOutput) -> SAEOutput:
    """Latents as sparse rows, so that no metric has to look for the nonzeros again."""
    return SAEOutput(output.reconstruction.cpu(), rows_on_cpu(output.sparse_latents()))


def rows_on_cpu(rows: SparseRows) -> SparseRows:
    """The same rows in main memory."""
    return SparseRows(rows.values.cpu(), rows.indices.cpu(), rows.offsets.cpu(), rows.shape)
