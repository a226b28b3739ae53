"""Where vectors come from: the contract of a source, known worlds, arrays on disk, language models."""

from .arrays import ArraySource as ArraySource
from .sites import SiteSource as SiteSource
from .source import ActivationBatch as ActivationBatch
from .source import ActivationSource as ActivationSource
from .source import ActivationStream as ActivationStream
from .source import SplicingSource as SplicingSource
from .source import Split as Split
from .source import TokenLosses as TokenLosses
from .splicing_site import SplicingSiteSource as SplicingSiteSource
from .splicing_site import site_of as site_of
from .superposition import SuperpositionSource as SuperpositionSource
