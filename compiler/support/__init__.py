"""Helpers for all packages that do not depend on networks: files, diagnostics, documents."""
