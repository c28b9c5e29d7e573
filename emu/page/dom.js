"use strict";
// Small helpers for the document: elements, pictures, a popover, and a list of which only what is seen exists.

const SVG = "http://www.w3.org/2000/svg";

const byId = (id) => document.getElementById(id);

// An element; attributes that are false or null are left out, children that are null, too.
function el(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null));
  return element;
}

// Sets a text only where it differs: a layout costs more than a comparison.
function put(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

// Scrolls a pane, and nothing else, so that a child is seen with some of what is around it.
function reveal(pane, top, height) {
  const room = pane.clientHeight;
  const from = pane.scrollTop;
  if (top < from + room * 0.15 || top + height > from + room * 0.8) pane.scrollTop = Math.max(0, top - room * 0.4);
}

// A table of bit fields, [high, low, name, value, meaning], from the highest; `changed(high, low)` marks a row.
function fieldTable(fields, changed = () => false) {
  return el(
    "table",
    { class: "fields" },
    el("thead", {}, el("tr", {}, ...["Bits", "Name", "Value", "Meaning"].map((word) => el("th", { scope: "col" }, word)))),
    el(
      "tbody",
      {},
      fields.map(([high, low, name, value, meaning]) =>
        el(
          "tr",
          { class: `${value ? "set" : "clear"}${changed(high, low) ? " changed" : ""}`, "data-bits": `${high}:${low}` },
          el("td", {}, high === low ? `${high}` : `${high}:${low}`),
          el("th", { scope: "row" }, name),
          el("td", {}, high === low ? `${value}` : hex(value)),
          el("td", {}, meaning),
        ),
      ),
    ),
  );
}

// The 64 bits of a descriptor, cells grouped by field, in rows of 32 or of 16.
function descriptorCells(value, fields, perRow) {
  const rows = [];
  for (let top = 63; top > 0; top -= perRow) {
    const row = el("div", { class: "cells" });
    for (const [high, low, name, , meaning] of fields) {
      const from = Math.min(high, top);
      const to = Math.max(low, top - perRow + 1);
      if (from < to) continue;
      const digits = Array.from({ length: from - to + 1 }, (_, index) =>
        el("i", {}, `${bitsOf(value, from - index, from - index)}`),
      );
      const group = el("div", { class: "group", title: `${name}: ${meaning}`, "data-bits": `${high}:${low}` });
      group.style.setProperty("--bits", from - to + 1);
      group.append(el("span", { class: "digits" }, digits), el("span", { class: "name" }, name));
      row.append(group);
    }
    rows.push(el("div", { class: "ends" }, el("span", {}, `${top}`), el("span", {}, `${top - perRow + 1}`)), row);
  }
  return el("div", { class: "descriptor", "aria-hidden": "true" }, rows);
}

// One popover for all that have one: it shows on hover, on focus and on a tap, stays while the mouse is on it, and Escape closes it.
class Popover {
  constructor(element) {
    this.element = element;
    this.owner = null;
    this.content = new WeakMap();
    element.addEventListener("pointerenter", () => clearTimeout(this.timer));
    element.addEventListener("pointerleave", () => this.#later(() => this.close()));
    element.addEventListener("pointerover", (event) => this.#mark(event.target));
    window.addEventListener("resize", () => this.close());
    document.addEventListener("scroll", () => this.owner && this.#place(), { capture: true, passive: true });
    document.addEventListener("pointerdown", (event) => {
      if (this.owner && !this.owner.contains(event.target) && !element.contains(event.target)) this.close();
    });
  }

  // Has a focusable element show what `content()` gives.
  attach(owner, content) {
    this.content.set(owner, content);
    owner.addEventListener("pointerenter", (event) => event.pointerType === "mouse" && this.#later(() => this.open(owner)));
    owner.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && this.#later(() => this.close()));
    owner.addEventListener("focus", () => owner.matches(":focus-visible") && this.open(owner));
    owner.addEventListener("blur", () => this.owner === owner && this.close());
    owner.addEventListener("click", () => this.open(owner));
  }

  open(owner) {
    clearTimeout(this.timer);
    if (this.owner !== owner) this.close();
    this.owner = owner;
    this.update();
    this.element.hidden = false;
    owner.setAttribute("aria-describedby", this.element.id);
    this.#place();
  }

  // What it shows, anew: the step has changed.
  update() {
    if (this.owner) this.element.replaceChildren(...[this.content.get(this.owner)()].flat());
  }

  close() {
    clearTimeout(this.timer);
    this.owner?.removeAttribute("aria-describedby");
    this.owner = null;
    this.element.hidden = true;
  }

  #later(act) {
    clearTimeout(this.timer);
    this.timer = setTimeout(act, 120);
  }

  #mark(target) {
    const bits = target.closest("[data-bits]")?.dataset.bits;
    for (const part of this.element.querySelectorAll("[data-bits]"))
      part.classList.toggle("pointed", part.dataset.bits === bits);
  }

  // Below its owner or above it, wherever there is more room, and within the window.
  #place() {
    const { style } = this.element;
    const margin = 8;
    const owner = this.owner.getBoundingClientRect();
    const above = owner.top - 2 * margin;
    const below = window.innerHeight - owner.bottom - 2 * margin;
    style.maxHeight = `${Math.max(above, below, 120)}px`;
    const { width, height } = this.element.getBoundingClientRect();
    const isBelow = height <= below || below >= above;
    style.top = `${isBelow ? owner.bottom + margin : Math.max(margin, owner.top - margin - height)}px`;
    style.left = `${Math.max(margin, Math.min(owner.left, window.innerWidth - width - margin))}px`;
  }
}

// A long list in a pane that scrolls: rows of one height, of which only those exist that are seen.
class LongList {
  constructor(pane, count, row) {
    this.pane = pane;
    this.count = count;
    this.row = row;
    this.current = -1;
    this.body = el("div", { class: "long" });
    this.shown = [-1, -1];
    pane.addEventListener("scroll", () => this.body.isConnected && this.#render(), { passive: true });
    new ResizeObserver(() => {
      this.#measure();
      if (this.body.isConnected) this.show(this.current);
    }).observe(pane);
    this.#measure();
  }

  // How high the rows are, and all of them: what is scrolled to has to be there.
  #measure() {
    this.height = rowHeight(this.pane);
    this.body.style.height = `${this.count * this.height}px`;
  }

  // Has a row be the current one, and seen.
  show(index) {
    this.current = index;
    reveal(this.pane, index * this.height, this.height);
    this.#render(true);
  }

  #render(anew = false) {
    const { height } = this;
    // On paper nothing scrolls: there it is what is around the current one.
    const above = matchMedia("print").matches ? this.current * height : this.pane.scrollTop;
    const room = Math.min(this.pane.clientHeight, window.innerHeight);
    const first = Math.max(0, Math.floor(above / height) - 10);
    const last = Math.min(this.count, Math.ceil((above + room) / height) + 10);
    if (!anew && first === this.shown[0] && last === this.shown[1]) return;
    this.shown = [first, last];
    this.body.style.setProperty("--above", `${first * height}px`);
    const rows = [];
    for (let index = first; index < last; index++) rows.push(this.row(index, index === this.current));
    this.body.replaceChildren(...rows);
  }
}

// In pixels, of a pane whose --row is in rem.
function rowHeight(pane) {
  return (
    parseFloat(getComputedStyle(pane).getPropertyValue("--row")) *
    parseFloat(getComputedStyle(document.documentElement).fontSize)
  );
}
