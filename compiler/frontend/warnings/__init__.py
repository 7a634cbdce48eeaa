"""Warnings: valid text that is probably not what the author meant.

`warning_kinds` lists the kinds. `name_usage` checks the names that a text binds and reads,
`step_warnings` single steps, and `graph_warnings` the graph and its outputs. `all_warnings` removes
those that the spec silences.
"""
