"""From a calibrated model to its integer program, and how it compares with floats."""
