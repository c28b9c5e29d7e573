"use strict";
// The registers after a step: what it changed has a mark, and each opens to its bits.

const GENERAL = ["eax", "esi", "ebx", "edi", "ecx", "ebp", "edx", "esp"];
const WIDE = ["r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"];
const CONTROL = ["cr0", "eflags", "cr4", "efer"];
const SPARSE = ["cr4", "efer"]; // of which only those bits are shown that are ever set
const ADDRESSES = ["cr3", "gdtr_base", "gdtr_limit", "idtr_base", "idtr_limit"];

class State {
  constructor(trace, popover) {
    this.trace = trace;
    this.popover = popover;
    this.values = [];
    this.loads = Map.groupBy(trace.segment_loads, ([, register]) => register);
    this.cells = new Map(); // by register: its button, its value, and its bits
    const isUsed = (name) => trace.before[trace.register.get(name)] !== 0 || trace.changeOf(trace.register.get(name), 0, 1);
    this.segments = el("tbody");
    this.gdt = el("div", { class: "gdt" });
    byId("state").append(
      el(
        "div",
        { class: "registers" },
        [...GENERAL, ...WIDE.filter(isUsed)].map((name) => this.#plain(name)),
      ),
      el(
        "div",
        { class: "control" },
        CONTROL.map((name) => this.#withBits(name)),
      ),
      this.#segmentTable(),
      el(
        "div",
        { class: "registers wide" },
        ADDRESSES.filter((name) => name !== "cr3" || isUsed(name)).map((name) => this.#plain(name)),
      ),
      this.gdt,
    );
  }

  show(step) {
    const { trace } = this;
    this.step = step;
    this.values = trace.state(step);
    const before = step ? trace.state(step - 1) : this.values;
    const changed = new Set(trace.changed(step));
    for (const [register, cell] of this.cells) {
      const index = trace.register.get(register);
      put(cell.value, hex(this.values[index], cell.digits));
      const isChanged = changed.has(index);
      cell.owner.classList.toggle("changed", isChanged);
      const was = isChanged ? `was ${hex(before[index])}` : "";
      put(cell.was, was);
      cell.bits?.forEach(([bit, high, low]) => {
        const value = bitsOf(this.values[index], high, low);
        bit.classList.toggle("set", value !== 0);
        bit.classList.toggle("changed", isChanged && value !== bitsOf(before[index], high, low));
      });
    }
    this.#showSegments(changed, before);
    this.#showGdt();
    this.popover.update();
  }

  value(register) {
    return this.values[this.trace.register.get(register)];
  }

  #cell(name, digits, attributes, ...parts) {
    const value = el("span", { class: "value" });
    const was = el("span", { class: "was" });
    const owner = el(
      "button",
      { type: "button", "data-register": name, ...attributes },
      el("span", { class: "name" }, name.replace("_", " ")),
      value,
      was,
      ...parts,
    );
    const cell = { owner, value, was, digits };
    this.cells.set(name, cell);
    return cell;
  }

  #plain(name) {
    const digits = name.endsWith("limit") ? 4 : 8;
    const { owner } = this.#cell(name, digits, { class: "register" });
    this.popover.attach(owner, () => [
      el("p", { class: "title" }, el("b", {}, name.replace("_", " ")), ` ${hex(this.value(name))}`),
      el("p", {}, `${BigInt(this.value(name)).toLocaleString("en")} in decimal`),
      this.#changes(name),
    ]);
    return owner;
  }

  #withBits(name) {
    const bits = this.#bitsShown(name).map(([high, low, word]) => [el("span", { class: "bit" }, word), high, low]);
    const shown = bits.length ? bits.map(([bit]) => bit) : "no bit is ever set";
    const cell = this.#cell(name, 8, { class: "register" }, el("span", { class: "bits", "aria-hidden": "true" }, shown));
    cell.bits = bits;
    this.popover.attach(cell.owner, () => {
      const value = this.value(name);
      const old = this.step ? this.trace.state(this.step - 1)[this.trace.register.get(name)] : value;
      const fields = this.trace.bits[name].map(([high, low, word, meanings]) => {
        const held = bitsOf(value, high, low);
        return [high, low, word, held, meanings[held ? 1 : 0]];
      });
      return [
        el("p", { class: "title" }, el("b", {}, name), ` ${hex(value)}`),
        fieldTable(fields, (high, low) => bitsOf(value, high, low) !== bitsOf(old, high, low)),
        this.#changes(name),
      ];
    });
    return cell.owner;
  }

