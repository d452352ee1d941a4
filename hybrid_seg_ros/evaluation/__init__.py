"""Metrics, FLOP counts, and the evaluation of a model on a dataset."""
