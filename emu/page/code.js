"use strict";
// What runs: the file with this step's line, or the disassembly where there is no source.

const NEAR = 7; // lines before this step's and behind it, on paper

class Code {
  constructor(trace, go) {
    this.trace = trace;
    this.go = go;
    this.pane = byId("code");
    this.title = byId("code-title");
    this.stepsOf = this.#stepsOf();
    this.files = new Map(); // what was built of them, by index
    this.now = 0;
    this.near = []; // the lines that are printed
    this.line = null; // this step's, of a file
  }

  show(step) {
    this.now = step;
    const instruction = this.trace.instruction(step) ?? this.trace.next(step);
    const following = this.trace.next(step);
    if (!instruction) return;
    if (instruction.file >= 0) this.#showLine(instruction, following);
    else this.#showAddress(instruction, following);
    if (!step) this.#current?.removeAttribute("aria-current");
  }

  // Has this step's line seen.
  settle() {
    if (this.line) reveal(this.pane, this.line.offsetTop, this.line.offsetHeight);
    else if (this.row !== undefined) this.bare.list.show(this.row);
  }

  get #current() {
    return this.pane.querySelector("[aria-current]");
  }

  // By site, the steps at which it ran.
  #stepsOf() {
    const steps = this.trace.sites.map(() => []);
    this.trace.steps.forEach((site, record) => steps[site].push(record + 1));
    return steps;
  }

  #showLine(instruction, following) {
    const [name] = this.trace.files[instruction.file];
    if (!this.files.has(instruction.file)) this.files.set(instruction.file, this.#file(instruction.file));
    const { body, lines } = this.files.get(instruction.file);
    if (!body.isConnected) this.pane.replaceChildren(body);
    this.#current?.removeAttribute("aria-current");
    body.querySelector(".following")?.classList.remove("following");
    const line = lines[instruction.line - 1];
    line.setAttribute("aria-current", "step");
    for (const other of this.near) other.classList.remove("near");
    this.near = lines.slice(Math.max(0, instruction.line - 1 - NEAR), instruction.line + NEAR);
    for (const other of this.near) other.classList.add("near");
    if (following?.file === instruction.file) lines[following.line - 1].classList.add("following");
    this.#head(name, `line ${instruction.line} of ${lines.length}`);
    this.line = line;
  }

  // The lines of a file, each that ran with how often.
  #file(index) {
    const ran = new Map(); // the steps at which a line's first instruction ran, by number
    this.trace.sites.forEach(([address, , , , , file, line], site) => {
      if (file !== index) return;
      const known = ran.get(line);
      if (!known || address < known.address) ran.set(line, { address, steps: this.stepsOf[site] });
    });
    const lines = this.trace.files[index][1].map((text, at) => {
      const steps = ran.get(at + 1)?.steps;
      return el(
        "div",
        { class: steps ? "line ran" : "line" },
        this.#times(steps),
        el("span", { class: "at" }, `${at + 1}`),
        el("code", {}, ...coloured(text)),
      );
    });
    return { body: el("div", { class: "listing" }, lines), lines };
  }

  // How often it ran; a click goes to the next time, from the last one to the first.
  #times(steps) {
    if (!steps) return el("span", { class: "times" });
    const count = steps.length;
    const times = el("span", { class: "times", title: `ran ${count === 1 ? "once" : `${count} times`}; a click goes there` });
    times.append(count === 1 ? "•" : `×${count}`);
    times.addEventListener("click", () => this.go(steps.find((step) => step > this.now) ?? steps[0]));
    return times;
  }

  #showAddress(instruction, following) {
    this.bare ??= this.#disassembly();
    const { list, rowOf } = this.bare;
    if (!list.body.isConnected) this.pane.replaceChildren(list.body);
    this.following = following?.index;
    this.#head("Disassembly", "no source; what ran, by address");
    this.line = null;
    this.row = rowOf.get(instruction.index);
  }

  #disassembly() {
    const sites = this.trace.sites.map((_, index) => this.trace.site(index)).filter((site) => site.file < 0);
    sites.sort((one, other) => Number(one.address) - Number(other.address) || one.bits - other.bits);
    const list = new LongList(this.pane, sites.length, (index, isCurrent) => {
      const site = sites[index];
      const label = labelOf(site) === labelOf(sites[index - 1]) ? null : el("em", {}, `  ${site.place}`);
      const classes = `line ran bare${site.index === this.following ? " following" : ""}`;
      return el(
        "div",
        { class: classes, "aria-current": isCurrent && this.now ? "step" : null },
        this.#times(this.stepsOf[site.index]),
        el("span", { class: "at" }, hex(site.address, 8).slice(2)),
        el("code", {}, site.text, label),
      );
    });
    return { list, rowOf: new Map(sites.map((site, row) => [site.index, row])) };
  }

  #head(name, detail) {
    put(this.title, name);
    this.title.append(el("small", {}, detail));
  }
}

const labelOf = (site) => site?.place.split("+")[0] ?? "";

// A line of assembly with its comment, its label and its directive marked.
function coloured(text) {
  const [, label, code, gap, comment] = /^([\w.$]+:)?([^#]*?)(\s*)(#.*)?$/s.exec(text) ?? [null, "", text, "", ""];
  const isDirective = code.trim().startsWith(".");
  return [
    label ? el("b", {}, label) : null,
    code ? (isDirective ? el("span", { class: "directive" }, code) : code) : null,
    comment ? el("span", { class: "gap" }, gap) : null,
    comment ? el("em", { class: label || code ? "trailing" : null }, comment) : null,
  ];
}
