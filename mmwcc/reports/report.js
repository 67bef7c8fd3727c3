'use strict';

const SVG = 'http://www.w3.org/2000/svg';
const DASHES = ['', '7 3', '2 3', '9 3 2 3'];
const PALETTE = 8;
const charts = JSON.parse(document.getElementById('charts').textContent);
const format = new Intl.NumberFormat('en', {maximumSignificantDigits: 4});

function element(parent, name, attributes = {}, text = '') {
  const made = name in {ul: 0, li: 0, div: 0, b: 0, span: 0} ? document.createElement(name)
    : document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== '') made.textContent = text;
  return parent.appendChild(made);
}

const color = index => `var(--s${index % PALETTE})`;
const dash = series => DASHES[(Math.floor(series.index / PALETTE) + series.dash) % DASHES.length];

// Round numbers from low to high, about `count` of them; powers of ten and their simple multiples on a log axis.
function ticks(low, high, count, log) {
  if (log) {
    const found = [];
    for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power++) {
      for (const digit of [1, 2, 5]) found.push(digit * 10 ** power);
    }
    const inside = found.filter(value => value >= low && value <= high);
    return inside.length > 6 ? inside.filter(value => Number.isInteger(Math.log10(value))) : inside;
  }
  const rough = (high - low) / count, unit = 10 ** Math.floor(Math.log10(rough));
  const step = unit * [1, 2, 5, 10].find(factor => factor * unit >= rough);
  const found = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) found.push(i * step || 0);
  return found;
}

// The range of some numbers with a margin, as [low, high].
function range(values, log) {
  let low = Math.min(...values), high = Math.max(...values);
  if (log) return [low / 1.25, high * 1.25];
  const margin = (high - low || Math.abs(high) || 1) * 0.06;
  return [low - margin, high + margin];
}

function scale([low, high], [start, end], log) {
  const position = log ? Math.log : value => value;
  return value => start + (end - start) * (position(value) - position(low)) / (position(high) - position(low));
}

function mark(parent, shape, x, y, index) {
  const paths = [`M-5 0a5 5 0 1 0 10 0a5 5 0 1 0-10 0`, 'M-5-5h10v10h-10z', 'M0-6.5L6.5 0L0 6.5L-6.5 0z',
    'M0-6L6 5H-6z'];
  return element(parent, 'path', {class: 'mark', d: paths[shape % paths.length], transform: `translate(${x} ${y})`,
    style: `fill:${color(index)}`});
}

function axes(svg, chart, box, x, y, xs, ys) {
  for (const value of ticks(...ys, 5, false)) {
    element(svg, 'path', {class: 'grid', d: `M${box.left} ${y(value)}H${box.right}`});
    element(svg, 'text', {x: box.left - 6, y: y(value) + 4, 'text-anchor': 'end'}, format.format(value));
  }
  for (const value of ticks(...xs, Math.max(3, Math.floor((box.right - box.left) / 90)), chart.log)) {
    element(svg, 'path', {class: 'grid', d: `M${x(value)} ${box.bottom}v4`});
    element(svg, 'text', {x: x(value), y: box.bottom + 17, 'text-anchor': 'middle'}, format.format(value));
  }
  element(svg, 'text', {x: (box.left + box.right) / 2, y: box.bottom + 36, 'text-anchor': 'middle'}, chart.x);
}

// Write names beside points where they collide with nothing: right, left, above or below, else not at all.
function labels(svg, box, points) {
  const taken = points.map(({px, py}) => [px - 7, py - 7, px + 7, py + 7]);
  for (const {px, py, name} of points) {
    for (const [x, y, anchor] of [[px + 10, py + 4, 'start'], [px - 10, py + 4, 'end'], [px, py - 12, 'middle'],
      [px, py + 21, 'middle']]) {
      const text = element(svg, 'text', {class: 'label', x, y, 'text-anchor': anchor}, name);
      const bounds = text.getBBox();
      const area = [bounds.x, bounds.y, bounds.x + bounds.width, bounds.y + bounds.height];
      const free = area[0] >= box.left && area[2] <= box.right && area[1] >= box.top - 4 && area[3] <= box.bottom
        && !taken.some(other => area[0] < other[2] && other[0] < area[2] && area[1] < other[3] && other[1] < area[3]);
      if (free) {
        taken.push(area);
        break;
      }
      text.remove();
    }
  }
}

