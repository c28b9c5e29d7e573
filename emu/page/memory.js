"use strict";
// Physical memory from the top down: what lies where, filled in as the steps store to it; structures open to their content.

const CELLS = 64; // at most, in a row: each is a part of it, of a short one a byte
const BEFORE = new Set(["rom", "alias", "kernel", "module"]); // what the host fills before the reset
const INERT = new Set(["hole", "device"]); // where nothing is stored

class Memory {
  constructor(trace) {
    this.trace = trace;
    this.rows = spans(trace.memory).map((span) => this.#row(span));
    this.#fill();
    this.picked = null; // the row that was clicked
    this.detail = el("div", { class: "detail", id: "memory-detail" });
    this.map = el(
      "div",
      { class: "map" },
      this.rows.map(({ item }) => item),
    );
    byId("memory").append(this.map, this.detail);
  }

  show(step) {
    this.step = step;
    const { trace } = this;
    const instruction = trace.instruction(step);
    const touched = trace.effectsOf(step).filter(({ kind }) => !PORTS.has(kind));
    if (instruction) touched.push({ kind: "fetch", at: instruction.address, length: instruction.code.length / 2 });
    this.seen = null; // the row to be seen
    for (const row of this.rows) {
      row.filled.setAttribute(
        "d",
        path(row, (cell) => row.written[cell] && row.written[cell] <= step),
      );
      const mine = touched.filter((effect) => overlaps(row, effect));
      for (const [kind, part] of Object.entries(row.parts)) {
        const those = mine.filter((effect) => partOf(effect.kind) === kind);
        const hit = new Set(those.flatMap((effect) => cellsOf(row, effect)));
        part.setAttribute("d", hit.size ? path(row, (cell) => hit.has(cell)) : "");
      }
      const told = mine.filter((effect) => row === this.#deepest(effect));
      put(row.told, WORDS.find(([kind]) => told.some((effect) => effect.kind === kind))?.[1] ?? "");
      const isTouched = told.some(({ kind }) => kind !== "fetch");
      row.button.classList.toggle("touched", isTouched);
      if (isTouched) this.seen = row.item;
    }
    this.#showDetail();
  }

  settle() {
    if (this.seen) reveal(this.map, this.seen.offsetTop, this.seen.offsetHeight);
  }

  // The name of what lies at an address, as in "start_info+0x8"; empty if nothing with a name does.
  nameOf(address) {
    const row = this.#deepest({ at: address, length: 1 });
    if (!row || INERT.has(row.span.kind) || row.span.kind === "ram") return "";
    const offset = Number(address) - row.span.start;
    const field = row.span.fields.findLast(([from, size]) => from <= offset && offset < from + size);
    if (field) return `${row.span.name}: ${field[2]}`;
    return offset ? `${row.span.name}+${hex(offset)}` : row.span.name;
  }

  #row(span) {
    const size = span.end - span.start;
    const count = Math.min(CELLS, size);
    const parts = {
      loads: svg("path", { class: "loads" }),
      stores: svg("path", { class: "stores" }),
      fetch: svg("path", { class: "fetch" }),
    };
    const filled = svg("path", { class: "filled" });
    const told = el("span", { class: "told" });
    const isInert = INERT.has(span.kind);
    const cells = svg(
      "svg",
      { class: "strip", viewBox: `0 0 ${count} 1`, preserveAspectRatio: "none", "aria-hidden": "true" },
      filled,
      Object.values(parts),
    );
    const button = el(
      "button",
      { type: "button", class: `span ${span.kind}`, "aria-controls": "memory-detail", "aria-expanded": "false" },
      el("span", { class: "name" }, span.name),
      told,
      el("span", { class: "size" }, about(size)),
      isInert ? null : cells,
    );
    const item = el("div", { class: "row" }, el("span", { class: "at" }, hex(span.start, 8).slice(2)), button);
    item.style.setProperty("--depth", span.depth);
    const row = { span, item, button, told, filled, parts, count, written: new Uint32Array(count), first: null, latest: [] };
    button.addEventListener("click", () => {
      this.picked = this.picked === row ? null : row;
      this.#showDetail();
    });
    return row;
  }

  // When each cell was stored to first, and which effects stored to each row.
  #fill() {
    const { effects, effect_kinds: kinds } = this.trace;
    for (let at = 0; at < effects.kind.length; at++) {
      if (!INTO_MEMORY.has(kinds[effects.kind[at]])) continue;
      const effect = this.trace.effect(at);
      for (const row of this.rows) {
        if (!overlaps(row, effect)) continue;
        row.latest.push(at);
        for (const cell of cellsOf(row, effect)) row.written[cell] ||= effect.step;
      }
    }
    for (const row of this.rows)
      row.item.classList.toggle(
        "before",
        BEFORE.has(row.span.kind) && !row.latest.some((at) => effects.step[at] < (this.trace.handoff ?? Infinity)),
      );
  }

