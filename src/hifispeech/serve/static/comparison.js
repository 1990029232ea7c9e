/** Before and after, to hear and to see: the player, its controls, and pictures with the measured edge. */

import { AlignedPlayer, RATE, bindKeys } from "./player.js";
import { paintSpectrogram, paintWaveform, peak, spectrogram } from "./spectrogram.js";
import { Timeline, clock } from "./timeline.js";

const TOP_HZ = RATE / 2;
const SCALE_HZ = [4000, 8000, 12000, 16000, 20000];
const CROWDED_HZ = 1500; // a frequency this close to an edge would be crossed out by its line

const $ = (selector) => document.querySelector(selector);

/** Hertz as "3.4 kHz". */
export const kilohertz = (hz) => `${Number((hz / 1000).toFixed(1))} kHz`;

/** Drives the elements of #compare; one for the page. */
export class Comparison {
  player = new AlignedPlayer();
  #lanes = [...document.querySelectorAll(".lane")];
  #radios = [...document.querySelectorAll("[name=track]")];
  #shown = null; // what the pictures show: [{ lane, buffer, full, levels }]
  #drawing = new AbortController();

  constructor() {
    const { player } = this;
    new Timeline($("#bar"), player, { area: $("#lanes") });
    bindKeys(player);
    player.addEventListener("change", () => this.#follow());
    player.addEventListener("tick", () => this.#tell());
    $("#play").addEventListener("click", () => player.toggle());
    $("#unloop").addEventListener("click", () => player.clearLoop());
    for (const radio of this.#radios) radio.addEventListener("change", () => player.select(Number(radio.value)));
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#paint());
    for (const lane of this.#lanes) scale(lane.querySelector(".picture"));
  }

  /**
   * Take in a pair of AudioBuffers and the cutoffs of its channels in Hz, those measured only; draws on after
   * it has returned. Without `before` there is one lane, without `after` nothing is shown.
   */
  show({ before, after, edges_hz }) {
    this.clear();
    $("#compare").hidden = !after;
    if (!after) return;
    const buffers = before ? [before, after] : [after];
    const lanes = before ? this.#lanes : this.#lanes.slice(1);
    this.#lanes[0].hidden = !before;
    for (const [i, radio] of this.#radios.entries()) {
      radio.disabled = !before && i === 0;
      radio.value = String(before ? i : 0);
    }
    for (const lane of lanes) label(lane, edges_hz);
    const extents = [...new Set(edges_hz.map((hz) => (hz === null ? "full band" : `up to ${kilohertz(hz)}`)))];
    this.#lanes[0].querySelector("small").textContent = extents.join(", ");
    this.#lanes[1].querySelector("small").textContent = "full band";
    this.#shown = lanes.map((lane, i) => ({ lane, buffer: buffers[i], full: 1, levels: null }));
    this.player.load(buffers, buffers.length - 1);
    this.#draw(this.#drawing.signal);
  }

  /** Stop, and let go of the recordings. */
  clear() {
    this.#drawing.abort();
    this.#drawing = new AbortController();
    this.#shown = null;
    this.player.load([]);
    for (const canvas of document.querySelectorAll(".lane canvas")) canvas.width = 0;
  }

  async #draw(signal) {
    try {
      const full = Math.max(...this.#shown.map(({ buffer }) => peak(buffer)));
      for (const entry of this.#shown) entry.full = full;
      this.#paint(); // waveforms first: spectrograms take a moment
      for (const entry of this.#shown) {
        entry.levels = await spectrogram(entry.buffer, signal);
        this.#paint();
      }
    } catch (error) {
      if (!signal.aborted) throw error;
    }
  }

  #paint() {
    const shown = this.#shown ?? [];
    const top_db = Math.max(...shown.map(({ levels }) => levels?.top_db ?? -Infinity));
    for (const { lane, buffer, full, levels } of shown) {
      paintWaveform(lane.querySelector(".waveform"), buffer, { full });
      if (levels) paintSpectrogram(lane.querySelector(".spectrogram"), levels, { top_db });
    }
  }

  #follow() {
    const { player } = this;
    $("#play").classList.toggle("playing", player.playing);
    $("#play").setAttribute("aria-label", player.playing ? "Pause" : "Play");
    for (const radio of this.#radios) {
      radio.checked = !radio.disabled && Number(radio.value) === player.active;
    }
    for (const [i, lane] of this.#lanes.entries()) lane.classList.toggle("heard", this.#radios[i].checked);
    const { loop } = player;
    $("#unloop").hidden = !loop;
    if (loop) $("#unloop").textContent = `Repeats ${clock(loop.start_s)} to ${clock(loop.end_s)} ✕`;
    this.#tell();
  }

  #tell() {
    $("#time").textContent = `${clock(this.player.position_s)} / ${clock(this.player.duration_s)}`;
  }
}

/** Frequencies at the side of a spectrogram. */
function scale(picture) {
  for (const hz of SCALE_HZ) {
    const mark = document.createElement("span");
    mark.className = "hertz";
    mark.dataset.hz = String(hz);
    mark.textContent = kilohertz(hz);
    mark.style.top = height(hz);
    mark.setAttribute("aria-hidden", "true");
    picture.append(mark);
  }
}

/** Draw the edges over a spectrogram and say in words what it shows. */
function label(lane, edges_hz) {
  const picture = lane.querySelector(".picture");
  for (const old of picture.querySelectorAll(".edge")) old.remove();
  const name = lane.querySelector("figcaption span").textContent;
  for (const { hz, text } of named(edges_hz)) {
    const line = document.createElement("div");
    line.className = hz > TOP_HZ * 0.8 ? "edge high" : "edge";
    line.style.top = height(hz);
    const words = document.createElement("span");
    words.textContent = text;
    line.append(words);
    picture.append(line);
  }
  for (const mark of picture.querySelectorAll(".hertz")) {
    mark.hidden = edges_hz.some((hz) => hz !== null && Math.abs(hz - mark.dataset.hz) < CROWDED_HZ);
  }
  const found = named(edges_hz).map(({ text }) => text).join(", ") || "no edge: full band";
  picture.querySelector("canvas").setAttribute("aria-label", `Spectrogram ${name.toLowerCase()}; ${found}`);
}

/** One line for each different edge, with its channels if they differ. */
function named(edges_hz) {
  const channels = new Map();
  for (const [i, hz] of edges_hz.entries()) {
    if (hz === null) continue;
    const text = kilohertz(hz);
    channels.set(text, { hz, numbers: [...(channels.get(text)?.numbers ?? []), i + 1] });
  }
  return [...channels].map(([text, { hz, numbers }]) => {
    const whose = numbers.length === edges_hz.length ? "" : `, channel ${numbers.join(" and ")}`;
    return { hz, text: `detected edge ${text}${whose}` };
  });
}

const height = (hz) => `${100 * (1 - hz / TOP_HZ)}%`;
