"""Running what was built, here or under an emulator."""
