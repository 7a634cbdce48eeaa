"""Measures programs: instructions counted in qemu, modelled cycles, or times."""
