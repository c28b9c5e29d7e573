"use strict";
// Finds the next step that changes a register, runs a label, or touches a device or an address.

class Find {
  constructor(trace, memory, step, go, leave) {
    Object.assign(this, { trace, memory, step, go });
    const labels = new Set(trace.sites.map((site) => site[4].split("+")[0]).filter(Boolean));
    const words = [...trace.registers, ...trace.devices.map(([name]) => name), ...labels];
    byId("findable").append(...words.map((word) => el("option", { value: word })));
    byId("find").addEventListener("submit", (event) => {
      event.preventDefault();
      if (this.next(1) && document.activeElement === byId("sought")) leave();
    });
    byId("sought").addEventListener("keydown", (event) => {
      const isBack = event.key === "Enter" && event.shiftKey;
      if (event.key !== "Escape" && !isBack) return;
      event.preventDefault(); // what is sought stays, for n and p
      if (!isBack || this.next(-1)) leave();
    });
    byId("sought").addEventListener("focus", () => byId("sought").select());
    byId("find-back").addEventListener("click", () => this.next(-1));
  }

  // Whether there is one; it goes there.
  next(direction) {
    const sought = byId("sought").value.trim().toLowerCase();
    if (!sought) {
      byId("sought").focus();
      return false;
    }
    const found = this.#nearest(sought, direction);
    if (found !== null) {
      put(byId("found"), "");
      this.go(found);
      return true;
    }
    const isNowhere = this.#nearest(sought, 1, 0) === null;
    put(byId("found"), isNowhere ? "in no step" : direction > 0 ? "none later" : "none before");
    return false;
  }

  #nearest(sought, direction, step = this.step()) {
    const { trace } = this;
    const register = trace.register.get(sought);
    if (register !== undefined)
      return direction > 0 ? trace.changeOf(register, step, 1) : step ? trace.changeOf(register, step - 1, -1) : null;
    const device = trace.devices.findIndex(([name]) => name.toLowerCase() === sought);
    const address = /^0x[0-9a-f]+$/.test(sought) ? Number(sought) : null;
    const sites = trace.sites.map(
      ([at, , , text, place]) => at === address || text.includes(sought) || place.toLowerCase().split("+")[0].includes(sought),
    );
    const touches = new Set(); // steps
    trace.effects.step.forEach((record, at) => {
      const isDevice = device >= 0 && trace.effects.device[at] === device;
      if (isDevice || (address !== null && includes(trace.effect(at), address))) touches.add(record + 1);
    });
    return trace.seek(step, direction, (at) => touches.has(at) || (device < 0 && sites[trace.steps[at - 1]]));
  }
}

const includes = (effect, address) => Number(effect.at) <= address && address < Number(effect.at) + effect.length;
