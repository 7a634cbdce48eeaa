"""Runs artifacts, natively or in an emulator."""
