// Runs a bundle: checks its files, opens its network, classifies images and replays test vectors.
// It needs no browser window. `read(path, progress)` returns the bytes of a file of the bundle.

import { apply } from './contract.js';
// #ifdef GUARD
import { Guard } from './guard.js';
// #endif
import { decode } from './image.js';
import { Network } from './network.js';
import { reading } from './outputs.js';
import { Saturation } from './saturation.js';

const RUNTIME = 'model/onnxruntime/ort-wasm-simd-threaded.wasm';
const MODEL = 'model/model.onnx';
const INNER_VALUES = 'model/levels.bin';
const SATURATION_REPORT = 'report/saturation.json';
const VERSION = 2;

export class Classifier {
  /** Open the bundle; `progress(path, loaded, total)` receives numbers of bytes. */
  static async open(read, progress = () => {}) {
    const manifest = parseJson(await read('manifest.json'));
    if (manifest.tcc_bundle !== VERSION) {
      throw new Error(`the bundle has version ${manifest.tcc_bundle}; this page needs ${VERSION}`);
    }
    const files = new Map(manifest.files.map((file) => [file.path, file]));
    const readVerified = async (path) => {
      const { bytes: total, sha256 } = files.get(path);
      const bytes = await read(path, (loaded) => progress(path, loaded, total));
      if (bytes.length !== total || ((await computeDigest(bytes)) ?? sha256) !== sha256) {
        throw new Error(`${path} does not match the manifest: build and serve the bundle again`);
      }
      return bytes;
    };
    const hasSaturation = files.has(INNER_VALUES) && files.has(SATURATION_REPORT);
    const network = await Network.open({
      runtime: await readVerified(RUNTIME),
      model: await readVerified(MODEL),
      levels: hasSaturation ? await readVerified(INNER_VALUES) : undefined,
      input: manifest.input,
    });
    const saturation =
      hasSaturation && new Saturation(parseJson(await readVerified(SATURATION_REPORT)));
    return new Classifier(manifest, network, saturation, readVerified);
  }

  constructor(manifest, network, saturation, readVerified) {
    Object.assign(this, { manifest, network, saturation, readVerified });
  }

  /** Classify an image from the bytes of its file. */
  async classify(bytes) {
    return this.classifyPixels(await decode(bytes));
  }

  /** Classify an image; return {outputs, saturation, remarks, exact, seconds}. */
  async classifyPixels(image) {
    const { input, outputs, operating_points: points } = this.manifest;
    if (!input.preprocess) throw new Error('the input of this network is not an image');
    const start = performance.now();
    const tensors = await this.network.run(apply(input.preprocess, image, input.shape));
    const tensorByName = new Map(tensors.map((output) => [output.name, output]));
    const results = outputs.map((output) => {
      const { data } = tensorByName.get(output.name);
      const point = points?.find((candidate) => candidate.output === output.name);
      const row =
        output.shape.length === 1 ? reading(output, data, point) : { range: computeRange(data) };
      return { name: output.name, activation: output.activation, raw: Array.from(data), ...row };
    });
    return {
      outputs: results,
      saturation: this.saturation ? this.saturation.add(tensors).counts() : undefined,
      // #ifdef GUARD
      guard: await this.judge(apply(input.preprocess, image, input.shape), tensors),
      // #endif
      remarks: image.remarks ?? [],
      exact: image.exact ?? false,
      seconds: (performance.now() - start) / 1000,
    };
  }

  // #ifdef GUARD
  /** Judge an image, which is one case of the stream; return {isUnusual, feature, alarm, text}. */
  async judge(values, tensors) {
    this.guard ??= new Guard(parseJson(await this.readVerified('guard.json')));
    const { isUnusual, feature } = this.guard.add(values, tensors);
    this.guard.endCase();
    return { isUnusual, feature, alarm: this.guard.alarm(), text: this.guard.describe() };
  }

  // #endif
  /** Run each test vector from its image file; `onProgress` receives {name, done, total}. */
  async replay(onProgress = () => {}) {
    const { input, goldens } = this.manifest;
    const result = { goldens: 0, bytes: 0, differing: 0, inputs: 0, largest: 0 };
    const maxErrors = new Map();
    for (const golden of goldens.cases) {
      const tensor = toTypedArray(await this.readVerified(golden.tensor), input.dtype);
      let values = Float32Array.from(tensor);
      if (golden.image) {
        const image = await decode(await this.readVerified(golden.image));
        values = apply(input.preprocess, image, input.shape);
        result.inputs += values.reduce((sum, value, i) => sum + (value === tensor[i] ? 0 : 1), 0);
      }
      const computed = await this.network.run(values);
      const computedByName = new Map(computed.map((output) => [output.name, output]));
      for (const [name, path] of Object.entries(golden.outputs)) {
        const expected = await this.readVerified(path);
        const { data } = computedByName.get(name);
        const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
        result.bytes += expected.length;
        result.differing += Math.abs(expected.length - bytes.length);
        result.differing += bytes.reduce((sum, byte, i) => sum + (byte === expected[i] ? 0 : 1), 0);
        const reference = toTypedArray(expected, 'float32');
        const error = data.reduce((top, x, i) => Math.max(top, Math.abs(x - reference[i])), 0);
        const magnitude = reference.reduce((top, value) => Math.max(top, Math.abs(value)), 0);
        const previous = maxErrors.get(name) ?? { error: 0, magnitude: 0 };
        maxErrors.set(name, {
          error: Math.max(previous.error, Number.isNaN(error) ? Infinity : error),
          magnitude: Math.max(previous.magnitude, magnitude),
        });
      }
      result.goldens += 1;
      onProgress({ name: golden.name, done: result.goldens, total: goldens.cases.length });
    }
    return { ...result, ...this.#checkTolerance(result, [...maxErrors.values()]) };
  }

  /** Compare the differences with the manifest's tolerance; return {allowed, largest, holds}. */
  #checkTolerance({ differing, inputs }, maxErrors) {
    const allowed = this.manifest.goldens.tolerance.relative;
    // Tolerances below 0.01 apply to float32 sums: errors are relative to at least 1, as in
    // compiler/bundle/agreement.py.
    const minMagnitude = allowed >= 1e-2 ? 1e-5 : 1;
    const relativeErrors = maxErrors.map(
      ({ error, magnitude }) => error / Math.max(minMagnitude, magnitude),
    );
    const largest = Math.max(0, ...relativeErrors);
    const holds = inputs === 0 && (allowed ? largest <= allowed : differing === 0);
    return { allowed, largest, holds };
  }
}

const parseJson = (bytes) => JSON.parse(new TextDecoder().decode(bytes));

/** Return the SHA-256 of bytes in hex; undefined if the browser has no crypto.subtle (no HTTPS). */
async function computeDigest(bytes) {
  if (!globalThis.crypto?.subtle) return undefined;
  const hash = new Uint8Array(await crypto.subtle.digest('SHA-256', bytes));
  return Array.from(hash, (byte) => byte.toString(16).padStart(2, '0')).join('');
}

function toTypedArray(bytes, dtype) {
  if (dtype === 'uint8') return bytes;
  if (dtype === 'int8') return new Int8Array(bytes.buffer, bytes.byteOffset, bytes.length);
  const values = new Float32Array(bytes.length / 4);
  new Uint8Array(values.buffer).set(bytes);
  return values;
}

function computeRange(data) {
  const start = [Infinity, -Infinity];
  return data.reduce(([low, high], x) => [Math.min(low, x), Math.max(high, x)], start);
}
