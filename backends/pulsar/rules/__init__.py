"""What the makers' documents say of ONNX operators, chip by chip, and the check of files by it.

To add a rule: a record in `pulsar_rules.py` or `pulsar2_rules.py`.
"""
