"""Targets of all backends, and bundles loaded together with their target."""
