"""The error of a comparison that is not possible."""


class PlanError(ValueError):
    """The error of an option or a config that can't be compared, found before anything has run."""
