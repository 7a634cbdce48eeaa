// Display of results, and export as CSV.

const percent = new Intl.NumberFormat('en', {
  style: 'percent', minimumFractionDigits: 1, maximumFractionDigits: 1,
});
const CLASSES = 5;

export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

/** Format a value: in percent for probabilities, else as a number. */
export function shown(activation, value) {
  return activation === 'none' ? value.toPrecision(4) : percent.format(value);
}

/** Return the result of an image in one line. */
export function summary(result) {
  return result.outputs
    .map(({ ranked, decision, range, activation }) => {
      if (!ranked) return `values from ${range[0].toPrecision(4)} to ${range[1].toPrecision(4)}`;
      const [first] = ranked;
      const best = `${first.label} ${shown(activation, first.value)}`;
      return decision ? `${best}, decision: ${decision.join(', ') || 'none'}` : best;
    })
    .join('; ');
}

/** Return the card of an image. */
export function card(name, picture, result) {
  const text = element('div', {}, element('h3', {}, name));
  for (const output of result.outputs) {
    if (result.outputs.length > 1) text.append(element('p', { class: 'hint' }, output.name));
    text.append(output.ranked ? classes(output) : summary({ outputs: [output] }));
    if (output.decision) {
      text.append(element('p', {}, `Decision: ${output.decision.join(', ') || 'none'}`));
    }
  }
  for (const remark of result.remarks) text.append(element('p', { class: 'hint' }, remark));
  return element('li', {}, element('div', {}, picture), text);
}

/** Return the card of an image that could not be classified. */
export function failure(name, message) {
  const said = element('p', { class: 'notice' }, message);
  const what = element('div', {}, element('h3', {}, name), said);
  return element('li', { class: 'failed' }, element('div'), what);
}

function classes({ ranked, activation }) {
  const list = element('ol', { class: 'classes' });
  for (const { label, value } of ranked.slice(0, CLASSES)) {
    const bar = element('span', { class: 'bar', 'aria-hidden': 'true' });
    bar.style.width = activation === 'none' ? '0' : `${100 * value}%`;
    const share = element('span', { class: 'share' }, shown(activation, value));
    list.append(element('li', {}, bar, element('span', {}, label), share));
  }
  return list;
}

/** Return the results as CSV, one line per image and class. */
export function asCsv(results) {
  const rows = [['image', 'output', 'class', 'value', 'raw']];
  for (const { name, result } of results) {
    for (const output of result.outputs) {
      for (const { label, value, raw } of output.ranked ?? []) {
        rows.push([name, output.name, label, value, raw]);
      }
    }
  }
  return rows.map((row) => row.map(quoted).join(',')).join('\r\n') + '\r\n';
}

/** Return a CSV field; a text that looks like a formula gets a leading quote. */
function quoted(value) {
  if (typeof value === 'number') return String(value);
  const plain = /^[=+\-@\t\r]/.test(value) ? `'${value}` : value;
  return /[",\r\n]/.test(plain) ? `"${plain.replaceAll('"', '""')}"` : plain;
}
