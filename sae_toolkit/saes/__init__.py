"""The sparse autoencoders: one paper per file, one line here per variant."""

from .base import AbstractDictionary as AbstractDictionary
from .base import AbstractSAE as AbstractSAE
from .base import SAEOutput as SAEOutput
from .base import SparseLatents as SparseLatents
from .base import TrainingSignals as TrainingSignals
from .batch_topk import BatchTopKSAE as BatchTopKSAE
from .relu import ReluSAE as ReluSAE
from .topk import TopKSAE as TopKSAE
from .weights_hash import weights_sha256 as weights_sha256
