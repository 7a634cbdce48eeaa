// Runs the code of a page on inputs without a window: `node headless.mjs FOLDER`. Reads task.json
// and inputs.bin of the folder, writes the outputs to outputs.bin and prints their layout.

import { open, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

const folder = process.argv[2];
const task = JSON.parse(await readFile(join(folder, 'task.json'), 'utf8'));
const importModule = (name) => import(pathToFileURL(join(task.page, name)).href);
const readBytes = async (name) => new Uint8Array(await readFile(join(task.page, name)));
// Return bytes that add inner values as outputs: levels.bin of the page or values.bin of the task.
const readInnerValues = async () =>
  task.levels ? await readBytes('levels.bin')
  : task.values ? new Uint8Array(await readFile(join(folder, 'values.bin')))
  : undefined;
const { Network } = await importModule('network.js');
const contract = await importModule('contract.js');

const input = task.input ?? JSON.parse(await readFile(join(task.page, '../manifest.json'))).input;
const network = await Network.open({
  runtime: await readBytes('onnxruntime/ort-wasm-simd-threaded.wasm'),
  model: await readBytes('model.onnx'),
  levels: await readInnerValues(),
  input,
});
const guard = task.guard && new (await importModule('guard.js')).Guard(task.guard);
const inputBytes = await readFile(join(folder, 'inputs.bin'));
const file = await open(join(folder, 'outputs.bin'), 'w');
let outputs = [];
let offset = 0;
for (const size of task.inputs) {
  const values = size ? readImage(size) : readTensor();
  const tensors = await network.run(values);
  if (guard) {
    const numbers = Float64Array.from(guard.listNumbers(values, tensors));
    outputs = [{ name: 'guard', dims: [1, numbers.length], type: 'float64' }];
    await file.writeFile(new Uint8Array(numbers.buffer));
    continue;
  }
  outputs = tensors.map(({ name, dims, type }) => ({ name, dims, type }));
  for (const { data } of tensors) {
    await file.writeFile(new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
  }
}
await file.close();
process.stdout.write(JSON.stringify({ outputs }), () => process.exit(0));

/** Return the next tensor of the file. */
function readTensor() {
  const values = new Float32Array(input.shape.reduce((a, b) => a * b, 1));
  new Uint8Array(values.buffer).set(inputBytes.subarray(offset, offset + values.byteLength));
  offset += values.byteLength;
  return values;
}

/** Return the network input for the next image of the file. */
function readImage([height, width]) {
  const data = inputBytes.subarray(offset, offset + 3 * height * width);
  offset += data.length;
  return contract.apply(input.preprocess, { height, width, data }, input.shape);
}
