"""Trained networks and foreign models as priors; checkpoints and exports."""
