"""The circuit that a reader of the known language needs: thing, attend to the verbs of it; verb, promise its value.

Every value is a skip-trigram "verb ... thing -> value" ("kindled ... lamp -> bright"): who reads "lamp" must look for
the verbs of lamps and say what the last of them brought about.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from sae_toolkit.ground_truth.language import Language
from sae_toolkit.ground_truth.lexicon import N_VALUES


@dataclass(frozen=True)
class LanguageCircuit:
    """Token ids, value by value: the source, destination and output of each skip-trigram."""

    events: Int[Tensor, " n_values"]
    """The verb that brings the value about."""
    nouns: Int[Tensor, " n_values"]
    """The thing that has it."""
    values: Int[Tensor, " n_values"]
    classes: Int[Tensor, " n_values"]
    """Number of the thing."""
    candidates: Int[Tensor, " n_candidates"]
    """What may stand after a thing: all values, and what is said of a thing that nobody changed."""

    @classmethod
    def of(cls, language: Language) -> "LanguageCircuit":
        """All values of a language."""
        first, n = language.lexicon.first, language.lexicon.size["value"]
        number = torch.arange(n)
        classes = number // N_VALUES
        values = first["value"] + number
        candidates = torch.cat([values, torch.tensor([first["ordinary"]])])
        return cls(first["event"] + number, first["noun"] + classes, values, classes, candidates)

    @property
    def things(self) -> Int[Tensor, " n_classes"]:
        """Each thing once."""
        return self.nouns[::N_VALUES]

    def same_class(self) -> Bool[Tensor, "n_classes n_values"]:
        """Which verbs a thing must attend to."""
        return torch.arange(len(self.things))[:, None] == self.classes

    def answers(self) -> dict[str, Tensor]:
        """What each verb promises, what it could, and who must attend to it."""
        return {"outputs": self.values, "candidates": self.candidates, "attends": self.same_class()}

    def skip_trigrams(self) -> dict[str, Tensor]:
        """The same with the tokens that are asked: verbs as sources, things as destinations."""
        return {"sources": self.events, "destinations": self.things, **self.answers()}
