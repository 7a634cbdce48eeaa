"""What commands set out to do: build bundles, calibrate, evaluate."""
