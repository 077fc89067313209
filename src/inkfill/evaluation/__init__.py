"""Measuring: completions of held-out images, scores, references, and posteriors in closed form."""
