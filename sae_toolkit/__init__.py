"""Train sparse autoencoders and know whether they worked: first on known ground truth, then on real transformers."""

from .activations import ActivationBatch as ActivationBatch
from .activations import ActivationSource as ActivationSource
from .activations import ActivationStream as ActivationStream
from .activations import ArraySource as ArraySource
from .activations import SuperpositionSource as SuperpositionSource
from .attach import attach as attach
from .checkpoint import Checkpoints as Checkpoints
from .checkpoint import load as load
from .checkpoint import save as save
from .ground_truth import World as World
from .metrics import Metric as Metric
from .metrics import Score as Score
from .metrics import evaluate as evaluate
from .saes import AbstractSAE as AbstractSAE
from .saes import BatchTopKSAE as BatchTopKSAE
from .saes import ReluSAE as ReluSAE
from .saes import SAEOutput as SAEOutput
from .saes import SparseLatents as SparseLatents
from .saes import TopKSAE as TopKSAE
from .saes import TrainingSignals as TrainingSignals
from .saes import weights_sha256 as weights_sha256
from .training import LearningConfig as LearningConfig
from .training import TrainConfig as TrainConfig
from .training import TrainingInterrupted as TrainingInterrupted
from .training import TrainResult as TrainResult
from .training import train as train
