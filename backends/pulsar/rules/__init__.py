"""The rules of the vendor documents for ONNX operators, per chip, and the check of files.

To add a rule, add a record to `pulsar_rules.py` or `pulsar2_rules.py`.
"""
