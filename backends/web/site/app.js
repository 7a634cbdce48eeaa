// The page: takes images from files, the clipboard and the camera, and shows a card for each.

import { Camera, isSupported } from './camera.js';
import { Classifier } from './classifier.js';
import { readBitmap } from './image.js';
import { createCard, createElement, createFailureCard, formatSummary, toCsv } from './results.js';

const findElement = (id) => document.getElementById(id);
const elements = Object.fromEntries(
  [
    'name', 'about', 'notice', 'state', 'progress', 'agreement', 'files', 'drop', 'camera', 'clear',
    'save', 'camera-hint', 'viewfinder', 'video', 'take', 'stop', 'saturation', 'none', 'results',
    'facts',
  ].map((id) => [id, findElement(id)]),
);
const camera = new Camera(elements.video);
const classified = [];
let classifier;
let queue = Promise.resolve();
let photoCount = 0;

start().catch((error) => showStatus(`The page cannot start: ${error.message}`));

async function start() {
  showStatus('Loading the network...');
  classifier = await Classifier.open(read, showProgress);
  showManifest(classifier.manifest);
  showStatus('Comparing this browser with the reference outputs...');
  showAgreement(await classifier.replay());
  for (const id of ['files', 'camera']) elements[id].disabled = false;
  elements.camera.disabled = !isSupported();
  elements['camera-hint'].hidden = isSupported();
  showIdle();
  document.documentElement.dataset.ready = 'yes';
}

/** Return the bytes of a file of the bundle. The bundle's root is one folder above the page. */
async function read(path, progress = () => {}) {
  const url = new URL(`../${path}`, import.meta.url);
  const response = await fetch(url, { credentials: 'same-origin' });
  if (!response.ok) {
    throw new Error(
      `cannot load ${path} (HTTP ${response.status}): serve the complete bundle folder`,
    );
  }
  const chunks = [];
  let size = 0;
  for (const reader = response.body.getReader(); ; ) {
    const { done: isDone, value } = await reader.read();
    if (isDone) break;
    chunks.push(value);
    size += value.length;
    progress(size);
  }
  return new Uint8Array(await new Blob(chunks).arrayBuffer());
}

function showProgress(path, size, total) {
  elements.progress.hidden = false;
  elements.progress.max = total;
  elements.progress.value = size;
}

function showStatus(text) {
  elements.state.textContent = text;
}

function showIdle() {
  elements.progress.hidden = true;
  const count = classified.length;
  showStatus(count ? `${count} ${count === 1 ? 'image' : 'images'} classified.` : 'Ready.');
}

function showManifest(manifest) {
  const { model, target, precision, weights, input, outputs, made_with: versions } = manifest;
  document.title = `${model.name}: classify images`;
  elements.name.textContent = model.name;
  const points = manifest.operating_points ?? [];
  const notices = [weights.notice, ...points.map((point) => point.judged?.notice)].filter(Boolean);
  elements.notice.textContent = notices.join('. ');
  elements.notice.hidden = !notices.length;
  const labels = outputs.flatMap((output) => output.labels).join(', ');
  const [channels, height, width] = input.shape;
  const facts = {
    Network: model.doc || model.name,
    Classes: labels || 'unnamed',
    Precision: `${precision} (${target})`,
    Input: input.preprocess ? `${width}x${height} pixels, ${channels} channels` : 'not an image',
    'Weights digest': weights.digest,
    'Built with': Object.entries(versions).map((entry) => entry.join(' ')).join(', '),
  };
  for (const [name, text] of Object.entries(facts)) {
    elements.facts.append(createElement('dt', {}, name), createElement('dd', {}, text));
  }
}

function showAgreement({ holds, bytes, differing, goldens, allowed, largest, inputs }) {
  const exact = `${differing} of ${bytes.toLocaleString('en')} bytes differ`;
  const difference =
    `the largest relative difference is ${largest.toExponential(1)} (limit ${allowed})`;
  const report = allowed ? `${exact}; ${difference}` : exact;
  elements.agreement.className = holds ? 'holds' : 'fails';
  elements.agreement.textContent = holds
    ? `This browser matches the reference: ${report} over ${goldens} test vectors.`
    : `Do not use this browser, because it does not match the reference: ${report}, and ${inputs}` +
      ` input values differ over ${goldens} test vectors.`;
}

