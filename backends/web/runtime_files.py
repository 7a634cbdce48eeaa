"""ONNX Runtime for browsers, of the package `onnxruntime-web`.

Its smallest build that knows all operators is taken, which is WebAssembly with SIMD.
"""

from tcc.compiler.support.npm_packages import NpmPackage

FOLDER = "onnxruntime"
"""The folder of its files in a page."""
RUNTIME = NpmPackage(
    "onnxruntime-web",
    "build pages for browsers",
    {
        "dist/ort.wasm.bundle.min.mjs": (
            "11e64bd8ffe11bd1a2a2f0d6275fdfbbba7262f0b76b99b53d228a8a22ef3d90"
        ),
        "dist/ort-wasm-simd-threaded.wasm": (
            "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2"
        ),
    },
)
