"""Native code for Linux on ARM (and this machine): TVM makes the kernels, zig links them.

From a graph to files, each step a room: `schedule` (graph -> fused groups -> kernels in order, and
their memory), `kernels` (what each computes, and its loops), `codegen` (kernels -> object, C around
it, libraries), and `execute` (running the result, here or in qemu). `compile_model` takes them in
turn; `machine` lists the processors.
"""
