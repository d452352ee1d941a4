"""How accurate a model is: on a dataset, at each operating point, and whether its confidence can be trusted."""
