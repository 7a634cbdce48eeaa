"""TFLite files for phones and DSPs, written as flatbuffers directly; LiteRT runs them here."""
