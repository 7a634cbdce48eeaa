"""Networks that come with tcc: their cost, and the figures that papers report for them."""
