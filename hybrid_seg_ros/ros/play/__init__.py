"""Play: a bag to the node over DDS, what it answers, and what that is worth."""
