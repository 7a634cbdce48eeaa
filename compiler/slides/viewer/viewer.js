// Shows a slide with a heat map of its patches' probabilities. result.js defines `RESULT`.
'use strict';

(() => {
  const { slide, image, grid, classes, patches, maps, facts, notice } = globalThis.RESULT;
  const LISTED_PATCHES = 50;
  const TILE_SIZE = image.tile;
  const getElement = (id) => document.getElementById(id);
  const decodeArray = (text, Type) =>
    new Type(Uint8Array.from(atob(text), (character) => character.charCodeAt(0)).buffer);
  const gridIndices = decodeArray(patches.places, Uint32Array);
  const tumour = decodeArray(patches.tumour, Float32Array);
  const tissue = decodeArray(patches.tissue, Float32Array);
  const values = decodeArray(patches.classes, Float32Array);
  const positive = decodeArray(patches.positive, Uint8Array);
  const count = gridIndices.length;
  /** Index of the patch in each grid cell plus 1; 0 in cells without a patch. */
  const patchByCell = new Uint32Array(grid.rows * grid.columns);
  for (let n = 0; n < count; n += 1) patchByCell[gridIndices[n]] = n + 1;
  const formatShare = (value) => `${(100 * value).toFixed(1)} %`;
  const formatCount = (value) => value.toLocaleString('en');

  let threshold = 0;
  let colours = makeColours(Object.keys(maps)[0]);
  let version = 0;

  /** Return the index of the patch that covers a pixel of level 0; -1 if there is none. */
  function findPatch(x, y) {
    const column = Math.floor((x - grid.inset) / grid.stride);
    const row = Math.floor((y - grid.inset) / grid.stride);
    const isInside = x < slide.width && y < slide.height && x >= grid.inset && y >= grid.inset;
    if (!isInside || column >= grid.columns || row >= grid.rows) return -1;
    return patchByCell[row * grid.columns + column] - 1;
  }

  /** Return the 256 colours of a colour map. */
  function makeColours(name) {
    const [low, middle, high] = maps[name];
    return Array.from({ length: 256 }, (_, index) => {
      const [from, to, fraction] = index < 127.5
        ? [low, middle, index / 127.5]
        : [middle, high, index / 127.5 - 1];
      return from.map((value, channel) => Math.round(value + (to[channel] - value) * fraction));
    });
  }

  /** Draw a tile of the heat map; each pixel has the colour of the patch at its center. */
  function drawHeatTile(level, x, y) {
    const canvas = document.createElement('canvas');
    canvas.width = canvas.height = TILE_SIZE;
    const context = canvas.getContext('2d');
    const pixels = context.createImageData(TILE_SIZE, TILE_SIZE);
    const pixelSize = image.side * 2 ** (image.depth - level);
    const half = Math.floor(pixelSize / 2);
    for (let row = 0, offset = 0; row < TILE_SIZE; row += 1) {
      const centerY = (y * TILE_SIZE + row) * pixelSize + half;
      for (let column = 0; column < TILE_SIZE; column += 1, offset += 4) {
        const patch = findPatch((x * TILE_SIZE + column) * pixelSize + half, centerY);
        if (patch < 0 || tumour[patch] < threshold) continue;
        pixels.data.set(colours[Math.round(tumour[patch] * 255)], offset);
        pixels.data[offset + 3] = 255;
      }
    }
    context.putImageData(pixels, 0, 0);
    return context;
  }

  function makeTileSource(url) {
    const tileSource = new OpenSeadragon.TileSource({
      width: image.width, height: image.height, tileSize: TILE_SIZE, tileOverlap: 0,
      minLevel: 0, maxLevel: image.depth,
    });
    tileSource.getTileUrl = url;
    return tileSource;
  }

  // WebGL may not read the images of a page that is opened as a file, so draw on a canvas.
  const viewer = OpenSeadragon({
    element: getElement('slide'), drawer: 'canvas', showNavigationControl: false,
    crossOriginPolicy: false, visibilityRatio: 0.5, maxZoomPixelRatio: 8,
    gestureSettingsMouse: { clickToZoom: false, dblClickToZoom: true },
    gestureSettingsTouch: { clickToZoom: false }, gestureSettingsPen: { clickToZoom: false },
    tileSources: makeTileSource((level, x, y) => `tiles/${level}/${x}_${y}.jpg`),
  });
  const heatSource = makeTileSource((level, x, y) => `heat:${version}/${level}/${x}/${y}`);
  heatSource.downloadTileStart = (context) => {
    const [, level, x, y] = context.src.split('/').map(Number);
    context.finish(drawHeatTile(level, x, y), null, 'context2d');
  };
  heatSource.downloadTileAbort = () => {};
  let heatMap;

  viewer.addHandler('open', () => {
    viewer.addTiledImage({
      tileSource: heatSource, opacity: Number(getElement('opacity').value),
      success: ({ item }) => {
        heatMap = item;
        document.documentElement.dataset.ready = 'yes';
      },
    });
  });
  viewer.canvas.setAttribute('role', 'application');
  viewer.canvas.setAttribute('aria-label', 'Slide: press the arrow keys to move, plus and minus to '
    + 'zoom, 0 to show the full slide, Enter to select the patch in the center');
  viewer.addHandler('canvas-key', (event) => {
    if (event.originalEvent.key !== 'Enter') return;
    selectPatchAt(viewer.viewport.getCenter());
    event.preventDefaultAction = true;
  });
  viewer.addHandler('canvas-click', (event) => {
    if (event.quick) selectPatchAt(viewer.viewport.pointFromPixel(event.position));
  });

  function selectPatchAt(point) {
    const { x, y } = viewer.world.getItemAt(0).viewportToImageCoordinates(point);
    selectPatch(findPatch(Math.floor(x * image.side), Math.floor(y * image.side)));
  }

  function getPatchBounds(patch) {
    const [left, top] = getPatchCorner(patch);
    const side = grid.span / image.side;
    return viewer.world.getItemAt(0)
      .imageToViewportRectangle(left / image.side, top / image.side, side, side);
  }

  function getPatchCorner(patch) {
    const row = Math.floor(gridIndices[patch] / grid.columns);
    return [(gridIndices[patch] % grid.columns) * grid.stride, row * grid.stride];
  }

  function formatPosition(patch) {
    const [x, y] = getPatchCorner(patch);
    return `Column ${formatCount(x)}, row ${formatCount(y)}`;
  }

  /** Show the probabilities of a patch and outline it on the slide. */
  function selectPatch(patch) {
    viewer.clearOverlays();
    getElement('classes').replaceChildren();
    if (patch < 0) {
      getElement('patch').textContent = 'No patch was classified here.';
      return;
    }
    getElement('patch').textContent = `${formatPosition(patch)}: tumour probability `
      + `${formatShare(tumour[patch])}, classified as ${positive[patch] ? 'tumour' : 'normal'}.`;
    const first = patch * classes.length;
    const classRows = classes.map((name, index) => [name, formatShare(values[first + index])]);
    appendRows('classes', [...classRows, ['tissue', formatShare(tissue[patch])]]);
    const outline = document.createElement('div');
    outline.className = 'chosen';
    viewer.addOverlay({ element: outline, location: getPatchBounds(patch) });
  }

  function appendRows(id, rows) {
    for (const [name, value] of rows) {
      const [term, text] = [document.createElement('dt'), document.createElement('dd')];
      [term.textContent, text.textContent] = [name, value];
      getElement(id).append(term, text);
    }
  }

  function redraw() {
    version += 1;
    if (heatMap) heatMap.reset();
    viewer.forceRedraw();
    showCounts();
  }

  function showCounts() {
    let shownCount = 0;
    for (let n = 0; n < count; n += 1) shownCount += tumour[n] >= threshold;
    getElement('threshold-value').textContent = threshold.toFixed(2);
    getElement('opacity-value').textContent = formatShare(Number(getElement('opacity').value));
    getElement('count').textContent =
      `${formatCount(shownCount)} of ${formatCount(count)} patches are shown.`;
  }

  getElement('opacity').addEventListener('input', (event) => {
    if (heatMap) heatMap.setOpacity(Number(event.target.value));
    showCounts();
  });
  getElement('threshold').addEventListener('input', (event) => {
    threshold = Number(event.target.value);
    redraw();
  });
  getElement('colours').addEventListener('change', (event) => {
    colours = makeColours(event.target.value);
    drawLegend();
    redraw();
  });
  getElement('zoom-in').addEventListener('click', () => viewer.viewport.zoomBy(1.6));
  getElement('zoom-out').addEventListener('click', () => viewer.viewport.zoomBy(1 / 1.6));
  getElement('whole').addEventListener('click', () => viewer.viewport.goHome());

  function drawLegend() {
    const context = getElement('legend').getContext('2d');
    colours.forEach((colour, index) => {
      context.fillStyle = `rgb(${colour})`;
      context.fillRect(index, 0, 1, 1);
    });
  }

  for (const name of Object.keys(maps)) getElement('colours').append(new Option(name, name));
  const patchesByProbability =
    Array.from(tumour.keys()).sort((a, b) => tumour[b] - tumour[a] || a - b);
  for (const patch of patchesByProbability.slice(0, LISTED_PATCHES)) {
    const [line, button] = [document.createElement('li'), document.createElement('button')];
    button.type = 'button';
    button.textContent = `${formatPosition(patch)}: ${formatShare(tumour[patch])}`;
    button.addEventListener('click', () => {
      const bounds = getPatchBounds(patch);
      viewer.viewport.fitBounds(new OpenSeadragon.Rect(
        bounds.x - bounds.width, bounds.y - bounds.height, 3 * bounds.width, 3 * bounds.height,
      ));
      selectPatch(patch);
    });
    line.append(button);
    getElement('list').append(line);
  }
  document.title = getElement('name').textContent = slide.name;
  getElement('weights').textContent = notice;
  appendRows('facts', facts);
  drawLegend();
  showCounts();
})();
