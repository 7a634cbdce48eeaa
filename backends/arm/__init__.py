"""Native code for Linux on ARM (and this machine): TVM makes the kernels, zig links them.

From a graph to files, each step a module: `partition` (graph -> fused groups), `rules` (group ->
kernel), `program` and `plan` (kernels in order, their memory), `codegen` (kernels -> object),
`source` (C around them), `link` (zig), and `runner` (running the result).
"""
