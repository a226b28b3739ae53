"""Where vectors come from: the contract of a source, known worlds, arrays on disk, language models."""

from .arrays import ArraySource as ArraySource
from .cache import CachedSource as CachedSource
from .cache import build_cache as build_cache
from .language_model import LanguageModel as LanguageModel
from .model_loading import ModelConfig as ModelConfig
from .model_loading import load_model as load_model
from .sites import SiteSource as SiteSource
from .source import ActivationBatch as ActivationBatch
from .source import ActivationSource as ActivationSource
from .source import ActivationStream as ActivationStream
from .source import KnownFeatures as KnownFeatures
from .source import SplicingSource as SplicingSource
from .source import Split as Split
from .source import TokenLosses as TokenLosses
from .splicing_site import SplicingSiteSource as SplicingSiteSource
from .splicing_site import site_of as site_of
from .superposition import SuperpositionSource as SuperpositionSource
from .text import Text as Text
from .text import TextConfig as TextConfig
from .toy_model import ToyModelSource as ToyModelSource
from .transformer import TransformerSource as TransformerSource
