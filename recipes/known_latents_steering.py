"""Latents are levers: exchanging the latent of one value for another's makes the model say the other, in most cases.

A small GPT-2 reads a language whose latents are known ("buffed the bell ... the bell" must go on with "polished"). SAEs
read its residual stream behind each block. At tokens where value a must be said next, a's latent is removed and the
latent of another value b of the same thing set to twice its mean activation; a random latent in b's place is the floor.

Flipped over three seeds: .95, .91, .95 behind block 1 (a random latent: .01, .01, .02), .81, .85, .88 behind block 0.
A latent is as good a lever as it is a detector: with four active latents a value's best latent detects it with an F1 of
.82 to .92 for .94 with three, some latents serve two values, and .73 to .82 are flipped (two: F1 .46, .32), 2026-11.

    sae-toolkit run known_latents_steering --output runs/steering
"""

from dataclasses import dataclass

from sae_toolkit import AbstractSAE, BatchTopKSAE, LearningConfig, TrainConfig, train
from sae_toolkit.activations import KnownLatentsSource, ModelConfig, TransformerSource, load_known_latents, site_of
from sae_toolkit.analysis import ValueSteering
from sae_toolkit.metrics import Reconstruction, Sparsity, evaluate
from sae_toolkit.report import Expectation, Headline, Report, build_experiment_report, scores_of
from sae_toolkit.report.curves import training_curves_panel
from sae_toolkit.run_folder import RunFolder

LEARNING = LearningConfig(learning_rate=3e-2)


@dataclass(frozen=True, kw_only=True)
class Config:
    """The shipped model or another of `train_known_latents`, one BatchTopK SAE for each place."""

    model: ModelConfig = ModelConfig(name=None, device="cpu")
    """A folder that `train_known_latents` wrote; name None: the one that is shipped."""
    documents: KnownLatentsSource.Config = KnownLatentsSource.Config(families=("value", "tone", "number"))
    """What the model reads, and what is asked about; "value" must be among the families."""
    activations: TransformerSource.Config = TransformerSource.Config(
        hooks=("blocks.0.hook_resid_post", "blocks.1.hook_resid_post")
    )
    """Where SAEs read it and steer it."""
    k: int = 3
    """Active latents of each SAE."""
    d_sae: int = 256
    """Latents of each SAE."""
    train: TrainConfig = TrainConfig(n_samples=1_200_000, batch_size=512, learning=LEARNING)
    """Budget, learning and the seed of everything."""
    eval_samples: int = 50_000
    """Held-out tokens behind every score."""
    n_swaps: int = 500
    """Exchanges at each place."""
    strength: float = 2.0
    """What a latent is set to, in multiples of its mean activation."""


SMOKE = Config(
    documents=KnownLatentsSource.Config(n_documents=2_400, families=("value",)),
    activations=TransformerSource.Config(hooks=("blocks.1.hook_resid_post",)),
    train=TrainConfig(n_samples=400_000, batch_size=256, learning=LEARNING),
    eval_samples=15_000,
    n_swaps=200,
)
QUESTIONS = {
    "steering_flips": "How often does the model say the value whose latent was put in?",
    "steering_flips_random": "How often does it say that value when a random latent was put in?",
}
HEADLINES = [Headline(name=n, label=n.replace("_", " "), question=q) for n, q in QUESTIONS.items()]


def make_source(config: Config, run: RunFolder) -> KnownLatentsSource:
    """The model, reading its language."""
    return load_known_latents(config.model, config.activations, config.documents)


def make_saes(config: Config, source: KnownLatentsSource) -> dict[str, AbstractSAE]:
    """One SAE per hook, named after it."""
    seed = config.train.seed
    return {
        hook: BatchTopKSAE(BatchTopKSAE.Config(d_in=d_in, d_sae=config.d_sae, k=config.k), seed=seed)
        for hook, d_in in source.sites.items()
    }


def main(config: Config, run: RunFolder) -> Report:
    """Trains all SAEs in one pass, then scores and steers each at its own hook."""
    source = make_source(config, run)
    saes = make_saes(config, source)
    train(saes, source, config.train, sites={hook: hook for hook in saes}, **run.training())
    scores, seed = [], config.train.seed
    for hook, sae in saes.items():
        site = site_of(source, hook)
        steering = ValueSteering(source, hook, n_swaps=config.n_swaps, strength=config.strength, seed=seed)
        metrics = [Reconstruction(), Sparsity(), steering]
        found = evaluate(sae, site, n_samples=config.eval_samples, seed=seed, metrics=metrics.copy)["sae"]
        scores += scores_of(hook, found)
    curves = training_curves_panel(run.memory.records)
    return build_experiment_report(
        config, run, scores, [curves], description=source.describe(), headlines=HEADLINES, saes=saes
    )


EXPECTED = (
    Expectation(score="steering_flips", sae="blocks.1.hook_resid_post", at_least=0.8),
    Expectation(score="steering_flips_random", sae="blocks.1.hook_resid_post", at_most=0.05),
    Expectation(score="steering_flips", sae="blocks.0.hook_resid_post", at_least=0.7),
    Expectation(score="steering_flips_random", sae="blocks.0.hook_resid_post", at_most=0.05),
)
SMOKE_EXPECTED = (
    Expectation(score="steering_flips", sae="blocks.1.hook_resid_post", at_least=0.4),
    Expectation(score="steering_flips_random", sae="blocks.1.hook_resid_post", at_most=0.08),
)
