"""What changes over a run as a pure function of the step, so that a resumed run needs no schedule state."""


def learning_rate_factor(step: int, n_steps: int, *, warmup_steps: int, decay_fraction: float) -> float:
    """Trapezoid: linear rise over the first steps, 1, linear fall to 0 at the end of the run; `step` counts from 0.

    A run too short for both has the lower of the two lines.
    """
    decay_steps = decay_fraction * n_steps
    rise = min(1.0, (step + 1) / (warmup_steps + 1))
    fall = min(1.0, (n_steps - step) / decay_steps) if decay_steps >= 1 else 1.0
    return min(rise, fall)


def warmup_factor(step: int, n_steps: int, *, warmup_fraction: float) -> float:
    """Linear rise from 0 to 1 over the first share of the run; `step` counts from 0."""
    warmup_steps = warmup_fraction * n_steps
    return min(1.0, (step + 1) / warmup_steps) if warmup_steps >= 1 else 1.0
