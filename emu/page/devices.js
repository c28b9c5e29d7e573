"use strict";
// What the firmware said to devices, and they to it: all accesses, and the console.

class Devices {
  constructor(trace) {
    this.trace = trace;
    this.accesses = [];
    trace.effects.kind.forEach((kind, at) => ON_DEVICES.has(trace.effect_kinds[kind]) && this.accesses.push(at));
    this.steps = this.accesses.map((at) => [trace.effects.step[at] + 1]);
    this.consoles = this.#consoles();
    this.list = new LongList(byId("devices"), this.accesses.length, (index) => this.#row(trace.effect(this.accesses[index])));
    for (const { device, pre } of this.consoles) byId("console-pane").append(el("h3", {}, `Printed by ${device}`), pre);
    if (!this.consoles.length) byId("console-pane").append(el("p", {}, "The firmware prints nothing."));
    byId("devices").append(this.accesses.length ? this.list.body : el("p", {}, "Nothing was said to a device."));
    this.title = byId("devices-title");
  }

  show(step) {
    this.step = step;
    if (this.accesses.length) {
      const index = lastAtOrBefore(this.steps, step);
      const isPast = this.steps[index][0] <= step;
      this.index = index;
      put(this.title, "Devices");
      const told = isPast ? index + 1 : 0;
      this.title.append(
        el("small", {}, `${told.toLocaleString("en")} of ${this.accesses.length.toLocaleString("en")} accesses so far`),
      );
    }
    for (const { pre, text, ends } of this.consoles) put(pre, text.slice(0, begunBy(ends, step)?.[1] ?? 0));
  }

  // Of each device that prints all of its text, and how long that is from which step on.
  #consoles() {
    const found = new Map();
    for (const [step, device, said] of this.trace.console) {
      if (!found.has(device)) {
        const pre = el("pre", { class: "console", "aria-label": `What ${device} printed` });
        found.set(device, { device, pre, text: "", ends: [] });
      }
      const one = found.get(device);
      one.text += said;
      one.ends.push([step, one.text.length]);
    }
    return [...found.values()];
  }

  // Has the last access up to this step seen, and what was printed last.
  settle() {
    if (this.accesses.length) this.list.show(this.index);
    const pane = byId("console-pane");
    if (this.consoles.length) pane.scrollTop = pane.scrollHeight;
  }

  #row(effect) {
    const arrow = TO_CPU.has(effect.kind) ? "→" : "←";
    const value =
      effect.value === null ? `${effect.times} × ${bytes(Number(effect.size))}` : hex(effect.value, 2 * Number(effect.size));
    return el(
      "a",
      {
        class: effect.step > this.step ? "access later" : "access",
        href: `#step=${effect.step}`,
        tabindex: -1,
        title: effect.meaning,
        "aria-current": effect.step === this.step ? "step" : null,
      },
      el("span", { class: "at" }, `${effect.step}`),
      el("span", { class: "meaning" }, effect.meaning || effect.device || "nobody answers"),
      el("span", { class: "port" }, `${effect.kind} ${hex(effect.at, PORTS.has(effect.kind) ? 3 : 8)} ${arrow} ${value}`),
    );
  }
}
