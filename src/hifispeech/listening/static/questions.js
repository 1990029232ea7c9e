/**
 * The two kinds of question. Each is an object that draws its answer into a fieldset:
 *
 *     const question = new AbxQuestion(fieldset, player, onChange); // or MushraQuestion
 *     question.tracks   // labels of the player's tracks that the switch offers
 *     question.keys     // actions for bindKeys, and their help: [[keys, text], ...] in `help`
 *     question.show(slots)   // a new, unanswered question
 *     question.missing()     // what the listener still has to answer, or null
 *     question.answer()      // the body to send
 *     question.draw()        // the audible track has changed
 */

const WORDS = ["Bad", "Poor", "Fair", "Good", "Excellent"];

export class AbxQuestion {
  tracks = ["X", "A", "B"];
  help = [
    ["X A B", "listen to X, A, B"],
    ["1 2", "A is closer, B is closer"],
  ];
  #inputs;

  constructor(fieldset, player, onChange) {
    this.#inputs = ["A", "B"].map((name, i) => {
      const input = make("input", { type: "radio", name: "choice", value: name.toLowerCase() });
      input.setAttribute("aria-label", `${name} is closer to X`);
      input.addEventListener("change", onChange);
      const text = make("span", {}, `${name} is closer`, make("kbd", { ariaHidden: "true" }, String(i + 1)));
      return { input, label: make("label", { className: "choice" }, input, text) };
    });
    const labels = this.#inputs.map(({ label }) => label);
    const choices = make("div", { className: "choices", role: "radiogroup" }, ...labels);
    choices.setAttribute("aria-label", "Which is closer to X?");
    fieldset.replaceChildren(make("legend", {}, "Which sounds closer to X?"), choices);
    const choose = (i) => () => {
      this.#inputs[i].input.checked = true;
      onChange();
    };
    this.keys = { 1: choose(0), 2: choose(1) };
    for (const [i, name] of ["x", "a", "b"].entries()) this.keys[name] = () => player.select(i);
  }

  show() {
    for (const { input } of this.#inputs) input.checked = false;
  }

  draw() {}

  missing() {
    return this.#chosen() ? null : "Choose A or B.";
  }

  answer() {
    return { choice: this.#chosen().value };
  }

  #chosen() {
    return this.#inputs.map(({ input }) => input).find((input) => input.checked);
  }
}

export class MushraQuestion {
  tracks = ["Reference"];
  help = [
    ["0", "listen to the reference"],
    ["1 2 3", "go to a recording: listen, rate"],
    ["↑ ↓", "rate higher, lower by 1"],
    ["PgUp PgDn", "rate higher, lower by 10"],
  ];
  #fieldset;
  #player;
  #onChange;
  #rows = [];

  constructor(fieldset, player, onChange) {
    this.#fieldset = fieldset;
    this.#player = player;
    this.#onChange = onChange;
    this.keys = { 0: () => player.select(0) };
    for (let i = 1; i <= 9; i++) this.keys[i] = () => this.#hear(i);
    for (const [key, step] of Object.entries({ arrowup: 1, arrowdown: -1, pageup: 10, pagedown: -10 })) {
      this.keys[key] = () => this.#step(step);
    }
  }

  show(slots) {
    this.#rows = slots.slice(1).map((slot, i) => this.#row(slot, i + 1));
    const words = make("div", { className: "words" }, ...WORDS.map((word) => make("span", {}, word)));
    words.setAttribute("aria-hidden", "true");
    const cells = this.#rows.flatMap(({ button, slider, output }) => [button, slider, output]);
    this.#fieldset.replaceChildren(
      make("legend", {}, "Rate each recording against the reference; one of them is the reference itself"),
      make("div", { className: "sliders" }, make("i", {}), words, make("i", {}), ...cells),
    );
  }

  draw() {
    for (const { button, track } of this.#rows) {
      button.setAttribute("aria-pressed", String(this.#player.active === track));
    }
  }

  missing() {
    const open = this.#rows.filter(({ slider }) => slider.classList.contains("open"));
    if (!open.length) return null;
    return `Still to rate: ${open.map(({ slot }) => slot).join(", ")}.`;
  }

  answer() {
    return { ratings: Object.fromEntries(this.#rows.map(({ slot, slider }) => [slot, Number(slider.value)])) };
  }

  #hear(track) {
    if (!this.#rows[track - 1]) return;
    this.#player.select(track);
    this.#rows[track - 1].slider.focus();
  }

  /** Move the slider of the audible recording, wherever the focus is. */
  #step(by) {
    const row = this.#rows[this.#player.active - 1];
    if (!row) return;
    row.slider.value = Number(row.slider.value) + by;
    row.slider.focus();
    row.rated();
  }

  #row(slot, track) {
    const button = make("button", { type: "button", className: "listen" }, slot);
    const slider = make("input", { type: "range", min: 0, max: 100, step: 1, value: 50, className: "open" });
    const output = make("output", {}, "–");
    button.setAttribute("aria-label", `Listen to recording ${slot}`);
    slider.setAttribute("aria-label", `Rating of recording ${slot}`);
    slider.setAttribute("aria-valuetext", "not rated");
    const rated = () => {
      slider.classList.remove("open");
      output.textContent = slider.value;
      const word = WORDS[Math.min(4, Math.floor(slider.value / 20))];
      slider.setAttribute("aria-valuetext", `${slider.value}, ${word}`);
      this.#onChange();
    };
    button.addEventListener("click", () => this.#hear(track));
    slider.addEventListener("focus", () => this.#player.select(track));
    slider.addEventListener("input", rated);
    slider.addEventListener("pointerup", rated); // also where it stands already
    slider.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.altKey || event.metaKey || event.key === "Tab") return;
      if (/^(Arrow|Page|Home|End)/.test(event.key)) return; // the slider's own
      event.preventDefault();
      event.stopPropagation();
      document.dispatchEvent(new KeyboardEvent("keydown", { key: event.key })); // ours, wherever the focus is
    });
    return { slot, track, button, slider, output, rated };
  }
}

/** An element with properties and children. */
export function make(tag, properties, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}
