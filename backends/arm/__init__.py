"""Native code for Linux on ARM, and for this machine: TVM compiles the kernels, zig links them.

One package per step: `schedule` (graph -> fused groups -> ordered kernels and their memory),
`kernels` (what each kernel computes, and its loops), `codegen` (kernels -> objects, C sources and
libraries), and `execute` (runs the result, natively or in qemu). `compile_model` calls them in
this order; `machine` lists the processors.
"""
