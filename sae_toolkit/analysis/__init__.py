"""What the latents mean: examples, logits, steering, circuits and probes of any SAE on any source."""

from sae_toolkit.analysis.activation_statistics import ActivationStatistics as ActivationStatistics
from sae_toolkit.analysis.correlated_neurons import CorrelatedNeurons as CorrelatedNeurons
from sae_toolkit.analysis.describe_latents import describe_latents as describe_latents
from sae_toolkit.analysis.examples import Examples as Examples
from sae_toolkit.analysis.examples import ExamplesConfig as ExamplesConfig
from sae_toolkit.analysis.firing_together import fires_together as fires_together
from sae_toolkit.analysis.held_out import HeldOut as HeldOut
from sae_toolkit.analysis.held_out import read_held_out as read_held_out
from sae_toolkit.analysis.latent_record import DictionaryRecord as DictionaryRecord
from sae_toolkit.analysis.latent_record import Example as Example
from sae_toolkit.analysis.latent_record import Histogram as Histogram
from sae_toolkit.analysis.latent_record import LatentRecord as LatentRecord
from sae_toolkit.analysis.latent_record import LatentScore as LatentScore
from sae_toolkit.analysis.latent_record import Neighbour as Neighbour
from sae_toolkit.analysis.latent_record import TrueFeature as TrueFeature
from sae_toolkit.analysis.matched_features import match_features as match_features
from sae_toolkit.analysis.neighbours import nearest_latents as nearest_latents
