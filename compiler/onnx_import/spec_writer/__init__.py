"""Specs from graphs."""
