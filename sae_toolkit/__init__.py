"""Train sparse autoencoders and know whether they worked: first on known ground truth, then on real transformers."""

from .checkpoint import Checkpoints as Checkpoints
from .checkpoint import load as load
from .checkpoint import save as save
from .checkpoint import weights_sha256 as weights_sha256
from .saes import AbstractSAE as AbstractSAE
from .saes import BatchTopKSAE as BatchTopKSAE
from .saes import ReluSAE as ReluSAE
from .saes import SAEOutput as SAEOutput
from .saes import SparseLatents as SparseLatents
from .saes import TopKSAE as TopKSAE
from .saes import TrainingSignals as TrainingSignals
from .training import LearningConfig as LearningConfig
from .training import TrainConfig as TrainConfig
from .training import TrainResult as TrainResult
from .training import train as train
