"""A video, frame by frame: how accurate, how steady, how many tokens, how long; as numbers, plots and a page."""
