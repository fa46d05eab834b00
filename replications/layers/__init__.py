"""Building blocks that the models of several tasks share. Knows no task and no paper."""
