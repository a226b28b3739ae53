"""What a run will take in memory, on disk and in time, before it is begun."""

from .plan import Plan as Plan
from .plan import WillNotFitError as WillNotFitError
from .predict import plan_run as plan_run
