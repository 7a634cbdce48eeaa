"""What is right: the reference programs, and how far others are from them."""
