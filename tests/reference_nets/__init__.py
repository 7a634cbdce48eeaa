"""The architectures once more, written for torch from their papers and sharing nothing with the specs.

Every parameter-bearing module runs in the order in which the specs' layers do.
"""