  #deepest(effect) {
    let found = null;
    for (const row of this.rows) if (overlaps(row, effect) && (!found || row.span.depth >= found.span.depth)) found = row;
    return found;
  }

  // The structure that was stored to last.
  #lastStored() {
    let [found, latest] = [null, 0];
    for (const row of this.rows.filter(({ span }) => span.fields.length)) {
      const at = row.latest.findLast((index) => this.trace.effects.step[index] < this.step);
      const step = at === undefined ? 0 : this.trace.effects.step[at] + 1;
      if (step > latest) [found, latest] = [row, step];
    }
    return found;
  }

  #showDetail() {
    const row = this.picked ?? this.#lastStored();
    for (const other of this.rows) other.button.setAttribute("aria-expanded", other === row);
    if (!row)
      return this.detail.replaceChildren(
        el("p", {}, "Click a part to see what it holds; what a step stores to opens by itself."),
      );
    const { span } = row;
    const { step: records } = this.trace.effects;
    const count = row.latest.length;
    const next = row.latest.findIndex((at) => records[at] >= this.step);
    const soFar = next < 0 ? count : next;
    const link = (at) => stepLink(records[at] + 1);
    const range = `${hex(span.start)}–${hex(span.end - 1)}, ${bytes(span.end - span.start)}`;
    return this.detail.replaceChildren(
      el("h3", {}, span.name, el("small", {}, range)),
      ...(span.what ? [el("p", {}, span.what)] : []),
      el(
        "p",
        { class: "stores" },
        ...(count
          ? [
              `${soFar.toLocaleString("en")} of ${count.toLocaleString("en")} stores so far; the first is `,
              link(row.latest[0]),
              ...(count > 1 ? [", the last ", link(row.latest.at(-1))] : []),
            ]
          : [this.trace.sees_memory ? "No step stores here." : "The engine did not tell loads and stores."]),
      ),
      ...(span.fields.length ? [this.#fields(row)] : []),
    );
  }

  // A structure's fields with what they hold at this step, as far as it is known.
  #fields({ span }) {
    return el(
      "table",
      { class: "content" },
      el(
        "thead",
        {},
        el(
          "tr",
          {},
          ["+", "Field", "Value", "Written"].map((word) => el("th", { scope: "col" }, word)),
        ),
      ),
      el(
        "tbody",
        {},
        span.fields.map(([offset, , name, text, meaning], index) => {
          const versions = span.versions.get(index) ?? [];
          const version = begunBy(versions, this.step);
          const isLater = versions.length > 0 && !version;
          const [step, , value, words] = version ?? [0, index, text, meaning];
          const unwritten = isLater ? "" : this.trace.sees_memory ? "before" : "not told";
          return el(
            "tr",
            { class: `${isLater ? "later" : ""}${step && step === this.step ? " changed" : ""}` },
            el("td", {}, hex(offset).slice(2)),
            el("th", { scope: "row" }, name),
            el(
              "td",
              {},
              el("span", { class: "value" }, isLater ? "not written yet" : value),
              words && !isLater ? el("small", {}, words) : null,
            ),
            el("td", {}, step ? stepLink(step) : unwritten),
          );
        }),
      ),
    );
  }
}

const WORDS = [
  ["dma", "▸ DMA"],
  ["store", "▸ store"],
  ["write", "▸ write"],
  ["load", "◂ load"],
  ["read", "◂ read"],
  ["fetch", "runs"],
];

const partOf = (kind) => (kind === "fetch" ? "fetch" : INTO_MEMORY.has(kind) || kind === "write" ? "stores" : "loads");
