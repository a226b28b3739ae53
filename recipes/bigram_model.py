"""A model without attention is a bigram table of rank d_model: exact with 31 dimensions for 32 tokens, not with 8.

Elhage et al. 2021 ("A Mathematical Framework for Transformer Circuits", zero-layer transformers): the logits are
W_E W_U, which can only be log P(next | token). The chain is known (rows from a Dirichlet distribution), the loss is its
exact expectation, and the distance from a perfect reader is printed in nats.

    sae-toolkit run bigram_model --output runs/bigrams
"""

from dataclasses import dataclass
from itertools import pairwise

import torch

from sae_toolkit.activations import AttentionOnly, minimise
from sae_toolkit.ground_truth import MarkovChain, dirichlet_chain
from sae_toolkit.report import Expectation, Headline, Report, build_experiment_report, heat_map_panel, scores_of
from sae_toolkit.report.line_chart import Line, line_chart_panel
from sae_toolkit.run_folder import RunFolder


@dataclass(frozen=True, kw_only=True)
class Config:
    """One chain, models of several widths."""

    n_tokens: int = 32
    """Tokens of the chain."""
    concentration: float = 0.3
    """Of the Dirichlet distribution of each token's successors; small: few of them are likely."""
    widths: tuple[int, ...] = (64, 31, 16, 8, 4)
    """d_model, falling."""
    n_steps: int = 4000
    """Updates of each model, each on the exact expected loss."""
    learning_rate: float = 3e-2
    """Highest learning rate of AdamW."""
    seed: int = 0
    """Of chain and models."""


SMOKE = Config(widths=(31, 8), n_steps=1000)
HEADLINES = (
    Headline(name="kl", label="KL", question="Nats per token above a perfect reader", opponents_compete=False),
    Headline(name="log_probability_correlation", label="r", question="Are the logits the chain's log-probabilities?"),
)


def learned_logits(config: Config, chain: MarkovChain, width: int) -> torch.Tensor:
    """W_E W_U of a trained model of one width."""
    size = AttentionOnly.Config(d_vocab=config.n_tokens, n_ctx=1, d_model=width, n_layers=0, n_heads=1)
    model, tokens = AttentionOnly(size, seed=config.seed), torch.arange(config.n_tokens)[:, None]
    minimise(
        model,
        lambda _: chain.expected_loss(model(tokens)[:, 0]),
        n_steps=config.n_steps,
        learning_rate=config.learning_rate,
        weight_decay=0.0,
    )
    return model(tokens)[:, 0].detach()


def main(config: Config, run: RunFolder) -> Report:
    """Trains every width and compares its table with the chain."""
    chain = dirichlet_chain(config.n_tokens, config.concentration, seed=config.seed)
    logits = {width: learned_logits(config, chain, width) for width in config.widths}
    found = {d: {"kl": chain.kl(x), "log_probability_correlation": chain.correlation(x)} for d, x in logits.items()}
    scores = scores_of("chain", {"entropy": chain.entropy}, n=config.n_tokens)
    scores += [row for d, values in found.items() for row in scores_of(f"d={d}", values, n=config.n_tokens)]
    kl = [values["kl"] for values in found.values()]
    lossy = [values["kl"] for d, values in found.items() if d < config.n_tokens]
    scores += scores_of(
        "narrower models", {"smallest_rise_of_kl": min(after - before for before, after in pairwise(lossy))}
    )
    curve = Line(name="trained", x=list(found), y=kl)
    caption = "Exact KL divergence of the chain from the model, over the width of its residual stream."
    tables = {"the chain": chain.transitions, **{f"d={d}": x.softmax(-1) for d, x in logits.items()}}
    words = "P(next token | token): the chain's and the models', each row a token."
    figures = [
        line_chart_panel("What narrow models lose", caption, [curve], x_label="d_model", y_label="nats", log_x=True),
        heat_map_panel("Bigrams", words, tables, row_label="token", column_label="next token"),
    ]
    described = {"name": "Dirichlet chain", "n_tokens": config.n_tokens, "concentration": config.concentration}
    return build_experiment_report(config, run, scores, figures, description=described, headlines=HEADLINES)


EXPECTED = (
    *(Expectation(score="kl", sae=f"d={d}", at_least=-1e-6, at_most=0.005) for d in (64, 31)),
    *(Expectation(score="log_probability_correlation", sae=f"d={d}", at_least=0.98) for d in (64, 31)),
    Expectation(score="kl", sae="d=8", at_least=0.12, at_most=0.25),
    Expectation(score="kl", sae="d=4", at_least=0.35, at_most=0.55),
    Expectation(score="smallest_rise_of_kl", sae="narrower models", at_least=0.001),
)
SMOKE_EXPECTED = (
    Expectation(score="kl", sae="d=31", at_least=-1e-6, at_most=0.005),
    Expectation(score="log_probability_correlation", sae="d=31", at_least=0.98),
    Expectation(score="smallest_rise_of_kl", sae="narrower models", at_least=0.05),
)
