"""Training: settings, batches, runs that can be killed and resumed, EM rounds, few-step models."""

from inkfill.training import few as few  # registers its objective