function tip(figure, x, title, lines) {
  let box = figure.querySelector('.tip');
  if (!lines) return box && box.remove();
  if (!box) box = element(figure, 'div', {class: 'tip'});
  box.replaceChildren();
  element(box, 'b', {}, title);
  for (const line of lines) {
    const row = element(box, 'div');
    element(row, 'span', {class: 'swatch', style: `--series:${color(line.index)}`});
    row.append(line.text);
  }
  box.style.top = '2rem';
  box.style.left = `${Math.max(0, Math.min(x + 14, figure.clientWidth - box.offsetWidth))}px`;
  if (x + 14 + box.offsetWidth > figure.clientWidth) {
    box.style.left = `${Math.max(0, x - 14 - box.offsetWidth)}px`;
  }
}

// The range of a curve at a step, in words; empty where it has none.
function spread(series, step) {
  const found = series.band.find(range => range[0] === step);
  return found ? ` (${format.format(found[1])} to ${format.format(found[2])})` : '';
}

// What the pointer is on: the nearest step of every curve, or the nearest point of a scatter.
function readout(chart, at, x, y) {
  if (chart.points) {
    const all = chart.series.flatMap(series => series.points.map(([px, py]) => ({series, px, py})));
    const gap = point => Math.hypot(x(point.px) - at.x, y(point.py) - at.y);
    const near = all.reduce((best, point) => gap(point) < gap(best) ? point : best);
    return {step: near.px, title: near.series.name, lines: [{index: near.series.index,
      text: `${chart.y} ${format.format(near.py)} at ${format.format(near.px)} ${chart.x}`}]};
  }
  const steps = [...new Set(chart.series.flatMap(series => series.points.map(point => point[0])))];
  const step = steps.reduce((best, value) => Math.abs(x(value) - at.x) < Math.abs(x(best) - at.x) ? value : best);
  const lines = chart.series.flatMap(series => series.points.filter(point => point[0] === step)
    .map(point => ({index: series.index, text: `${series.name}: ${format.format(point[1])}${spread(series, step)}`})));
  return {step, title: `${chart.x} ${format.format(step)}`, lines};
}

function follow(figure, svg, chart, box, x, y) {
  const leave = () => {
    tip(figure);
    svg.querySelector('.cursor')?.remove();
  };
  svg.onpointermove = event => {
    const bounds = svg.getBoundingClientRect();
    const found = readout(chart, {x: event.clientX - bounds.left, y: event.clientY - bounds.top}, x, y);
    const place = x(found.step);
    svg.querySelector('.cursor')?.remove();
    element(svg, 'path', {class: 'cursor', d: `M${place} ${box.top}V${box.bottom}`});
    tip(figure, place, found.title, found.lines);
  };
  svg.onpointerleave = svg.onpointercancel = leave;
}

// Shade the range around a curve, which goes forth along its lows and back along its highs.
function band(svg, series, x, y) {
  if (series.band.length < 2) return;
  const lows = series.band.map(([step, low]) => `${x(step)} ${y(low)}`);
  const highs = series.band.map(([step, , high]) => `${x(step)} ${y(high)}`).reverse();
  element(svg, 'path', {class: 'band', d: `M${[...lows, ...highs].join('L')}Z`,
    style: `fill:${color(series.index)}`});
}

function draw(figure, chart) {
  const svg = figure.querySelector('svg');
  const width = svg.clientWidth, height = svg.clientHeight;
  if (!width || Number(svg.dataset.width) === width) return;
  svg.dataset.width = width;
  svg.setAttribute('viewBox', `0 0 ${width} ${height}`);
  svg.replaceChildren();
  const points = chart.series.flatMap(series => series.points);
  const box = {left: 48, right: width - 12, top: 10, bottom: height - 44};
  const xs = chart.points ? range(points.map(point => point[0]), chart.log)
    : [Math.min(0, ...points.map(point => point[0])), Math.max(...points.map(point => point[0])) || 1];
  const bands = chart.series.flatMap(series => series.band.flatMap(([, low, high]) => [low, high]));
  const ys = range([...points.map(point => point[1]), ...bands], false);
  const x = scale(xs, [box.left, box.right], chart.log), y = scale(ys, [box.bottom, box.top], false);
  axes(svg, chart, box, x, y, xs, ys);
  for (const series of chart.series) band(svg, series, x, y);
  for (const series of chart.series) {
    const places = series.points.map(([px, py]) => [x(px), y(py)]);
    if (!chart.points && places.length > 1) {
      element(svg, 'path', {d: 'M' + places.map(place => place.join(' ')).join('L'),
        style: `stroke:${color(series.index)}`, 'stroke-dasharray': dash(series)});
    }
    // Marks where they are not crowded; a curve alone carries its colour and dashes.
    const spread = places.length > 1 ? (places.at(-1)[0] - places[0][0]) / (places.length - 1) : Infinity;
    if (chart.points || spread > 24) {
      for (const place of places) mark(svg, series.index, ...place, series.index);
    }
  }
  if (chart.points) {
    labels(svg, box, chart.series.flatMap(series => series.points.map(
      ([px, py]) => ({px: x(px), py: y(py), name: series.name}))));
  }
  follow(figure, svg, chart, box, x, y);
}

