"use strict";
// Puts the page together: one step is shown in all panes, and keys, links, and what is sought lead from one to the next.

class Page {
  constructor(trace) {
    this.trace = trace;
    this.popover = new Popover(byId("popover"));
    this.wanted = 0; // the step that is shown with the next frame
    this.step = -1; // the one that is shown
    const go = (step) => this.go(step);
    const memory = new Memory(trace);
    this.now = new Now(trace, memory);
    this.panes = [
      new Timeline(trace, go),
      this.now,
      new Code(trace, go),
      new State(trace, this.popover),
      memory,
      new Devices(trace),
    ];
    this.find = new Find(trace, memory, () => this.wanted, go, () => this.#toSteps());
    put(byId("of"), `of ${trace.last.toLocaleString("en")}`);
    this.#listen();
    showBeyond(trace);
    for (const id of ["bench", "steps", "keys"]) byId(id).hidden = false;
    this.#follow();
    this.#show();
  }

  go(step) {
    const before = this.wanted;
    this.wanted = Math.max(0, Math.min(this.trace.last, Math.round(step) || 0));
    if (this.wanted !== before) put(byId("found"), ""); // which was of the step before
    if (this.wanted !== before && !this.frame) this.frame = requestAnimationFrame(() => this.#show());
  }

  #show() {
    this.frame = null;
    this.step = this.wanted;
    for (const pane of this.panes) pane.show(this.step);
    for (const pane of this.panes) pane.settle?.(); // scrolls: all of it behind what changes the document, for one layout
    const number = byId("number");
    if (document.activeElement !== number || this.typed) number.value = this.step;
    this.typed = false;
    document.body.dataset.step = this.step;
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.#rest(), 250);
  }

  // What is done once the steps come to rest: the address bar has a limit to how often it is written.
  #rest() {
    history.replaceState(null, "", `#step=${this.step}`);
    put(byId("spoken"), this.now.sentence(this.step));
  }

  // Goes to the step that the address names.
  #follow() {
    const [, step] = /^#step=(\d+)$/.exec(location.hash) ?? [];
    if (step === undefined) return;
    this.go(Number(step));
    requestAnimationFrame(() => byId("bench").scrollIntoView()); // behind the step's own frame, which moves things
    if (document.activeElement.closest(".summary")) this.#toSteps();
  }

  // Has the keys go to the steps.
  #toSteps() {
    byId("slider").focus({ preventScroll: true, focusVisible: true });
  }

  #phase(by) {
    const { trace } = this;
    const now = trace.phaseOf(this.wanted);
    const first = (index) => trace.phases[index][0] + 1;
    if (by > 0) return now + 1 < trace.phases.length ? first(now + 1) : trace.last;
    return this.wanted > first(now) ? first(now) : now ? first(now - 1) : 0;
  }

  // Where each word and key leads.
  #target(name) {
    const { trace, wanted } = this;
    const page = Math.max(10, Math.round(trace.phases[trace.phaseOf(wanted)][4] / 20));
    const targets = {
      previous: () => wanted - 1,
      next: () => wanted + 1,
      "previous-ten": () => wanted - 10,
      "next-ten": () => wanted + 10,
      "previous-page": () => wanted - page,
      "next-page": () => wanted + page,
      "previous-phase": () => this.#phase(-1),
      "next-phase": () => this.#phase(1),
      first: () => 0,
      last: () => trace.last,
      handoff: () => trace.handoff ?? trace.last,
    };
    return targets[name]();
  }

  // Goes there by a key: from the top of the page so that one sees it.
  #walk(name) {
    this.go(this.#target(name));
    if (byId("bench").getBoundingClientRect().top > innerHeight / 2) byId("bench").scrollIntoView();
  }

  #listen() {
    for (const button of document.querySelectorAll("[data-go]"))
      button.addEventListener("click", () => this.go(this.#target(button.dataset.go)));
    if (this.trace.handoff === null) document.querySelector("[data-go=handoff]").disabled = true;
    window.addEventListener("hashchange", () => this.#follow());
    document.addEventListener("click", (event) => event.target.closest("a")?.hash === location.hash && this.#follow()); // no change
    document.addEventListener("keydown", (event) => this.#key(event));
    const number = byId("number");
    number.addEventListener("change", () => {
      this.typed = true;
      this.go(Number(number.value.replace(/\D/g, "")));
      number.value = this.wanted;
    });
    number.addEventListener("keydown", ({ key }) => {
      if (key === "Escape") number.value = this.wanted; // what was typed is not gone to
      if (key === "Escape" || key === "Enter") this.#toSteps();
    });
    number.addEventListener("focus", () => number.select());
    const folded = new Set(); // what is open on paper alone
    window.addEventListener("beforeprint", () => {
      for (const details of document.querySelectorAll(".summary details:not([open])")) folded.add(details);
      for (const details of folded) details.open = true;
    });
    window.addEventListener("afterprint", () => {
      for (const details of folded) details.open = false;
      folded.clear();
    });
    byId("keys").addEventListener("click", () => byId("help").showModal());
  }

  #key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || byId("help").open) return;
    if (event.key === "Escape") return this.popover.close();
    if (event.target.closest("input, select, textarea")) return;
    if (event.target.closest(".scroll, .summary") && SCROLLS.has(event.key)) return; // what has the focus
    const name = KEYS[event.shiftKey ? `Shift ${event.key}` : event.key];
    if (name) this.#walk(name);
    else if (event.key === "/") byId("sought").focus();
    else if (event.key === "g") byId("number").focus();
    else if (event.key === "?") byId("help").showModal();
    else if (event.key === "n") this.find.next(1);
    else if (event.key === "p") this.find.next(-1);
    else return;
    event.preventDefault();
  }
}

const KEYS = {
  ArrowLeft: "previous",
  ArrowRight: "next",
  ArrowUp: "previous-phase",
  ArrowDown: "next-phase",
  "Shift ArrowLeft": "previous-ten",
  "Shift ArrowRight": "next-ten",
  PageUp: "previous-page",
  PageDown: "next-page",
  Home: "first",
  End: "last",
  h: "handoff",
};

const SCROLLS = new Set(["ArrowUp", "ArrowDown", "PageUp", "PageDown", "Home", "End"]);

// Light or dark: as the system has it, until the switch says otherwise.
function switchTheme() {
  const button = byId("theme");
  const isDark = () =>
    (document.documentElement.dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) ===
    "dark";
  const name = () => put(button, isDark() ? "Light" : "Dark");
  button.addEventListener("click", () => {
    document.documentElement.dataset.theme = isDark() ? "light" : "dark";
    name();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", name);
  name();
  button.hidden = false;
}

async function start() {
  const trouble = byId("trouble");
  try {
    switchTheme();
    if (!("DecompressionStream" in window))
      throw new Error("this browser cannot expand gzip (DecompressionStream): one of 2023 or newer can");
    const data = await unpack(byId("payload").textContent);
    byId("payload").remove();
    window.page = new Page(new Trace(data));
    performance.mark("shown");
  } catch (error) {
    trouble.textContent = `The steps cannot be shown: ${error.message}. What was booted and what the check found stands above.`;
    trouble.hidden = false;
    throw error;
  }
}

start();
