"""What every room uses, and what knows nothing of networks: files, diagnostics, documents."""
