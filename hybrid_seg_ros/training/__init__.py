"""Training: losses, schedule, and the loops for the segmenter and the policy network."""
