"""The intermediate representation: types, operations, graphs, and the contract of the input."""