  #bitsShown(name) {
    const bits = this.trace.bits[name];
    if (!SPARSE.includes(name)) return bits;
    const register = this.trace.register.get(name);
    const { registers, values } = this.trace.changes;
    const held = [this.trace.before[register], ...values.filter((_, at) => registers[at] === register)];
    return bits.filter(([high, low]) => held.some((value) => bitsOf(value, high, low)));
  }

  // Links to where a register was changed last, and where it is next.
  #changes(name) {
    const register = this.trace.register.get(name);
    const last = this.trace.changeOf(register, this.step, -1);
    const next = this.trace.changeOf(register, this.step, 1);
    return el(
      "p",
      { class: "changes" },
      last ? ["last changed by ", stepLink(last)] : "not changed so far",
      "; ",
      next ? ["next by ", stepLink(next)] : "not changed later",
    );
  }

  #segmentTable() {
    this.rows = this.trace.segment_registers.map(([name, ...parts]) => {
      const [selector, base, limit] = parts.map((part) => ({ part, value: el("span", { class: "value" }) }));
      const button = el("button", { type: "button", class: "segment", "data-register": name }, name);
      const kind = el("td", { class: "kind" });
      const row = el(
        "tr",
        {},
        el("th", { scope: "row" }, button),
        ...[selector, base, limit].map(({ value }) => el("td", {}, value)),
        kind,
      );
      this.popover.attach(button, () => this.#segmentDetail(name, parts));
      this.segments.append(row);
      return { name, row, cells: [selector, base, limit], kind, parts };
    });
    return el(
      "table",
      { class: "segments" },
      el(
        "thead",
        {},
        el(
          "tr",
          {},
          ["", "Selector", "Base", "Limit", ""].map((word) => el("th", { scope: "col" }, word)),
        ),
      ),
      this.segments,
    );
  }

  #showSegments(changed, before) {
    for (const { name, cells, kind, row } of this.rows) {
      let isChanged = false;
      cells.forEach(({ part, value }, column) => {
        const index = this.trace.register.get(part);
        put(value, hex(this.values[index], column ? 8 : 4).slice(2));
        const differs = changed.has(index);
        isChanged ||= differs;
        value.classList.toggle("changed", differs);
        value.title = differs ? `was ${hex(before[index])}` : "";
      });
      row.classList.toggle("changed", isChanged);
      const descriptor = this.#descriptorOf(name);
      put(kind, descriptor ? kindOf(this.trace.descriptors[descriptor]) : "");
    }
  }

  // The descriptor that a segment register was loaded from, if it was.
  #descriptorOf(name) {
    const load = begunBy(this.loads.get(name) ?? [], this.step);
    return load && Number.parseInt(load[2], 16) === Number(this.value(name)) ? load[3] : null;
  }

  #segmentDetail(name, [selector, base, limit]) {
    const value = this.value(selector);
    const isProtected = bitsOf(this.value("cr0"), 0, 0);
    const fields = this.trace.selectors[hex(value, 4).slice(2)];
    const descriptor = this.#descriptorOf(name);
    const hidden = `base ${hex(this.value(base), 8)}, limit ${hex(this.value(limit), 8)}`;
    return [
      el("p", { class: "title" }, el("b", {}, name), ` ${hex(value, 4)}, ${hidden}`),
      isProtected && fields ? fieldTable(fields) : null,
      descriptor
        ? this.#descriptor(descriptor)
        : el(
            "p",
            {},
            isProtected
              ? "Not loaded since: it keeps what it held."
              : "Real mode: to load it sets the base to 16 times the selector, and leaves the limit.",
          ),
      this.#changes(selector),
    ].filter(Boolean);
  }

  #descriptor(descriptor) {
    return describeDescriptor(this.trace, descriptor);
  }

  // The GDT as it was in memory when it was last seen to change.
  #showGdt() {
    const found = begunBy(this.trace.gdts, this.step);
    if (found === this.table) return;
    this.table = found;
    if (!found) return this.gdt.replaceChildren();
    const [step, base, limit, descriptors] = found;
    const buttons = descriptors.map((descriptor, index) => {
      const fields = this.trace.descriptors[descriptor];
      const isEmpty = /^0*$/.test(descriptor);
      const button = el(
        "button",
        { type: "button", class: "entry" },
        el("span", { class: "name" }, hex(index * 8, 4)),
        el("span", { class: "value" }, descriptor),
        el("span", { class: "kind" }, isEmpty ? (index ? "empty" : "null") : kindOf(fields)),
      );
      this.popover.attach(button, () => [
        el("p", { class: "title" }, el("b", {}, `selector ${hex(index * 8, 4)}`)),
        describeDescriptor(this.trace, descriptor),
      ]);
      return el("li", {}, button);
    });
    return this.gdt.replaceChildren(
      el("h3", {}, "GDT ", el("small", {}, `at ${hex(base)}, limit ${hex(limit)}, as of `, stepLink(step))),
      el("ol", {}, buttons),
    );
  }
}

const stepLink = (step) => el("a", { href: `#step=${step}` }, `step ${step}`);

// A descriptor's bits as cells, and what each of them means.
function describeDescriptor(trace, descriptor) {
  const fields = trace.descriptors[descriptor];
  const perRow = window.innerWidth < 640 ? 16 : 32;
  return el(
    "div",
    {},
    el("p", { class: "raw" }, `0x${descriptor}`),
    descriptorCells(`0x${descriptor}`, fields, perRow),
    fieldTable(fields),
  );
}

// In a few words what a descriptor is for.
function kindOf(fields) {
  const means = (name) => fields?.find((field) => field[2] === name)?.[4] ?? "";
  const isPresent = !means("P").startsWith("not");
  const width = /code/.test(means("type")) ? (/^64/.test(means("L")) ? "64-bit " : `${means("D/B").split(" ")[0]} `) : "";
  const type = means("type").replace(/(, readable|, writable)?(, accessed|, busy|, available)?$/, "");
  return `${width}${type}${isPresent ? "" : ", not present"}`;
}
