"""From what was observed to scales: the methods of calibration."""
