"""The targets of all backends, and bundles with the target that runs them."""
