"""The loops of each kernel, in TVM's intermediate form; the only modules that import TVM here."""
