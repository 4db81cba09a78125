"""What turns gradients into weights: the optimizer, and its learning rate as a function of the step."""

from adapt.training.optimizer.families import clip, make
from adapt.training.optimizer.rehearsal import rehearse
from adapt.training.optimizer.schedules import learning_rate

__all__ = ["clip", "learning_rate", "make", "rehearse"]
