"""Statistics of an optimizer's state, in pure torch."""
