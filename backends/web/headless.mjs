// Runs the code of a page on inputs without a window: `node headless.mjs FOLDER`. The folder has
// task.json and inputs.bin. The outputs are written to outputs.bin, and their layout is printed.

import { open, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

const folder = process.argv[2];
const task = JSON.parse(await readFile(join(folder, 'task.json'), 'utf8'));
const own = (name) => import(pathToFileURL(join(task.page, name)).href);
const bytes = async (name) => new Uint8Array(await readFile(join(task.page, name)));
// bytes that add inner values as outputs: the page's levels.bin, or values.bin of the task
const more = async () =>
  task.levels ? await bytes('levels.bin')
  : task.values ? new Uint8Array(await readFile(join(folder, 'values.bin')))
  : undefined;
const { Network } = await own('network.js');
const contracts = await own('contract.js');

const input = task.input ?? JSON.parse(await readFile(join(task.page, '../manifest.json'))).input;
const network = await Network.open({
  runtime: await bytes('onnxruntime/ort-wasm-simd-threaded.wasm'),
  model: await bytes('model.onnx'),
  levels: await more(),
  input,
});
const given = await readFile(join(folder, 'inputs.bin'));
const file = await open(join(folder, 'outputs.bin'), 'w');
let outputs = [];
let at = 0;
for (const size of task.inputs) {
  const found = await network.run(size ? ofImage(size) : tensor());
  outputs = found.map(({ name, dims, type }) => ({ name, dims, type }));
  for (const { data } of found) {
    await file.writeFile(new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
  }
}
await file.close();
process.stdout.write(JSON.stringify({ outputs }), () => process.exit(0));

/** Return the next tensor of the file. */
function tensor() {
  const values = new Float32Array(input.shape.reduce((a, b) => a * b, 1));
  new Uint8Array(values.buffer).set(given.subarray(at, at + values.byteLength));
  at += values.byteLength;
  return values;
}

/** Return the network input for the next image of the file. */
function ofImage([height, width]) {
  const data = given.subarray(at, at + 3 * height * width);
  at += data.length;
  return contracts.apply(input.preprocess, { height, width, data }, input.shape);
}
