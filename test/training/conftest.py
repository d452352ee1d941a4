"""Tiny models are fastest on one thread, and others may need the cores."""

import torch

torch.set_num_threads(1)
