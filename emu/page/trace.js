"use strict";
// The trace as the payload has it, and the machine's state at any step.
//
// Step s, from 0 to the last one, is the machine after s instructions. Its record is the instruction that led there, s - 1.

const CHECKPOINT = 512; // steps between states that are kept

class Trace {
  constructor(data) {
    Object.assign(this, data);
    this.last = data.steps.length;
    this.register = new Map(data.registers.map((name, index) => [name, index]));
    this.changesFrom = sums(data.changes.counts);
    this.effectsFrom = starts(data.effects.step, this.last);
    this.sentence = new Map(Object.entries(data.says).map(([record, index]) => [Number(record), data.sentences[index]]));
    this.checkpoints = this.#checkpoints();
  }

  #checkpoints() {
    const state = [...this.before];
    const kept = [];
    for (let record = 0; record <= this.last; record++) {
      if (record % CHECKPOINT === 0) kept.push([...state]);
      if (record < this.last) this.#apply(state, record);
    }
    return kept;
  }

  #apply(state, record) {
    const { registers, values } = this.changes;
    for (let at = this.changesFrom[record]; at < this.changesFrom[record + 1]; at++) state[registers[at]] = values[at];
  }

  // All registers at a step, in the order of `registers`.
  state(step) {
    const state = [...this.checkpoints[Math.floor(step / CHECKPOINT)]];
    for (let record = step - (step % CHECKPOINT); record < step; record++) this.#apply(state, record);
    return state;
  }

  // The indices of the registers that the step has changed.
  changed(step) {
    return step ? this.changes.registers.slice(this.changesFrom[step - 1], this.changesFrom[step]) : [];
  }

  // The instruction that led to a step; none to the first one.
  instruction(step) {
    return step ? this.site(this.steps[step - 1]) : null;
  }

  // The instruction that comes next; none behind the last one.
  next(step) {
    return step < this.last ? this.site(this.steps[step]) : null;
  }

  site(index) {
    const [address, bits, code, text, place, file, line, cs, ip] = this.sites[index];
    return { index, address, bits, code, text, place, file, line, cs, ip };
  }

  // What the step did to memory and devices.
  effectsOf(step) {
    const found = [];
    if (step) for (let at = this.effectsFrom[step - 1]; at < this.effectsFrom[step]; at++) found.push(this.effect(at));
    return found;
  }

  effect(at) {
    const { step, kind, size, value, device, meaning, more } = this.effects;
    const [times, data] = more[at] ?? [1, ""];
    const name = this.effect_kinds[kind[at]];
    return {
      step: step[at] + 1,
      kind: name,
      at: this.effects.at[at],
      size: size[at],
      value: value[at],
      times,
      data,
      length: Number(size[at]) * (PORTS.has(name) ? 1 : times), // bytes of memory
      device: device[at] < 0 ? "" : this.devices[device[at]][0],
      meaning: meaning[at] < 0 ? "" : this.sentences[meaning[at]],
    };
  }

  // Which of the phases a step lies in.
  phaseOf(step) {
    return lastAtOrBefore(this.phases, Math.max(step - 1, 0));
  }

  // The words for the mode that the CPU is in at a step.
  modeAt(step) {
    return this.modes.length ? this.modes[lastAtOrBefore(this.modes, step)][1] : "";
  }

  // The nearest step behind this one (1), or up to it (-1), that changes a register; null if there is none.
  changeOf(register, step, direction) {
    const { registers } = this.changes;
    const from = this.changesFrom[step];
    const at = direction > 0 ? registers.indexOf(register, from) : from ? registers.lastIndexOf(register, from - 1) : -1;
    if (at < 0) return null;
    let low = 0;
    let high = this.last;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.changesFrom[middle + 1] <= at) low = middle + 1;
      else high = middle;
    }
    return low + 1;
  }

  // The step nearest to this one, forwards (1) or backwards (-1), that `wanted` says yes to; null if there is none.
  seek(step, direction, wanted) {
    for (let at = step + direction; at >= 1 && at <= this.last; at += direction) if (wanted(at)) return at;
    return null;
  }
}

const PORTS = new Set(["in", "out"]);
const ON_DEVICES = new Set(["in", "out", "read", "write"]);
const INTO_MEMORY = new Set(["store", "dma"]);
const TO_CPU = new Set(["in", "read", "load"]);

// Where each group begins, of groups of these sizes that follow one another.
function sums(counts) {
  const from = new Uint32Array(counts.length + 1);
  counts.forEach((count, index) => (from[index + 1] = from[index] + count));
  return from;
}

// Where those of each record begin, of sorted numbers of records.
function starts(records, count) {
  const from = new Uint32Array(count + 1);
  for (const record of records) from[record + 1]++;
  for (let record = 0; record < count; record++) from[record + 1] += from[record];
  return from;
}

// The index of the last row, of rows that begin with a step, that has begun by then; 0 if none has.
function lastAtOrBefore(rows, step) {
  let low = 0;
  let high = rows.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (rows[middle][0] <= step) low = middle + 1;
    else high = middle;
  }
  return Math.max(low - 1, 0);
}

// The last of such rows that has begun by then, if one has.
function begunBy(rows, step) {
  const row = rows[lastAtOrBefore(rows, step)];
  return row && row[0] <= step ? row : undefined;
}

// The JSON in gzip in base64.
async function unpack(text) {
  const packed = Uint8Array.from(atob(text.trim()), (character) => character.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}

// A number, or what is over 2^53 as it came, in hexadecimal.
function hex(value, digits = 1) {
  const text = typeof value === "number" ? value.toString(16) : String(value).slice(2);
  return `0x${text.padStart(digits, "0")}`;
}

// Bits of a number, or of one in hexadecimal.
function bitsOf(value, high, low) {
  return Number((BigInt(value) >> BigInt(low)) & ((1n << BigInt(high - low + 1)) - 1n));
}

// A count of bytes in the largest unit that it is whole in.
const bytes = (count) => inUnits(count, (left) => left % 1024 === 0);

// The same in few characters.
const about = (count) => inUnits(count, () => true);

function inUnits(count, goesOn) {
  const units = ["bytes", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (count >= 1024 && unit < units.length - 1 && goesOn(count)) {
    count /= 1024;
    unit++;
  }
  return count === 1 && !unit ? "1 byte" : `${count.toLocaleString("en", { maximumFractionDigits: 1 })} ${units[unit]}`;
}
