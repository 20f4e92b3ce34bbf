"""Parts that learners are made of: heads, inner loops, posteriors, memories."""
