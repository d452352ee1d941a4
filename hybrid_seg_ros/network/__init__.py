"""PyTorch modules of the method, and nothing else."""
