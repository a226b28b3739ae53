"""Circuits between SAE latents name the true ones: which verb promises which value, and who looks for whom.

Elhage et al. 2021 with latents in place of tokens, on a one-layer attention-only model of the known language. One SAE
reads the residual stream before the layer, one behind it. Latents that stand for a verb, a thing and a value are chosen
by firing; then only weights are read: a verb's latent through OV must raise the value's word, and the value's latent
behind the layer; a thing's latent through QK must score the latents of its own verbs above those of others.

Of 64 verbs: the word .98 by OV summed over heads, as with each head weighted by its attention; QK tells own verbs from
others with an AUROC of 1.00, summed and at the best head. An untrained model with SAEs of its own has .02 and .52. From
latent to latent raw weights name the right one of 384 for .41 of verbs, weights times E[a_i a_j] for .83 (random
directions .17). Another seed of the SAEs has .95, .95, 1.00, .45 and .86 (.23).

Random directions have two floors. Drawn without looking, a direction for each word names .02 of the values (AUROC .50),
and on average no more than 1 in 64. Chosen by firing, as latents are, they name .19 and .30 (AUROC .80, .72): the best
of 384 leans towards the verb's embedding, and the closest of 384 random directions to each embedding foretells .20 and
.18, AUROC .77, as means of 20 dictionaries, from weights alone. From latent to latent, both ends chosen so, they name 0
to .08 (two seeds, two trained models).

One latent per word matters: where verbs share latents (BatchTopK, or TopK with few restarts of dead latents) .28 to .66
of words are left (of a model whose heads were never dropped, as .94 by OV, .23 by raw weights). 2026-11.

    sae-toolkit run latent_circuits --output runs/latent_circuits
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sae_toolkit import AbstractSAE, LearningConfig, RevivalConfig, TopKSAE, TrainConfig, train
from sae_toolkit.activations import (
    SMALL_ATTENTION,
    AttentionOnlySource,
    AttentionTrainConfig,
    SiteSource,
    train_attention_only,
)
from sae_toolkit.activations.attention_training import held_out_documents
from sae_toolkit.analysis import (
    KnownCircuit,
    TrigramDetectors,
    chance_scores,
    detectors,
    edge_scores,
    edge_weights,
    latent_circuit_scores,
    latent_table,
    mean_when_active,
)
from sae_toolkit.ground_truth import Language, LanguageCircuit, read_documents
from sae_toolkit.metrics import evaluate
from sae_toolkit.metrics.controls import FixedDictionary, random_directions
from sae_toolkit.report import (
    Expectation,
    Headline,
    NamedScore,
    Report,
    build_experiment_report,
    heat_map_panel,
    scores_of,
)
from sae_toolkit.run_folder import RunFolder
from sae_toolkit.saes.base import AbstractDictionary
from sae_toolkit.saes.coders import LinearTopK

Saes = Mapping[str, AbstractDictionary]
REVIVAL = RevivalConfig(dead_after_samples=8_000, resample_every_samples=130_000)
LEARNING = LearningConfig(learning_rate=1e-2, revival=REVIVAL)
# Words are rare: each needs a latent of its own.
RESTARTED = replace(LEARNING, revival=replace(REVIVAL, resample_every_samples=30_000))


@dataclass(frozen=True, kw_only=True)
class Config:
    """A model, what it reads, and an SAE on either side of its layer."""

    model: AttentionTrainConfig = AttentionTrainConfig()
    """The attention-only model and its language."""
    documents: AttentionOnlySource.Config = AttentionOnlySource.Config()
    """What SAEs are trained on."""
    k: tuple[int, int] = (1, 2)
    """Active latents before and behind the layer."""
    d_sae: int = 384
    """Latents of each SAE."""
    train: TrainConfig = TrainConfig(n_samples=590_000, batch_size=512, learning=LEARNING)
    """Budget, learning and the seed of SAEs and controls."""
    eval_samples: int = 20_000
    """Held-out tokens behind the scores of SAEs."""


SMOKE = Config(
    model=SMALL_ATTENTION,
    documents=AttentionOnlySource.Config(n_documents=512),
    d_sae=96,
    train=TrainConfig(n_samples=50_000, batch_size=256, learning=LEARNING),
)
HEADLINES = (Headline(name="ov_top1", label="OV", question="Do verbs' latents raise their own value the most?"),)


def make_source(config: Config, run: RunFolder) -> AttentionOnlySource:
    """The trained model, reading its language."""
    trained = train_attention_only(config.model)
    return AttentionOnlySource(trained.model, Language(config.model.language), config.documents)


def make_saes(config: Config, source: AttentionOnlySource) -> dict[str, AbstractSAE]:
    """One SAE before the layer, one behind it."""
    return {
        site: TopKSAE(TopKSAE.Config(d_in=d, d_sae=config.d_sae, k=k), seed=config.train.seed)
        for (site, d), k in zip(source.sites.items(), config.k, strict=True)
    }


def measure(name: str, config: Config, source: AttentionOnlySource, saes: Saes) -> tuple[list[NamedScore], Tensor]:
    """Reads the circuit between the latents of two dictionaries: its scores, and virtual weights from verb to value."""
    circuit, weights = LanguageCircuit.of(source.language), source.model.weights()
    tokens, (before, behind) = held_out_documents(config.model), saes.values()
    x, y = source.read(tokens)[:, 1:].flatten(0, 1).split(weights.d_model, dim=1)
    words, said = tokens[:, 1:].flatten(), read_documents(source.language, tokens).value[:, 1:].flatten()
    of_words = (detectors(before, x, words, wanted) for wanted in (circuit.events, circuit.things))
    of_values = detectors(behind, y, said, torch.arange(len(circuit.values)))
    found = TrigramDetectors(*of_words, of_values, mean_when_active(before, x))
    scores = latent_circuit_scores(weights, 0, before, behind, found, **circuit.answers())
    edges = edge_weights(weights, 0, before, behind, *source.read(tokens[:128]).split(weights.d_model, dim=2))
    scores |= {f"{kind}, to latents": edge_scores(table, found) for kind, table in edges._asdict().items()}
    rows = [row for part, values in scores.items() for row in scores_of(f"{name}, {part}", values)]
    return rows, latent_table(weights, 0, before, behind, found)


def main(config: Config, run: RunFolder) -> Report:
    """The untrained model, the trained one, and random directions in it."""
    scores, tables, floors = [], {}, {}
    blank = replace(config, model=replace(config.model, n_steps=0))
    for name, asked, kept in (("untrained model", blank, {}), ("SAEs", config, run.training())):
        source = make_source(asked, run)
        saes = make_saes(asked, source)
        train(saes, source, config.train, sites={s: s for s in saes}, learning={next(iter(saes)): RESTARTED}, **kept)
        rows, tables[name] = measure(name, asked, source, saes)
        scores += rows
    for site, sae in saes.items():
        scores += scores_of(site, evaluate(sae, SiteSource(source, site), n_samples=config.eval_samples)["sae"])
        directions = random_directions(sae.d_sae, sae.d_in, seed=config.train.seed + len(floors))
        floors[site] = FixedDictionary(directions, coder=LinearTopK(2))
    scores += measure("random directions", config, source, floors)[0]
    known = KnownCircuit.of_tokens(source.model.weights(), **LanguageCircuit.of(source.language).skip_trigrams())
    for how, of in chance_scores(source.model.weights(), 0, known, d_sae=config.d_sae, seed=config.train.seed).items():
        scores += scores_of(f"random directions, {how}", of)
    figures = [heat_map_panel("Edges", "The diagonal is true.", tables, row_label="verb", column_label="value")]
    more = {"description": source.describe(), "headlines": HEADLINES, "saes": saes}
    return build_experiment_report(config, run, scores, figures, **more)


EXPECTED = (
    Expectation(score="ov_top1", sae="SAEs, all heads", at_least=0.8),
    Expectation(score="skip_trigram_top1", sae="SAEs, trigrams", at_least=0.8),
    Expectation(score="qk_auroc", sae="SAEs, all heads", at_least=0.9),
    Expectation(score="edge_top1", sae="SAEs, weighted, to latents", at_least=0.5),
    Expectation(score="ov_top1", sae="untrained model, all heads", at_most=0.05),
    Expectation(score="skip_trigram_top1", sae="untrained model, trigrams", at_most=0.05),
    Expectation(score="qk_auroc", sae="untrained model, all heads", at_least=0.45, at_most=0.55),
    Expectation(score="ov_top1", sae="random directions, to latents", at_most=0.15),
    Expectation(score="skip_trigram_top1", sae="random directions, to latents", at_most=0.15),
    Expectation(score="ov_top1", sae="random directions, all heads", at_most=0.35),
    Expectation(score="ov_top1", sae="random directions, drawn", at_most=0.05),
    Expectation(score="skip_trigram_top1", sae="random directions, drawn", at_most=0.05),
    Expectation(score="qk_auroc", sae="random directions, drawn", at_least=0.45, at_most=0.55),
)
SMOKE_EXPECTED = (
    Expectation(score="ov_top1", sae="SAEs, all heads", at_least=0.7),
    Expectation(score="ov_top1", sae="untrained model, all heads", at_most=0.25),
)
