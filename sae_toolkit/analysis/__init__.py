"""What the latents mean: examples, logits, steering, circuits and probes of any SAE on any source."""

from sae_toolkit.analysis.latent_record import DictionaryRecord as DictionaryRecord
from sae_toolkit.analysis.latent_record import Example as Example
from sae_toolkit.analysis.latent_record import Histogram as Histogram
from sae_toolkit.analysis.latent_record import LatentRecord as LatentRecord
from sae_toolkit.analysis.latent_record import LatentScore as LatentScore
from sae_toolkit.analysis.latent_record import Neighbour as Neighbour
from sae_toolkit.analysis.latent_record import TrueFeature as TrueFeature
