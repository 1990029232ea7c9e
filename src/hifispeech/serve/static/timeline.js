/**
 * The time bar of an `AlignedPlayer`: a ruler with the playhead and the loop; click to go there, drag to repeat
 * a region, arrow keys when it has the focus.
 *
 *     <div id="bar" class="timeline" aria-label="Position"></div>
 *     new Timeline(document.querySelector("#bar"), player);
 *
 * With `area`, a larger element that holds pictures of the same time span (and the bar), playhead, loop and
 * pointer work over all of it. Styles are in style.css.
 */

const DRAG_PX = 5; // less than this is a click
const TICK_PX = 80; // between two labels
const STEPS_S = [0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600];

export class Timeline {
  #player;
  #bar;
  #playhead = div("playhead");
  #region = div("loop-region");
  #ticks = div("ticks");

  constructor(bar, player, { area = bar } = {}) {
    this.#player = player;
    this.#bar = bar;
    bar.setAttribute("role", "slider");
    bar.tabIndex = 0;
    bar.append(this.#ticks);
    area.classList.add("timeline-area");
    area.append(this.#region, this.#playhead);
    player.addEventListener("change", () => this.#draw());
    player.addEventListener("tick", () => this.#place());
    bar.addEventListener("focus", () => this.#draw());
    new ResizeObserver(() => this.#rule()).observe(bar);
    bar.addEventListener("keydown", (event) => this.#key(event));
    area.addEventListener("pointerdown", (event) => this.#press(event, area));
    this.#draw();
  }

  /** Seconds at a pointer event. */
  #time(event) {
    const { left, width } = this.#bar.getBoundingClientRect();
    return Math.min(1, Math.max(0, (event.clientX - left) / width)) * this.#player.duration_s;
  }

  #press(event, area) {
    if (event.button !== 0 || !this.#player.count) return;
    const from_s = this.#time(event);
    const from_x = event.clientX;
    let dragged = false;
    const held = new AbortController();
    const on = (type, listen) => area.addEventListener(type, listen, { signal: held.signal });
    area.setPointerCapture(event.pointerId);
    on("pointermove", (move) => {
      dragged ||= Math.abs(move.clientX - from_x) > DRAG_PX;
      if (dragged) this.#span(Math.min(from_s, this.#time(move)), Math.max(from_s, this.#time(move)));
    });
    on("pointercancel", () => {
      held.abort();
      this.#draw();
    });
    on("pointerup", (up) => {
      held.abort();
      if (dragged) this.#player.setLoop(from_s, this.#time(up));
      else this.#go(from_s);
      this.#draw(); // a loop that is too short is none
    });
  }

  /** Go there; outside the loop, this ends it. */
  #go(time_s) {
    const loop = this.#player.loop;
    if (loop && (time_s < loop.start_s || time_s > loop.end_s)) this.#player.clearLoop();
    this.#player.seek(time_s);
  }

  #key(event) {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    const player = this.#player;
    const step_s = event.shiftKey ? 0.1 : 1;
    const goals = {
      ArrowLeft: player.position_s - step_s,
      ArrowDown: player.position_s - step_s,
      ArrowRight: player.position_s + step_s,
      ArrowUp: player.position_s + step_s,
      PageDown: player.position_s - 10,
      PageUp: player.position_s + 10,
      Home: 0,
      End: player.duration_s,
    };
    if (!(event.key in goals)) return;
    event.preventDefault();
    player.seek(goals[event.key]);
  }

  #percent(time_s) {
    const { duration_s } = this.#player;
    return `${duration_s ? (100 * time_s) / duration_s : 0}%`;
  }

  /** The playhead alone: a screen reader would speak every change of the values below. */
  #place() {
    this.#playhead.style.left = this.#percent(this.#player.position_s);
  }

  #span(start_s, end_s) {
    this.#region.hidden = false;
    this.#region.style.left = this.#percent(start_s);
    this.#region.style.width = this.#percent(end_s - start_s);
  }

  #draw() {
    const { duration_s, position_s, loop } = this.#player;
    this.#place();
    if (loop) this.#span(loop.start_s, loop.end_s);
    this.#region.hidden = !loop;
    const values = { min: 0, max: duration_s.toFixed(2), now: position_s.toFixed(2) };
    for (const [name, value] of Object.entries(values)) this.#bar.setAttribute(`aria-value${name}`, value);
    this.#bar.setAttribute("aria-valuetext", `${clock(position_s)} of ${clock(duration_s)}`);
    if (this.#ticks.dataset.duration !== String(duration_s)) this.#rule();
  }

  /** Ticks at round times, as many as fit. */
  #rule() {
    const { duration_s } = this.#player;
    const most = Math.max(2, this.#bar.clientWidth / TICK_PX);
    const end_s = duration_s * (1 - TICK_PX / 2 / this.#bar.clientWidth); // a later label would be cut off
    const step_s = STEPS_S.find((step) => duration_s / step <= most) ?? STEPS_S.at(-1);
    this.#ticks.dataset.duration = String(duration_s);
    this.#ticks.replaceChildren();
    for (let i = 0; duration_s && i * step_s < end_s; i++) {
      const tick = div("tick");
      tick.textContent = clock(i * step_s, step_s < 1);
      tick.style.left = `${(100 * i * step_s) / duration_s}%`;
      this.#ticks.append(tick);
    }
  }
}

/** Seconds as "1:02:03", "1:02" or, with tenths, "1:02.3". */
export function clock(time_s, tenths = true) {
  const units = tenths ? Math.round(time_s * 10) : Math.round(time_s) * 10;
  const [hours, minutes] = [Math.floor(units / 36000), Math.floor(units / 600) % 60];
  const seconds = ((units % 600) / 10).toFixed(tenths ? 1 : 0);
  const two = (value, width = 2) => String(value).padStart(width, "0");
  return `${hours ? `${hours}:${two(minutes)}` : minutes}:${two(seconds, tenths ? 4 : 2)}`;
}

function div(name) {
  const element = document.createElement("div");
  element.className = name;
  element.setAttribute("aria-hidden", "true");
  return element;
}
