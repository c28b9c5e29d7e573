"use strict";
// What came after the trace, if the boot went on: marks, accesses, and the kernel's console.

function showBeyond({ beyond }) {
  if (!beyond) return;
  const time = (at) => (at === null ? "" : `${(at / 1e6).toFixed(3)} ms`);
  put(byId("beyond-clock"), beyond.clock ? "by the guest's clock, since power on" : "");
  byId("events").append(
    ...beyond.events.map(([at, kind, words, count]) =>
      el(
        "li",
        { class: kind === "mark" ? "milestone" : null },
        el("span", { class: "at" }, time(at)),
        el("span", { class: "kind" }, kind),
        el("span", {}, words, count > 1 ? el("small", {}, ` ${count.toLocaleString("en")} times`) : null),
      ),
    ),
    ...(beyond.left_out ? [el("li", {}, `${beyond.left_out.toLocaleString("en")} more are left out.`)] : []),
  );
  put(byId("kernel-console"), beyond.console.map(([, line]) => line).join("\n"));
  byId("beyond").hidden = false;
}
