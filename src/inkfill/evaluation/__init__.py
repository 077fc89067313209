"""Evaluation: samples of held-out images, their scores, baselines, and analytic posteriors."""
