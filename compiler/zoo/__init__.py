"""The networks that come with tcc: what they cost, and what papers print of them."""
