"""The same training under several optimizers: plan, run, report."""
