// Runs a bundle: checks its files, opens its network, classifies images and replays test vectors.
// It needs no window: `read(path, progress)` returns the bytes of a file of the bundle.

import { apply } from './contract.js';
import { decode } from './image.js';
import { Network } from './network.js';
import { reading } from './outputs.js';
import { Saturation } from './saturation.js';

const RUNTIME = 'model/onnxruntime/ort-wasm-simd-threaded.wasm';
const MODEL = 'model/model.onnx';
const LEVELS = 'model/levels.bin';
const REPORT = 'report/saturation.json';
const VERSION = 2;

export class Classifier {
  /** Open the bundle; `progress(path, done, total)` receives the number of loaded bytes. */
  static async open(read, progress = () => {}) {
    const manifest = parsed(await read('manifest.json'));
    if (manifest.tcc_bundle !== VERSION) {
      throw new Error(`the bundle has version ${manifest.tcc_bundle}; this page needs ${VERSION}`);
    }
    const files = new Map(manifest.files.map((file) => [file.path, file]));
    const checked = async (path) => {
      const { bytes: total, sha256 } = files.get(path);
      const bytes = await read(path, (done) => progress(path, done, total));
      if (bytes.length !== total || ((await digest(bytes)) ?? sha256) !== sha256) {
        throw new Error(`${path} does not match the manifest: build and serve the bundle again`);
      }
      return bytes;
    };
    const counts = files.has(LEVELS) && files.has(REPORT);
    const network = await Network.open({
      runtime: await checked(RUNTIME),
      model: await checked(MODEL),
      levels: counts ? await checked(LEVELS) : undefined,
      input: manifest.input,
    });
    const saturation = counts && new Saturation(parsed(await checked(REPORT)));
    return new Classifier(manifest, network, saturation, checked);
  }

  constructor(manifest, network, saturation, checked) {
    Object.assign(this, { manifest, network, saturation, checked });
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
    const given = await this.network.run(apply(input.preprocess, image, input.shape));
    const byName = new Map(given.map((output) => [output.name, output]));
    const found = outputs.map((output) => {
      const { data } = byName.get(output.name);
      const point = points?.find((one) => one.output === output.name);
      const row = output.shape.length === 1 ? reading(output, data, point) : { range: range(data) };
      return { name: output.name, activation: output.activation, raw: Array.from(data), ...row };
    });
    return {
      outputs: found,
      saturation: this.saturation
        ? this.saturation.add(given).counts()
        : undefined,
      remarks: image.remarks ?? [],
      exact: image.exact ?? false,
      seconds: (performance.now() - start) / 1000,
    };
  }

  /** Run each test vector from its image file; `told` receives {name, done, total}. */
  async replay(told = () => {}) {
    const { input, goldens } = this.manifest;
    const result = { goldens: 0, bytes: 0, differing: 0, inputs: 0, largest: 0 };
    const most = new Map();
    for (const one of goldens.cases) {
      const tensor = typed(await this.checked(one.tensor), input.dtype);
      let values = Float32Array.from(tensor);
      if (one.image) {
        const image = await decode(await this.checked(one.image));
        values = apply(input.preprocess, image, input.shape);
        result.inputs += values.reduce((sum, value, i) => sum + (value === tensor[i] ? 0 : 1), 0);
      }
      const given = new Map((await this.network.run(values)).map((each) => [each.name, each]));
      for (const [name, path] of Object.entries(one.outputs)) {
        const expected = await this.checked(path);
        const { data } = given.get(name);
        const found = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
        result.bytes += expected.length;
        result.differing += Math.abs(expected.length - found.length);
        result.differing += found.reduce((sum, byte, i) => sum + (byte === expected[i] ? 0 : 1), 0);
        const wanted = typed(expected, 'float32');
        const apart = data.reduce((top, value, i) => Math.max(top, Math.abs(value - wanted[i])), 0);
        const size = wanted.reduce((top, value) => Math.max(top, Math.abs(value)), 0);
        most.set(name, {
          apart: Math.max(most.get(name)?.apart ?? 0, Number.isNaN(apart) ? Infinity : apart),
          size: Math.max(most.get(name)?.size ?? 0, size),
        });
      }
      result.goldens += 1;
      told({ name: one.name, done: result.goldens, total: goldens.cases.length });
    }
    return { ...result, ...this.#judged(result, [...most.values()]) };
  }

  /** Return whether the differences are within the tolerance of the manifest. */
  #judged({ differing, inputs }, apart) {
    const allowed = this.manifest.goldens.tolerance.relative;
    // Fine tolerances apply to float32 sums, relative to at least 1 (compiler/bundle/agreement.py).
    const least = allowed >= 1e-2 ? 1e-5 : 1;
    const largest = Math.max(0, ...apart.map((one) => one.apart / Math.max(least, one.size)));
    const holds = inputs === 0 && (allowed ? largest <= allowed : differing === 0);
    return { allowed, largest, holds };
  }
}

const parsed = (bytes) => JSON.parse(new TextDecoder().decode(bytes));

/** Return the SHA-256 of bytes in hex; undefined without HTTPS, where browsers do not support it. */
async function digest(bytes) {
  if (!globalThis.crypto?.subtle) return undefined;
  const found = new Uint8Array(await crypto.subtle.digest('SHA-256', bytes));
  return Array.from(found, (byte) => byte.toString(16).padStart(2, '0')).join('');
}

function typed(bytes, dtype) {
  if (dtype === 'uint8') return bytes;
  if (dtype === 'int8') return new Int8Array(bytes.buffer, bytes.byteOffset, bytes.length);
  const values = new Float32Array(bytes.length / 4);
  new Uint8Array(values.buffer).set(bytes);
  return values;
}

function range(data) {
  const [low, high] = data.reduce(([a, b], x) => [Math.min(a, x), Math.max(b, x)], [Infinity, -Infinity]);
  return [low, high];
}
