"""How dictionaries are scored, SAEs and controls alike, and which controls need not be scored again."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from sae_toolkit.activations.source import ActivationSource
from sae_toolkit.differences import without_labels
from sae_toolkit.metrics.control_store import ControlStore
from sae_toolkit.metrics.evaluate import Evaluation, Scores, default_metrics, evaluate_and_count
from sae_toolkit.metrics.metric import Metric
from sae_toolkit.metrics.model_loss import LOSS_TOKENS
from sae_toolkit.saes.base import AbstractDictionary


def silent(text: str) -> None:
    """Nobody listens."""
    del text


@dataclass(frozen=True, kw_only=True)
class Scoring:
    """How dictionaries are scored: the same for SAEs and for their controls."""

    n_samples: int
    """Held-out samples."""
    seed: int = 0
    """Of the samples, and of the controls that chance makes."""
    leave_out: Collection[str] = ()
    """Floors not worth their time."""
    loss_tokens: int = LOSS_TOKENS
    """Held-out tokens behind a language model's losses."""
    metrics: Callable[..., list[Metric]] = default_metrics
    """What is asked: `default_metrics`, `full_metrics`, or any function of a source (and of `loss_tokens`)."""
    store: ControlStore | None = None
    """Where controls are kept, and found again."""
    say: Callable[[str], None] = silent
    """Told in words what is being computed."""

    def score(self, dictionaries: Mapping[str, AbstractDictionary], source: ActivationSource) -> Evaluation:
        """One pass over the eval split for all of them."""
        self.say(f"scoring {', '.join(dictionaries)}")
        return evaluate_and_count(
            dictionaries,
            source,
            n_samples=self.n_samples,
            seed=self.seed,
            metrics=lambda: self.metrics(source, loss_tokens=self.loss_tokens),
        )

    def score_controls(
        self, controls: Mapping[str, AbstractDictionary], source: ActivationSource
    ) -> Mapping[str, Scores]:
        """The same for controls, of which only those are computed that the store does not hold."""
        if self.store is None:
            return self.score(controls, source).scores
        names = {name: self.made_of(control, source) for name, control in controls.items()}
        known = {name: self.store.scores(made_of) for name, made_of in names.items() if made_of is not None}
        found = {name: scores for name, scores in known.items() if scores is not None}
        missing = {name: control for name, control in controls.items() if name not in found}
        computed = self.score(missing, source).scores if missing else {}
        for name, scores in computed.items():
            made_of = names[name]
            if made_of is not None:
                self.store.keep_scores(made_of, scores)
        return {name: {**found, **computed}[name] for name in controls}

    def made_of(self, control: AbstractDictionary, source: ActivationSource) -> dict[str, Any] | None:
        """All that decides a control's scores; None where the control does not say what it is."""
        identity = control.identity()
        if identity is None:
            return None
        asked = [type(metric).__qualname__ for metric in self.metrics(source, loss_tokens=self.loss_tokens)]
        counts = {"n_samples": self.n_samples, "seed": self.seed, "loss_tokens": self.loss_tokens}
        return {"dictionary": identity, "source": without_labels(source.describe()), "metrics": asked, **counts}
