"""How good a model is, what it costs and how fast it is: a folder for each question."""
