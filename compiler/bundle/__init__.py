"""Artifact bundles: their files, what they say of themselves, and their goldens replayed."""
