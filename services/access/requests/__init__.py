"""Access requests: what was asked for, what was decided, which roles there are, and who is told of a change."""
