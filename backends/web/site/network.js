// The network in ONNX Runtime as WebAssembly, on one thread; integers match the reference exactly.

import * as ort from './onnxruntime/ort.wasm.bundle.min.mjs';

const ARRAYS = { float32: Float32Array, uint8: Uint8Array, int8: Int8Array };

export class Network {
  /**
   * Open a network from the bytes of its files.
   *
   * `levels`, if given, adds its 8-bit integers as outputs. `input` is the manifest's.
   */
  static async open({ runtime, model, levels, input }) {
    ort.env.wasm.numThreads = 1;
    ort.env.wasm.wasmBinary ??= runtime;
    ort.env.logLevel = 'error';
    const file = levels ? joined(model, levels) : model;
    const session = await ort.InferenceSession.create(file, {
      executionProviders: ['wasm'],
      graphOptimizationLevel: 'all',
      logSeverityLevel: 3,
    });
    return new Network(session, input);
  }

  constructor(session, input) {
    this.session = session;
    this.input = input;
  }

  /** Return the outputs [{name, type, dims, data}] for float32 input values. */
  async run(values) {
    const { name, shape, dtype } = this.input;
    const typed = ARRAYS[dtype].from(values);
    const found = await this.session.run({ [name]: new ort.Tensor(dtype, typed, [1, ...shape]) });
    return this.session.outputNames.map((output) => {
      const { type, dims, data } = found[output];
      return { name: output, type, dims, data };
    });
  }
}

function joined(first, second) {
  const both = new Uint8Array(first.length + second.length);
  both.set(first);
  both.set(second, first.length);
  return both;
}
