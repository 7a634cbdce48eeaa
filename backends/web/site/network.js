// The network: ONNX Runtime as WebAssembly, on one thread, whose integers are the reference's.

import * as ort from './onnxruntime/ort.wasm.bundle.min.mjs';

const ARRAYS = { float32: Float32Array, uint8: Uint8Array, int8: Int8Array };

export class Network {
  /**
   * Open a network of the bytes of its files.
   *
   * `levels`, if given, has it give its 8-bit integers as well. `input` is the manifest's.
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

  /** The outputs [{name, type, dims, data}] for the input's values, float32. */
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
