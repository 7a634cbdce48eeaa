"""Reference programs, and measures of how much other programs differ from them."""
