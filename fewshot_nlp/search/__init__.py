"""Search for a learner's settings on meta-validation episodes."""
