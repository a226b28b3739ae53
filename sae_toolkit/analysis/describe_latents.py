"""Everything about an SAE's latents in one record, from one pass over held-out samples."""

from collections.abc import Mapping, Sequence
from functools import partial

from sae_toolkit.activations.source import ActivationSource
from sae_toolkit.analysis.examples import ExamplesConfig
from sae_toolkit.analysis.latent_pass import LatentPass, Related
from sae_toolkit.analysis.latent_record import DictionaryRecord, LatentRecord
from sae_toolkit.config import to_json
from sae_toolkit.saes.base import AbstractDictionary


def describe_latents(
    sae: AbstractDictionary,
    source: ActivationSource,
    *,
    n_tokens: int,
    latents: Sequence[int] | None = None,
    seed: int = 0,
    examples: ExamplesConfig | None = None,
    n_neighbours: int = 10,
    extra_related: Related | None = None,
    notes: Mapping[str, str] | None = None,
    title: str | None = None,
    batch_size: int = 1024,
) -> DictionaryRecord:
    """Records of some latents (None: of all) from one pass over the first n_tokens held-out samples.

    Density, mean, largest, histogram and examples are of all samples, as are correlations with neurons; what needs
    single samples again (fires together with, scores by labels, the matched true feature) is of the first 50,000.
    `extra_related` adds lists by title and latent, `notes` what to know about them. `batch_size` is that of the stream
    where samples are no running text. A source of several sites is for crosscoders: others see one, by `site_of`.
    """
    chosen = checked_latents(latents, sae.d_sae)
    if sae.d_in != source.d_in:
        raise ValueError(
            f"describe_latents: the SAE reads {sae.d_in} dimensions, the source gives {source.d_in} at "
            f"{', '.join(source.sites)}. Give the source seen at the SAE's own site: site_of(source, site)."
        )
    if n_neighbours < 0:
        raise ValueError(f"describe_latents: n_neighbours={n_neighbours} asked; it must be at least 0.")
    config = ExamplesConfig() if examples is None else examples
    found = LatentPass(sae, source, chosen, config=config, seed=seed)
    found.read(n_tokens, batch_size=batch_size, seed=seed)
    related = {**found.related(n_neighbours), **(extra_related or {})}
    return DictionaryRecord(
        title=f"{type(sae).__name__}, {sae.d_sae:,} latents" if title is None else title,
        d_sae=sae.d_sae,
        n_samples=found.statistics.n_samples,
        excluded=dict(found.excluded),
        latents=records(found, related),
        notes={**found.notes(), **(notes or {})},
        provenance={
            "sae": sae.identity(),
            "source": source.describe(),
            "n_tokens_asked": n_tokens,
            "seed": seed,
            "examples": to_json(config),
        },
    )


def records(found: LatentPass, related: Related) -> tuple[LatentRecord, ...]:
    """One record per latent of the pass."""
    statistics, source = found.statistics, found.source
    densities, means, largest = (
        each.tolist() for each in (statistics.densities(), statistics.means(), statistics.largest())
    )
    features, scores = found.features()
    scores = found.label_scores() | scores
    texts, names = source.token_texts, source.feature_names
    return tuple(
        LatentRecord(
            latent=latent,
            density=densities[i],
            mean_activation=means[i],
            max_activation=largest[i],
            histogram=statistics.histogram(i),
            examples=found.examples.of(i, partial(statistics.quantiles, i), token_texts=texts, feature_names=names),
            related={title: lists[latent] for title, lists in related.items() if latent in lists},
            scores={name: values[i] for name, values in scores.items()},
            feature=features[i],
        )
        for i, latent in enumerate(found.latents)
    )


def checked_latents(latents: Sequence[int] | None, d_sae: int) -> tuple[int, ...]:
    """The latents asked for, each once; None: all."""
    if latents is None:
        return tuple(range(d_sae))
    wrong = [latent for latent in latents if not 0 <= latent < d_sae]
    if wrong or len(set(latents)) < len(latents) or not latents:
        raise ValueError(
            f"describe_latents: latents={list(latents)} asked of an SAE with latents 0 to {d_sae - 1}. Name at "
            "least one, each once."
        )
    return tuple(latents)
