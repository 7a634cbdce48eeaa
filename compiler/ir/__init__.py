"""The intermediate representation: types, operations, graphs, targets and input contracts."""
