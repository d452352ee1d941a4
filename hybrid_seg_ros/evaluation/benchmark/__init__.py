"""How long a frame takes, variant by variant and backend by backend, against what one would run instead."""
