// Display of results, and export as CSV.

const percentFormat = new Intl.NumberFormat('en', {
  style: 'percent', minimumFractionDigits: 1, maximumFractionDigits: 1,
});
const SHOWN_CLASSES = 5;

export function createElement(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

/** Format a value: a probability in percent, another value as a number. */
export function formatValue(activation, value) {
  return activation === 'none' ? value.toPrecision(4) : percentFormat.format(value);
}

/** Return a one-line text of the result of an image. */
export function formatSummary(result) {
  return result.outputs
    .map(({ ranked, decision, set, answered, range, activation }) => {
      if (!ranked) return `values from ${range[0].toPrecision(4)} to ${range[1].toPrecision(4)}`;
      const [topClass] = ranked;
      const topText = `${topClass.label} ${formatValue(activation, topClass.value)}`;
      return [
        topText,
        ...(decision ? [`decision: ${decision.join(', ') || 'none'}`] : []),
        ...(set ? [`set: ${set.join(', ')}`] : []),
        ...(answered === false ? ['no answer'] : []),
      ].join(', ');
    })
    .join('; ');
}

/** Return the card of an image. */
export function createCard(name, picture, result) {
  const text = createElement('div', {}, createElement('h3', {}, name));
  for (const output of result.outputs) {
    if (result.outputs.length > 1) text.append(createElement('p', { class: 'hint' }, output.name));
    text.append(output.ranked ? createClassList(output) : formatSummary({ outputs: [output] }));
    if (output.decision) {
      text.append(createElement('p', {}, `Decision: ${output.decision.join(', ') || 'none'}`));
    }
    if (output.set) text.append(createElement('p', {}, `Set: ${output.set.join(', ')}`));
    if (output.answered === false) {
      const notice = 'No answer: the two largest outputs are too close';
      text.append(createElement('p', { class: 'notice' }, notice));
    }
  }
  for (const remark of result.remarks) text.append(createElement('p', { class: 'hint' }, remark));
  return createElement('li', {}, createElement('div', {}, picture), text);
}

/** Return the card of an image that could not be classified. */
export function createFailureCard(name, message) {
  const notice = createElement('p', { class: 'notice' }, message);
  const body = createElement('div', {}, createElement('h3', {}, name), notice);
  return createElement('li', { class: 'failed' }, createElement('div'), body);
}

function createClassList({ ranked, activation }) {
  const list = createElement('ol', { class: 'classes' });
  for (const { label, value } of ranked.slice(0, SHOWN_CLASSES)) {
    const bar = createElement('span', { class: 'bar', 'aria-hidden': 'true' });
    bar.style.width = activation === 'none' ? '0' : `${100 * value}%`;
    const valueText = createElement('span', { class: 'share' }, formatValue(activation, value));
    list.append(createElement('li', {}, bar, createElement('span', {}, label), valueText));
  }
  return list;
}

/** Return the results as CSV, one line per image and class. */
export function toCsv(results) {
  const rows = [['image', 'output', 'class', 'value', 'raw']];
  for (const { name, result } of results) {
    for (const output of result.outputs) {
      for (const { label, value, raw } of output.ranked ?? []) {
        rows.push([name, output.name, label, value, raw]);
      }
    }
  }
  return rows.map((row) => row.map(quoteField).join(',')).join('\r\n') + '\r\n';
}

/** Return a CSV field; a text that looks like a formula gets a leading quote. */
function quoteField(value) {
  if (typeof value === 'number') return String(value);
  const escaped = /^[=+\-@\t\r]/.test(value) ? `'${value}` : value;
  return /[",\r\n]/.test(escaped) ? `"${escaped.replaceAll('"', '""')}"` : escaped;
}
