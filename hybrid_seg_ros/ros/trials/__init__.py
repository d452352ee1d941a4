"""Trials of the real node over DDS: demos, what it costs, and whether it lasts."""
