"use strict";
// The steps from left to right: phases, the slider, and a lane of ticks for each device.

const LEAST = 0.06; // of the width, for a phase, if all of them leave a third for what they differ in
const SNAP = 0.006; // of the width, between a press on a lane and an access that it is meant for
const LANES = 7; // devices with a lane of their own

// Steps to places between 0 and 1. A phase is as wide as the square root of its steps, as one loop often takes most of them.
class Scale {
  constructor(trace) {
    const roots = trace.phases.map(([, , , , count]) => Math.sqrt(count));
    const all = roots.reduce((sum, root) => sum + root, 0) || 1;
    const least = Math.min(LEAST, 0.67 / roots.length);
    let left = 0;
    this.parts = trace.phases.map(([first, , , , count], index) => {
      const width = least + (1 - least * roots.length) * (roots[index] / all);
      const part = [first, left, width, count];
      left += width;
      return part;
    });
  }

  // Where the middle of a step lies; step 0 at the very left.
  place(step) {
    if (!step || !this.parts.length) return 0;
    const [first, left, width, count] = this.parts[lastAtOrBefore(this.parts, step - 1)];
    return left + (width * Math.min(step - first, count)) / (count || 1);
  }

  step(place) {
    const [first, left, width, count] = this.parts.findLast((part) => part[1] <= place) ?? this.parts[0];
    return first + Math.round((Math.min(place - left, width) / width) * count);
  }
}

class Timeline {
  constructor(trace, go) {
    this.trace = trace;
    this.scale = new Scale(trace);
    this.slider = byId("slider");
    this.slider.setAttribute("aria-valuemax", trace.last);
    this.slider.setAttribute("aria-valuemin", 0);
    this.accesses = new Map(); // their steps, by lane
    this.buttons = this.#phases(go);
    new ResizeObserver(() => this.#fit()).observe(byId("phases"));
    this.#lanes();
    if (trace.handoff !== null) {
      const flag = el("i", { class: "flag", title: `Handoff, step ${trace.handoff}` });
      flag.style.left = percent(this.scale.place(trace.handoff));
      this.slider.append(flag);
    }
    for (const part of [this.slider, byId("lanes")]) this.#scrub(part, go);
  }

  show(step) {
    const { trace, slider } = this;
    const instruction = trace.instruction(step);
    slider.setAttribute("aria-valuenow", step);
    slider.setAttribute("aria-valuetext", `${step} of ${trace.last}: ${instruction ? instruction.text : "reset"}`);
    byId("timeline").style.setProperty("--place", percent(this.scale.place(step)));
    const phase = trace.phaseOf(step);
    this.buttons.forEach((button, index) => {
      if (index === phase) button.setAttribute("aria-current", "step");
      else button.removeAttribute("aria-current");
    });
  }

  #phases(go) {
    const list = byId("phases");
    return this.trace.phases.map(([first, , title, why, count], index) => {
      const [, left, width] = this.scale.parts[index];
      const steps = count === 1 ? "1 step" : `${count.toLocaleString("en")} steps`;
      const button = el(
        "button",
        { type: "button", title: `${index + 1} ${title}, ${steps}. ${why}`, "aria-label": `Phase ${index + 1}, ${title}` },
        el("b", {}, `${index + 1}`),
        el("span", {}, ` ${title}`),
      );
      button.addEventListener("click", () => go(Math.min(first + 1, this.trace.last)));
      const item = el("li", {}, button);
      item.style.left = percent(left);
      item.style.width = percent(width);
      list.append(item);
      return button;
    });
  }

  // A name that does not fit gives way to the phase's number.
  #fit() {
    for (const button of this.buttons) button.classList.remove("short");
    const isShort = this.buttons.map(
      (button) => button.scrollWidth > button.clientWidth || button.scrollHeight > button.clientHeight,
    );
    this.buttons.forEach((button, index) => button.classList.toggle("short", isShort[index]));
  }

  #lanes() {
    const { trace, scale } = this;
    const steps = new Map(); // of the accesses, by device
    trace.effects.kind.forEach((kind, at) => {
      if (!ON_DEVICES.has(trace.effect_kinds[kind])) return;
      const index = trace.effects.device[at];
      const name = (index >= 0 && trace.devices[index][0]) || "nobody";
      if (!steps.has(name)) steps.set(name, []);
      steps.get(name).push(trace.effects.step[at] + 1);
    });
    const names = [...steps.keys()];
    const count = names.length > LANES + 1 ? LANES : names.length;
    const lanes = names.slice(0, count).map((name) => [name, steps.get(name)]);
    const others = names.slice(count);
    if (others.length) lanes.push([`${others.length} others`, others.flatMap((name) => steps.get(name))]);
    for (const [name, those] of lanes) {
      const ticks = new Set(those.map((step) => Math.round(scale.place(step) * 2000)));
      const path = svg("path", { d: [...ticks].map((x) => `M${x} 0V1`).join(""), "vector-effect": "non-scaling-stroke" });
      const picture = svg("svg", { viewBox: "0 0 2000 1", preserveAspectRatio: "none" }, path);
      const lane = el("div", { class: "lane", title: name }, el("span", {}, name), picture);
      this.accesses.set(lane, those);
      byId("lanes").append(lane);
    }
  }

  // The access that a press on a lane is meant for, or else the step at that place.
  #aim(place, target) {
    const near = (step) => Math.abs(this.scale.place(step) - place);
    const steps = this.accesses.get(target.closest(".lane")) ?? [];
    const nearest = steps.reduce((best, step) => (near(step) < near(best) ? step : best), steps[0]);
    return nearest !== undefined && near(nearest) < SNAP ? nearest : this.scale.step(place);
  }

  // Has a press or a drag on a part go where the pointer is.
  #scrub(part, go) {
    const move = (event) => {
      const box = this.slider.getBoundingClientRect();
      go(this.#aim(Math.max(0, Math.min(1, (event.clientX - box.left) / box.width)), event.target));
    };
    part.addEventListener("pointerdown", (event) => {
      if (event.button) return;
      part.setPointerCapture(event.pointerId);
      move(event);
      this.slider.focus({ preventScroll: true });
      event.preventDefault();
    });
    part.addEventListener("pointermove", (event) => part.hasPointerCapture(event.pointerId) && move(event));
  }
}

const percent = (part) => `${(part * 100).toFixed(3)}%`;
