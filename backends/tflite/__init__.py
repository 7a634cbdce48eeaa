"""Target for TFLite files: written directly as flatbuffers, and run by LiteRT on this machine."""