/** Classify images in sequence; each job is {name, makePicture, classify}. */
function enqueue(jobs) {
  queue = queue.then(async () => {
    for (const [index, job] of jobs.entries()) {
      showStatus(`Image ${index + 1} of ${jobs.length}: ${job.name}`);
      Object.assign(elements.progress, { hidden: false, max: jobs.length, value: index });
      await new Promise((resume) => setTimeout(resume)); // lets the browser paint
      await classify(job);
    }
    showIdle();
  });
  return queue;
}

async function classify({ name, makePicture, classify: runClassifier }) {
  elements.none.hidden = true;
  for (const id of ['clear', 'save']) elements[id].disabled = false;
  try {
    const result = await runClassifier();
    classified.push({ name, result });
    elements.results.prepend(createCard(name, makePicture(formatSummary(result)), result));
    showSaturation(result.saturation);
    // #ifdef GUARD
    showGuard(result.guard);
    // #endif
  } catch (error) {
    elements.results.prepend(createFailureCard(name, error.message));
  }
}

function showSaturation(saturation) {
  if (!saturation) return;
  const { deviating, compared, images, reference } = saturation;
  elements.saturation.hidden = deviating === 0;
  elements.saturation.textContent =
    `In ${deviating} of ${compared} layers, more values clip on these ${images} images than on` +
    ` the ${reference} counted calibration images. The effect on accuracy is unknown.`;
}

// #ifdef GUARD
/** Show the alarm of the guard, or the note about this image, in place of the clipped values. */
function showGuard({ isUnusual, feature, text }) {
  const note =
    'The last image is unlike the calibration images (at most 1 in 20 normal ones is): ' + feature;
  elements.saturation.hidden = !text && !isUnusual;
  elements.saturation.textContent = text ? `${text[0].toUpperCase()}${text.slice(1)}.` : `${note}.`;
}

// #endif
function makeFileJob(file) {
  return {
    name: file.name,
    makePicture: (alt) => createElement('img', { src: URL.createObjectURL(file), alt }),
    classify: async () => classifier.classify(new Uint8Array(await file.arrayBuffer())),
  };
}

async function makeFrameJob() {
  const bitmap = await camera.captureFrame();
  const { width, height } = bitmap;
  const canvas = createElement('canvas', { width, height, role: 'img' });
  canvas.getContext('2d').drawImage(bitmap, 0, 0);
  photoCount += 1;
  return {
    name: `photo ${photoCount}`,
    makePicture: (alt) => {
      canvas.setAttribute('aria-label', alt);
      return canvas;
    },
    classify: async () => classifier.classifyPixels(readBitmap(bitmap)),
  };
}

function releaseImages(results) {
  for (const image of results.querySelectorAll('img')) URL.revokeObjectURL(image.src);
}

const isReady = () => document.documentElement.dataset.ready === 'yes';

elements.files.addEventListener('change', () => {
  enqueue([...elements.files.files].map(makeFileJob));
  elements.files.value = '';
});
for (const kind of ['dragover', 'dragenter']) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    elements.drop.classList.add('over');
  });
}
document.addEventListener('dragleave', () => elements.drop.classList.remove('over'));
document.addEventListener('drop', (event) => {
  event.preventDefault();
  elements.drop.classList.remove('over');
  if (isReady()) enqueue([...event.dataTransfer.files].map(makeFileJob));
});
document.addEventListener('paste', (event) => {
  if (isReady()) enqueue([...event.clipboardData.files].map(makeFileJob));
});
elements.camera.addEventListener('click', async () => {
  try {
    await camera.start();
    elements.viewfinder.hidden = false;
    elements.take.focus();
  } catch (error) {
    showStatus(`Cannot start the camera: ${error.message}`);
  }
});
elements.take.addEventListener('click', async () => enqueue([await makeFrameJob()]));
elements.stop.addEventListener('click', () => {
  camera.stop();
  elements.viewfinder.hidden = true;
  elements.camera.focus();
});
addEventListener('pagehide', () => camera.stop());
elements.clear.addEventListener('click', () => {
  releaseImages(elements.results);
  elements.results.replaceChildren();
  classified.length = 0;
  classifier.saturation?.reset();
  // #ifdef GUARD
  classifier.guard?.reset();
  // #endif
  for (const id of ['clear', 'save']) elements[id].disabled = true;
  elements.none.hidden = false;
  elements.saturation.hidden = true;
  showIdle();
  elements.files.focus();
});
elements.save.addEventListener('click', () => {
  const url = URL.createObjectURL(new Blob([toCsv(classified)], { type: 'text/csv' }));
  createElement('a', { href: url, download: 'classes.csv' }).click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
});
