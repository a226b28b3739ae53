"""Where vectors come from: the contract of a source, known worlds, arrays on disk."""

from .arrays import ArraySource as ArraySource
from .source import ActivationBatch as ActivationBatch
from .source import ActivationSource as ActivationSource
from .source import ActivationStream as ActivationStream
from .source import Split as Split
from .superposition import SuperpositionSource as SuperpositionSource