function legend(figure, chart) {
  const list = element(figure, 'ul', {class: 'legend'});
  for (const series of chart.series) {
    const item = element(list, 'li');
    const sample = element(item, 'svg', {viewBox: '0 0 30 12', 'aria-hidden': 'true'});
    if (!chart.points) {
      element(sample, 'path', {d: 'M0 6H30', style: `stroke:${color(series.index)}`,
        'stroke-dasharray': dash(series)});
    }
    mark(sample, series.index, 15, 6, series.index);
    item.append(series.name);
  }
}

for (const figure of document.querySelectorAll('.chart')) {
  const chart = charts[figure.dataset.chart];
  legend(figure, chart);
  new ResizeObserver(() => draw(figure, chart)).observe(figure);
  draw(figure, chart);
}

function cellValue(row, column) {
  const cell = row.cells[column], number = parseFloat(cell.dataset.value);
  return 'value' in cell.dataset ? (Number.isNaN(number) ? null : number) : cell.textContent.trim().toLowerCase();
}

// Sort by a column; what is missing stays at the end, and equal rows in their order.
function sort(header) {
  const table = header.closest('table'), column = header.cellIndex;
  const descending = header.getAttribute('aria-sort') === 'ascending';
  for (const other of header.parentNode.cells) {
    if (other.hasAttribute('aria-sort')) other.setAttribute('aria-sort', 'none');
  }
  header.setAttribute('aria-sort', descending ? 'descending' : 'ascending');
  const rows = [...table.tBodies[0].rows].map(row => [cellValue(row, column), row]);
  rows.sort(([a], [b]) => {
    if (a === null || b === null) return (a === null) - (b === null);
    const order = typeof a === 'number' ? a - b : a.localeCompare(b, 'en', {numeric: true});
    return descending ? -order : order;
  });
  table.tBodies[0].append(...rows.map(([, row]) => row));
}

for (const button of document.querySelectorAll('th[aria-sort] button')) {
  button.onclick = () => sort(button.closest('th'));
}

function filterLayers() {
  const model = document.getElementById('layer-model').value;
  const words = document.getElementById('layer-text').value.toLowerCase().split(/\s+/).filter(Boolean);
  const table = document.querySelector('#layers table'), rows = [...table.tBodies[0].rows];
  let shown = 0;
  table.classList.toggle('one-model', model !== '');
  for (const row of rows) {
    const text = row.textContent.toLowerCase();
    row.hidden = (model !== '' && row.dataset.model !== model) || !words.every(word => text.includes(word));
    shown += !row.hidden;
  }
  document.getElementById('layer-count').textContent = `${shown} of ${rows.length} rows`;
}

const controls = document.querySelector('#layers .controls');
if (controls) {
  controls.hidden = false;
  controls.oninput = filterLayers;
  filterLayers();
}

const dark = matchMedia('(prefers-color-scheme: dark)');
const toggle = document.getElementById('theme');
const isDark = () => (document.documentElement.style.colorScheme || (dark.matches ? 'dark' : 'light')) === 'dark';
function nameToggle() {
  toggle.textContent = isDark() ? 'Light' : 'Dark';
  toggle.setAttribute('aria-label', `Switch to ${isDark() ? 'light' : 'dark'} colours`);
}
toggle.onclick = () => {
  document.documentElement.style.colorScheme = isDark() ? 'light' : 'dark';
  nameToggle();
};
dark.onchange = nameToggle;
toggle.hidden = false;
nameToggle();
