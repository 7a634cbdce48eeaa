// The page: images from files, drops and the camera, and a card for each result.

import { Camera, isPossible } from './camera.js';
import { Classifier } from './classifier.js';
import { ofBitmap } from './image.js';
import { asCsv, card, element, failure, summary } from './results.js';

const find = (id) => document.getElementById(id);
const parts = Object.fromEntries(
  [
    'name', 'about', 'notice', 'state', 'progress', 'agreement', 'files', 'drop', 'camera', 'clear',
    'save', 'camera-hint', 'viewfinder', 'video', 'take', 'stop', 'saturation', 'none', 'results',
    'facts',
  ].map((id) => [id, find(id)]),
);
const camera = new Camera(parts.video);
const done = [];
let classifier;
let queue = Promise.resolve();
let pictures = 0;

start().catch((error) => say(`The page cannot start: ${error.message}`));

async function start() {
  say('Loading the network...');
  classifier = await Classifier.open(read, loading);
  describe(classifier.manifest);
  say('Comparing this browser with the reference outputs...');
  agree(await classifier.replay());
  for (const id of ['files', 'camera']) parts[id].disabled = false;
  parts.camera.disabled = !isPossible();
  parts['camera-hint'].hidden = isPossible();
  idle();
  document.documentElement.dataset.ready = 'yes';
}

/** Return the bytes of a file of the bundle, which is one folder above the page. */
async function read(path, progress = () => {}) {
  const answer = await fetch(new URL(`../${path}`, import.meta.url), { credentials: 'same-origin' });
  if (!answer.ok) throw new Error(`cannot load ${path} (HTTP ${answer.status}): serve the complete bundle folder`);
  const chunks = [];
  let size = 0;
  for (const reader = answer.body.getReader(); ; ) {
    const { done: ended, value } = await reader.read();
    if (ended) break;
    chunks.push(value);
    size += value.length;
    progress(size);
  }
  return new Uint8Array(await new Blob(chunks).arrayBuffer());
}

function loading(path, size, total) {
  parts.progress.hidden = false;
  parts.progress.max = total;
  parts.progress.value = size;
}

function say(text) {
  parts.state.textContent = text;
}

function idle() {
  parts.progress.hidden = true;
  const count = done.length;
  say(count ? `${count} ${count === 1 ? 'image' : 'images'} classified.` : 'Ready.');
}

function describe(manifest) {
  const { model, target, precision, weights, input, outputs, made_with: versions } = manifest;
  document.title = `${model.name}: classify images`;
  parts.name.textContent = model.name;
  const points = manifest.operating_points ?? [];
  const notices = [weights.notice, ...points.map((point) => point.judged?.notice)].filter(Boolean);
  parts.notice.textContent = notices.join('. ');
  parts.notice.hidden = !notices.length;
  const labels = outputs.flatMap((output) => output.labels).join(', ');
  const [channels, height, width] = input.shape;
  const facts = {
    Network: model.doc || model.name,
    Classes: labels || 'unnamed',
    Precision: `${precision} (${target})`,
    Input: input.preprocess ? `${width}x${height} pixels, ${channels} channels` : 'not an image',
    'Weights digest': weights.digest,
    'Built with': Object.entries(versions).map((one) => one.join(' ')).join(', '),
  };
  for (const [name, text] of Object.entries(facts)) {
    parts.facts.append(element('dt', {}, name), element('dd', {}, text));
  }
}

function agree({ holds, bytes, differing, goldens, allowed, largest, inputs }) {
  const exact = `${differing} of ${bytes.toLocaleString('en')} bytes differ`;
  const near = `the largest relative difference is ${largest.toExponential(1)} (limit ${allowed})`;
  const words = allowed ? `${exact}; ${near}` : exact;
  parts.agreement.className = holds ? 'holds' : 'fails';
  parts.agreement.textContent = holds
    ? `This browser matches the reference: ${words} over ${goldens} test vectors.`
    : `Do not use this browser, because it does not match the reference: ${words}, and ${inputs}` +
      ` input values differ over ${goldens} test vectors.`;
}

