"""Images, arrays and weights from files."""
