"""Training: settings, objectives, one step, and runs that can be killed and resumed."""
