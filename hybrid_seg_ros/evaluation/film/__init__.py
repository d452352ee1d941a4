"""A film, frame by frame: how accurate, how steady, how many tokens, how long; as numbers, figures and a page."""
