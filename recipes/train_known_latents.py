"""A small GPT-2 learns a language with known latent variables to within 0.02 nats per token of a perfect reader.

The language (`ground_truth/language.py`) is a switchboard: verbs set things to values, and what stands after a thing
follows from the whole text before it. Topic, mood and speaker are hidden and must be inferred; a perfect reader's loss
is computed exactly. The model has 2 layers of 32 dimensions for some 280 features. This recipe made the folder
`checkpoints/known_latents`; on the same machine, with as many threads, it makes the same weights again, bit for bit.
About 4 minutes on one thread.

    OMP_NUM_THREADS=1 sae-toolkit run train_known_latents --output runs/language
"""

from dataclasses import dataclass

from sae_toolkit.activations import LanguageTrainConfig, save_language_model, train_language_model
from sae_toolkit.activations.language_training import loss_and_entropy, new_language_model
from sae_toolkit.ground_truth import Language, LanguageConfig, write_documents
from sae_toolkit.report import Expectation, Headline, Report, build_experiment_report, scores_of
from sae_toolkit.report.line_chart import Line, Reference, line_chart_panel
from sae_toolkit.run_folder import RunFolder


@dataclass(frozen=True, kw_only=True)
class Config:
    """The language, the model, its training."""

    train: LanguageTrainConfig = LanguageTrainConfig()
    """Budget, sizes and the seed of everything."""
    sample_documents: int = 50
    """Documents written as plain text, with what was hidden in them, to documents.jsonl."""


SMOKE = Config(
    train=LanguageTrainConfig(
        language=LanguageConfig(n_classes=4, context_length=24, header_events=2),
        n_steps=400,
        learning_rate=1e-2,
        eval_documents=512,
    ),
    sample_documents=5,
)

HEADLINES = (
    Headline(
        name="gap", label="Gap", question="How many nats per token above a perfect reader?", opponents_compete=False
    ),
    Headline(
        name="loss", label="Loss", question="Next-token loss in nats, on fresh documents", opponents_compete=False
    ),
    Headline(name="entropy", label="Entropy", question="The loss of a perfect reader", opponents_compete=False),
)


def main(config: Config, run: RunFolder) -> Report:
    """Trains, saves the model to `model/` in the run's folder, and measures it and its untrained self."""
    language = Language(config.train.language)
    trained = train_language_model(config.train)
    save_language_model(trained, config.train, run.folder / "model")
    write_documents(
        language, run.folder / "documents.jsonl", n_documents=config.sample_documents, seed=config.train.seed
    )
    untrained, entropy = loss_and_entropy(new_language_model(config.train).eval(), config.train)
    n = config.train.eval_documents * (config.train.language.context_length - 1)
    scores = scores_of("model", {"loss": trained.loss, "entropy": trained.entropy, "gap": trained.gap}, n=n)
    scores += scores_of("untrained", {"loss": untrained, "entropy": entropy, "gap": untrained - entropy}, n=n)
    every = max(1, config.train.n_steps // 100)
    means = trained.losses[: config.train.n_steps // every * every].view(-1, every).mean(1).tolist()
    curve = Line(name="training loss", x=[every * (i + 1) for i in range(len(means))], y=means)
    figure = line_chart_panel(
        "Loss while training",
        f"Mean next-token loss of {every} steps each, on documents never seen before.",
        [curve],
        x_label="step",
        y_label="nats per token",
        references=[Reference(label="perfect reader", y=trained.entropy)],
    )
    return build_experiment_report(config, run, scores, [figure], description=language.describe(), headlines=HEADLINES)


EXPECTED = (
    Expectation(score="gap", sae="model", at_least=0.0, at_most=0.02),
    Expectation(score="gap", sae="untrained", at_least=3.0),
)
SMOKE_EXPECTED = (Expectation(score="gap", sae="model", at_least=-0.01, at_most=0.3),)
