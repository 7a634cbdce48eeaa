// A slide with the probabilities of its patches over it. `RESULT` is of result.js.
'use strict';

(() => {
  const { slide, image, grid, classes, patches, maps, facts, notice } = globalThis.RESULT;
  const LISTED = 50;
  const TILE = image.tile;
  const element = (id) => document.getElementById(id);
  const numbers = (text, Type) =>
    new Type(Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)).buffer);
  const places = numbers(patches.places, Uint32Array);
  const tumour = numbers(patches.tumour, Float32Array);
  const tissue = numbers(patches.tissue, Float32Array);
  const values = numbers(patches.classes, Float32Array);
  const positive = numbers(patches.positive, Uint8Array);
  const count = places.length;
  /** The number of the patch at each place of the grid, from 1 on; 0 where none is. */
  const numbered = new Uint32Array(grid.rows * grid.columns);
  for (let n = 0; n < count; n += 1) numbered[places[n]] = n + 1;
  const share = (value) => `${(100 * value).toFixed(1)} %`;
  const many = (value) => value.toLocaleString('en');

  let threshold = 0;
  let colours = table(Object.keys(maps)[0]);
  let version = 0;

  /** The patch that stands for a pixel of level 0, -1 where none does. */
  function patchAt(x, y) {
    const column = Math.floor((x - grid.inset) / grid.stride);
    const row = Math.floor((y - grid.inset) / grid.stride);
    const inside = x < slide.width && y < slide.height && x >= grid.inset && y >= grid.inset;
    if (!inside || column >= grid.columns || row >= grid.rows) return -1;
    return numbered[row * grid.columns + column] - 1;
  }

  /** The 256 colours of a map. */
  function table(name) {
    const [low, middle, high] = maps[name];
    return Array.from({ length: 256 }, (_, at) => {
      const [from, to, part] = at < 127.5 ? [low, middle, at / 127.5] : [middle, high, at / 127.5 - 1];
      return from.map((value, n) => Math.round(value + (to[n] - value) * part));
    });
  }

  /** Draw a tile of the heat map: a pixel has the colour of the patch under its middle. */
  function heatTile(level, x, y) {
    const canvas = document.createElement('canvas');
    canvas.width = canvas.height = TILE;
    const pen = canvas.getContext('2d');
    const pixels = pen.createImageData(TILE, TILE);
    const side = image.side * 2 ** (image.depth - level);
    for (let row = 0, at = 0; row < TILE; row += 1) {
      const middle = (y * TILE + row) * side + Math.floor(side / 2);
      for (let column = 0; column < TILE; column += 1, at += 4) {
        const n = patchAt((x * TILE + column) * side + Math.floor(side / 2), middle);
        if (n < 0 || tumour[n] < threshold) continue;
        pixels.data.set(colours[Math.round(tumour[n] * 255)], at);
        pixels.data[at + 3] = 255;
      }
    }
    pen.putImageData(pixels, 0, 0);
    return pen;
  }

  function source(url) {
    const made = new OpenSeadragon.TileSource({
      width: image.width, height: image.height, tileSize: TILE, tileOverlap: 0,
      minLevel: 0, maxLevel: image.depth,
    });
    made.getTileUrl = url;
    return made;
  }

  // Canvas, since pages that are opened as files may not hand their images to WebGL.
  const viewer = OpenSeadragon({
    element: element('slide'), drawer: 'canvas', showNavigationControl: false,
    crossOriginPolicy: false, visibilityRatio: 0.5, maxZoomPixelRatio: 8, gestureSettingsMouse: { clickToZoom: false, dblClickToZoom: true },
    gestureSettingsTouch: { clickToZoom: false }, gestureSettingsPen: { clickToZoom: false },
    tileSources: source((level, x, y) => `tiles/${level}/${x}_${y}.jpg`),
  });
  const heatSource = source((level, x, y) => `heat:${version}/${level}/${x}/${y}`);
  heatSource.downloadTileStart = (context) => {
    const [, level, x, y] = context.src.split('/').map(Number);
    context.finish(heatTile(level, x, y), null, 'context2d');
  };
  heatSource.downloadTileAbort = () => {};
  let heat;

  viewer.addHandler('open', () => {
    viewer.addTiledImage({
      tileSource: heatSource, opacity: Number(element('opacity').value),
      success: ({ item }) => {
        heat = item;
        document.documentElement.dataset.ready = 'yes';
      },
    });
  });
  viewer.canvas.setAttribute('role', 'application');
  viewer.canvas.setAttribute('aria-label', 'Slide: arrows move, plus and minus zoom, 0 shows all, '
    + 'Enter reads the patch in the middle');
  viewer.addHandler('canvas-key', (event) => {
    if (event.originalEvent.key !== 'Enter') return;
    chooseAt(viewer.viewport.getCenter());
    event.preventDefaultAction = true;
  });
  viewer.addHandler('canvas-click', (event) => {
    if (event.quick) chooseAt(viewer.viewport.pointFromPixel(event.position));
  });

  function chooseAt(point) {
    const { x, y } = viewer.world.getItemAt(0).viewportToImageCoordinates(point);
    choose(patchAt(Math.floor(x * image.side), Math.floor(y * image.side)));
  }

  function rectangle(n) {
    const [left, top] = corner(n);
    const side = grid.span / image.side;
    return viewer.world.getItemAt(0)
      .imageToViewportRectangle(left / image.side, top / image.side, side, side);
  }

  function corner(n) {
    const row = Math.floor(places[n] / grid.columns);
    return [(places[n] % grid.columns) * grid.stride, row * grid.stride];
  }

  /** Say what the network says of a patch, and draw a frame around it. */
  function choose(n) {
    viewer.clearOverlays();
    element('classes').replaceChildren();
    if (n < 0) {
      element('patch').textContent = 'No patch was classified here.';
      return;
    }
    const [x, y] = corner(n);
    element('patch').textContent = `Column ${many(x)}, row ${many(y)}: probability of tumour `
      + `${share(tumour[n])}; taken for ${positive[n] ? 'tumour' : 'normal'}.`;
    const said = classes.map((name, at) => [name, share(values[n * classes.length + at])]);
    fill('classes', [...said, ['tissue', share(tissue[n])]]);
    const frame = document.createElement('div');
    frame.className = 'chosen';
    viewer.addOverlay({ element: frame, location: rectangle(n) });
  }

  function fill(id, rows) {
    for (const [name, value] of rows) {
      const [term, text] = [document.createElement('dt'), document.createElement('dd')];
      [term.textContent, text.textContent] = [name, value];
      element(id).append(term, text);
    }
  }

  function redraw() {
    version += 1;
    if (heat) heat.reset();
    viewer.forceRedraw();
    say();
  }

  function say() {
    let above = 0;
    for (let n = 0; n < count; n += 1) above += tumour[n] >= threshold;
    element('threshold-said').textContent = threshold.toFixed(2);
    element('opacity-said').textContent = share(Number(element('opacity').value));
    element('count').textContent = `${many(above)} of ${many(count)} patches are shown.`;
  }

  element('opacity').addEventListener('input', (event) => {
    if (heat) heat.setOpacity(Number(event.target.value));
    say();
  });
  element('threshold').addEventListener('input', (event) => {
    threshold = Number(event.target.value);
    redraw();
  });
  element('colours').addEventListener('change', (event) => {
    colours = table(event.target.value);
    legend();
    redraw();
  });
  element('nearer').addEventListener('click', () => viewer.viewport.zoomBy(1.6));
  element('farther').addEventListener('click', () => viewer.viewport.zoomBy(1 / 1.6));
  element('whole').addEventListener('click', () => viewer.viewport.goHome());

  function legend() {
    const pen = element('legend').getContext('2d');
    colours.forEach((colour, at) => {
      pen.fillStyle = `rgb(${colour})`;
      pen.fillRect(at, 0, 1, 1);
    });
  }

  for (const name of Object.keys(maps)) element('colours').append(new Option(name, name));
  const order = Array.from(tumour.keys()).sort((a, b) => tumour[b] - tumour[a] || a - b);
  for (const n of order.slice(0, LISTED)) {
    const [line, button] = [document.createElement('li'), document.createElement('button')];
    button.type = 'button';
    button.textContent = `${share(tumour[n])} at column ${many(corner(n)[0])}, row ${many(corner(n)[1])}`;
    button.addEventListener('click', () => {
      const around = rectangle(n);
      viewer.viewport.fitBounds(new OpenSeadragon.Rect(
        around.x - around.width, around.y - around.height, 3 * around.width, 3 * around.height,
      ));
      choose(n);
    });
    line.append(button);
    element('list').append(line);
  }
  document.title = element('name').textContent = slide.name;
  element('weights').textContent = notice;
  fill('facts', facts);
  legend();
  say();
})();
