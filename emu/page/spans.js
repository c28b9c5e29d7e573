"use strict";
// The parts of memory as rows of cells, and which of them an effect touches.

// Regions and structures from the highest address to the lowest, each with how deep it lies in others.
function spans({ regions, structures, written }) {
  const all = regions.map(([start, end, name, kind, what]) => ({
    start: Number(start),
    end: Number(end),
    name,
    kind,
    what,
    fields: [],
  }));
  structures.forEach(([name, start, end, kind, , fields], index) => {
    const place = all.find((span) => span.start === start && (span.end === end || span.name === name));
    const versions = Map.groupBy(written[index], ([, field]) => field); // by the index of a field
    const held = { fields, versions };
    if (place) Object.assign(place, held);
    else all.push({ start: Number(start), end: Number(end), name, kind, what: "", ...held });
  });
  all.sort((one, other) => one.start - other.start || other.end - one.end);
  const open = [];
  for (const span of all) {
    while (open.length && open.at(-1).end <= span.start) open.pop();
    span.depth = open.length;
    open.push(span);
  }
  return topDown(all);
}

// Siblings from the highest down, each in front of what lies in it.
function topDown(all) {
  const groups = [];
  for (const span of all) {
    if (span.depth === 0) groups.push([span]);
    else groups.at(-1).push(span);
  }
  return groups.reverse().flatMap(([first, ...inner]) => {
    for (const span of inner) span.depth--;
    const below = inner.length ? topDown(inner) : [];
    for (const span of inner) span.depth++;
    return [first, ...below];
  });
}

const touches = (effect, start, size) => Number(effect.at) < start + size && Number(effect.at) + effect.length > start;

const overlaps = ({ span }, effect) => touches(effect, span.start, span.end - span.start);

// The cells of a row that an effect touches.
function cellsOf({ span, count }, effect) {
  const perCell = (span.end - span.start) / count;
  const first = Math.max(0, Math.floor((Number(effect.at) - span.start) / perCell));
  const last = Math.min(count - 1, Math.floor((Number(effect.at) + Math.max(effect.length, 1) - 1 - span.start) / perCell));
  return Array.from({ length: Math.max(0, last - first + 1) }, (_, index) => first + index);
}

// A picture of the cells that are wanted, neighbours as one.
function path({ count }, wanted) {
  let text = "";
  for (let cell = 0; cell < count; cell++) {
    if (!wanted(cell)) continue;
    const from = cell;
    while (cell + 1 < count && wanted(cell + 1)) cell++;
    text += `M${from} 0H${cell + 1}V1H${from}Z`;
  }
  return text;
}
