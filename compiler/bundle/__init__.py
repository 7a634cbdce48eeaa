"""Artifact bundles: their files, manifests, signatures, and the replay of their goldens."""
