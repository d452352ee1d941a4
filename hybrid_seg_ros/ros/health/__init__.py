"""What the node and its machine do, counted and told on /diagnostics."""
