"""Warnings: text that is accepted although its author hardly meant what it says.

`kinds` lists them; `names` finds them in what the text binds and reads, `steps` in single steps,
`parts` in the graph and its outputs, `allow` takes out those that the spec silences.
"""
