"""TensorRT on an NVIDIA GPU: engines built, kept and run, and label maps made where their scores are."""
