"""How SAEs learn: one loop for every variant and every source."""

from .end_to_end import EndToEnd as EndToEnd
from .guard import NonFiniteError as NonFiniteError
from .interruption import TrainingInterrupted as TrainingInterrupted
from .learning import LearningConfig as LearningConfig
from .learning import suggested_learning_rate as suggested_learning_rate
from .objective import Objective as Objective
from .revival import RevivalConfig as RevivalConfig
from .run import TrainConfig as TrainConfig
from .snapshot import CheckpointKeeper as CheckpointKeeper
from .snapshot import TrainingSnapshot as TrainingSnapshot
from .train import TrainResult as TrainResult
from .train import train as train
