"use strict";
// This step in words: the instruction, where it stands, and what it did.

const SHOWN = 6; // effects and changes

class Now {
  constructor(trace, memory) {
    this.trace = trace;
    this.memory = memory;
  }

  show(step) {
    const { trace } = this;
    const instruction = trace.instruction(step);
    const index = trace.phaseOf(step);
    const [, , title, why] = trace.phases[index] ?? [0, "", "", ""];
    byId("phase").replaceChildren(el("b", {}, `${index + 1} ${title}`), ` ${why}`);
    const next = trace.next(step);
    if (!instruction) {
      put(byId("instruction"), "Reset");
      byId("where").replaceChildren(...parts([trace.modeAt(0), next && `the first instruction is at ${hex(next.address, 8)}`]));
      byId("did").replaceChildren(el("li", {}, "Nothing has run: these are the registers that the CPU starts with."));
      return;
    }
    const { text, code, address, cs, ip, place } = instruction;
    const times = trace.times[step - 1];
    byId("instruction").replaceChildren(text, times > 1 ? el("small", {}, ` ×${times.toLocaleString("en")}`) : "");
    byId("where").replaceChildren(
      ...parts([
        el("code", { title: "its bytes" }, code.match(/../g)?.join(" ") ?? ""),
        cs === null ? null : el("code", { title: "CS:IP" }, `${hex(cs, 4).slice(2)}:${hex(ip, 4).slice(2)}`),
        el("code", { title: "linear address" }, hex(address, 8)),
        place && el("code", { title: "place" }, place),
        trace.modeAt(step - 1),
      ]),
    );
    byId("did").replaceChildren(...this.#did(step));
  }

  // For a screen reader, once the steps come to rest.
  sentence(step) {
    const instruction = this.trace.instruction(step);
    const did = [...byId("did").children].slice(0, 3).map((item) => item.textContent);
    return `Step ${step}: ${instruction?.text ?? "reset"}. ${did.join("; ")}`;
  }

  #did(step) {
    const { trace } = this;
    const says = trace.sentence.get(step - 1);
    const before = trace.state(step - 1);
    const after = trace.state(step);
    const changes = trace
      .changed(step)
      .map((register) => this.#change(trace.registers[register], before[register], after[register]));
    const effects = trace.effectsOf(step);
    const told = (wanted) => effects.filter(({ kind }) => wanted(kind)).map((effect) => this.#effect(effect));
    const all = [
      ...told((kind) => ON_DEVICES.has(kind)),
      ...told((kind) => INTO_MEMORY.has(kind)),
      ...changes,
      ...told((kind) => kind === "load"),
    ];
    const next = trace.next(step);
    const { address, code, text } = trace.instruction(step);
    if (next && next.address !== Number(address) + code.length / 2)
      all.push(el("li", {}, `goes on at ${hex(next.address, 8)}`, next.place ? ` (${next.place})` : ""));
    else if (next && /^j(?!mp)/.test(text)) all.push(el("li", {}, "not taken: goes on with the next instruction"));
    if (step === trace.handoff)
      all.unshift(el("li", { class: "said" }, "The handoff: the kernel's first instruction is next."));
    if (step === trace.last && trace.handoff === null)
      all.unshift(el("li", { class: "said" }, trace.cut ? "The last step that is told." : `Here it ends: ${trace.end.words}`));
    const more = all.length - SHOWN;
    return [
      ...(says ? [el("li", { class: "said" }, says)] : []),
      ...all.slice(0, more > 1 ? SHOWN : undefined),
      ...(more > 1 ? [el("li", {}, `and ${more} more`)] : []),
      ...(!says && !all.length ? [el("li", {}, "nothing but to go on")] : []),
    ];
  }

  #change(name, old, value) {
    const bits = this.trace.bits[name];
    if (!bits) return el("li", {}, el("b", {}, name.replace("_", " ")), ` ${hex(old)} → `, el("code", {}, hex(value)));
    const differ = bits.filter(([high, low]) => bitsOf(old, high, low) !== bitsOf(value, high, low));
    const words = differ.map(([high, low, word]) => `${word} ${bitsOf(value, high, low) ? "set" : "clear"}`);
    return el(
      "li",
      {},
      el("b", {}, name),
      ` ${hex(old)} → `,
      el("code", {}, hex(value)),
      words.length ? `: ${words.join(", ")}` : "",
    );
  }

  #effect(effect) {
    const { kind, at, size, value, times, device, meaning, data } = effect;
    const isPort = PORTS.has(kind);
    const place = isPort || ON_DEVICES.has(kind) ? "" : this.memory.nameOf(at);
    const moved =
      value !== null
        ? hex(value, 2 * Number(size))
        : times > 1
          ? `${times.toLocaleString("en")} × ${bytes(Number(size))}`
          : bytes(Number(size));
    const shown = data && !data.startsWith("sha256:") ? ` ${data.length > 24 ? `${data.slice(0, 24)}…` : data}` : "";
    return el(
      "li",
      { class: ON_DEVICES.has(kind) ? "io" : "memory" },
      el("b", {}, kind),
      ` ${isPort ? hex(at, 3) : `[${hex(at)}]`} ${TO_CPU.has(kind) ? "→" : "←"} `,
      el("code", {}, moved),
      shown,
      place ? ` (${place})` : "",
      meaning ? `: ${meaning}` : device ? ` (${device})` : ON_DEVICES.has(kind) ? " (nobody answers)" : "",
    );
  }
}

// With dots between them; those that are nothing are left out.
const parts = (items) => items.filter(Boolean).flatMap((item, index) => (index ? [el("i", {}, " · "), item] : [item]));
