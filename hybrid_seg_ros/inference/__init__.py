"""From an RGB array to a Segmentation: preprocess, backend, postprocess."""
