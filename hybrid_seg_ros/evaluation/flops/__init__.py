"""What a variant costs, everything counted, and how that compares with the paper."""
