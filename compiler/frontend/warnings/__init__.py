"""Warnings: text that is accepted although its author hardly meant what it says.

`warning_kinds` lists them; `name_usage` finds them in what the text binds and reads,
`step_warnings` in single steps, `graph_warnings` in the graph and its outputs; `all_warnings` takes
out those that the spec silences.
"""
