"""The outputs of a measurement, a file each."""
