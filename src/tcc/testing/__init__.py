"""Tests that any target must pass: see `check_backend`."""