/** Classify images in sequence; each is {name, picture, classify}. */
function enqueue(images) {
  queue = queue.then(async () => {
    for (const [index, one] of images.entries()) {
      say(`Image ${index + 1} of ${images.length}: ${one.name}`);
      Object.assign(parts.progress, { hidden: false, max: images.length, value: index });
      await new Promise((resume) => setTimeout(resume)); // lets the browser paint
      await classify(one);
    }
    idle();
  });
  return queue;
}

async function classify({ name, picture, classify: work }) {
  parts.none.hidden = true;
  for (const id of ['clear', 'save']) parts[id].disabled = false;
  try {
    const result = await work();
    done.push({ name, result });
    parts.results.prepend(card(name, picture(summary(result)), result));
    warn(result.saturation);
  } catch (error) {
    parts.results.prepend(failure(name, error.message));
  }
}

function warn(saturation) {
  if (!saturation) return;
  const { deviating, compared, images, reference } = saturation;
  parts.saturation.hidden = deviating === 0;
  parts.saturation.textContent =
    `In ${deviating} of ${compared} layers, more values clip on these ${images} images than on the` +
    ` ${reference} counted calibration images. The effect on accuracy is unknown.`;
}

function ofFile(file) {
  return {
    name: file.name,
    picture: (alt) => element('img', { src: URL.createObjectURL(file), alt }),
    classify: async () => classifier.classify(new Uint8Array(await file.arrayBuffer())),
  };
}

async function ofFrame() {
  const bitmap = await camera.frame();
  const canvas = element('canvas', { width: bitmap.width, height: bitmap.height, role: 'img' });
  canvas.getContext('2d').drawImage(bitmap, 0, 0);
  pictures += 1;
  return {
    name: `photo ${pictures}`,
    picture: (alt) => {
      canvas.setAttribute('aria-label', alt);
      return canvas;
    },
    classify: async () => classifier.classifyPixels(ofBitmap(bitmap)),
  };
}

function release(results) {
  for (const image of results.querySelectorAll('img')) URL.revokeObjectURL(image.src);
}

const ready = () => document.documentElement.dataset.ready === 'yes';

parts.files.addEventListener('change', () => {
  enqueue([...parts.files.files].map(ofFile));
  parts.files.value = '';
});
for (const kind of ['dragover', 'dragenter']) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    parts.drop.classList.add('over');
  });
}
document.addEventListener('dragleave', () => parts.drop.classList.remove('over'));
document.addEventListener('drop', (event) => {
  event.preventDefault();
  parts.drop.classList.remove('over');
  if (ready()) enqueue([...event.dataTransfer.files].map(ofFile));
});
document.addEventListener('paste', (event) => {
  if (ready()) enqueue([...event.clipboardData.files].map(ofFile));
});
parts.camera.addEventListener('click', async () => {
  try {
    await camera.start();
    parts.viewfinder.hidden = false;
    parts.take.focus();
  } catch (error) {
    say(`Cannot start the camera: ${error.message}`);
  }
});
parts.take.addEventListener('click', async () => enqueue([await ofFrame()]));
parts.stop.addEventListener('click', () => {
  camera.stop();
  parts.viewfinder.hidden = true;
  parts.camera.focus();
});
addEventListener('pagehide', () => camera.stop());
parts.clear.addEventListener('click', () => {
  release(parts.results);
  parts.results.replaceChildren();
  done.length = 0;
  classifier.saturation?.forget();
  for (const id of ['clear', 'save']) parts[id].disabled = true;
  parts.none.hidden = false;
  parts.saturation.hidden = true;
  idle();
  parts.files.focus();
});
parts.save.addEventListener('click', () => {
  const url = URL.createObjectURL(new Blob([asCsv(done)], { type: 'text/csv' }));
  element('a', { href: url, download: 'classes.csv' }).click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
});
