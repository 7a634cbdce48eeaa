"""Work of the commands: build bundles, calibrate, evaluate and verify."""
