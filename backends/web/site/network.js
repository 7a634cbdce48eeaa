// Runs the network in ONNX Runtime (WebAssembly) on one thread. Integers are bit-exact.

import * as ort from './onnxruntime/ort.wasm.bundle.min.mjs';

const ARRAY_TYPES = { float32: Float32Array, uint8: Uint8Array, int8: Int8Array };

export class Network {
  /**
   * Open a network from the bytes of its files.
   *
   * `levels`, if given, is appended to the model and adds its 8-bit values as outputs. `input` is
   * the entry of the manifest.
   */
  static async open({ runtime, model, levels, input }) {
    ort.env.wasm.numThreads = 1;
    ort.env.wasm.wasmBinary ??= runtime;
    ort.env.logLevel = 'error';
    const file = levels ? concatenate(model, levels) : model;
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
    const inputData = ARRAY_TYPES[dtype].from(values);
    const tensor = new ort.Tensor(dtype, inputData, [1, ...shape]);
    const tensors = await this.session.run({ [name]: tensor });
    return this.session.outputNames.map((outputName) => {
      const { type, dims, data } = tensors[outputName];
      return { name: outputName, type, dims, data };
    });
  }
}

function concatenate(head, tail) {
  const bytes = new Uint8Array(head.length + tail.length);
  bytes.set(head);
  bytes.set(tail, head.length);
  return bytes;
}
