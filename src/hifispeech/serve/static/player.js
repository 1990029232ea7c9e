/**
 * Gap-free switching between aligned recordings: all play at once on one clock, and only gains change.
 *
 *     import { AlignedPlayer, bindKeys, decodeAudio } from "./player.js";
 *
 *     const player = new AlignedPlayer();
 *     player.load([await decodeAudio(bytesA), await decodeAudio(bytesB)]); // track 0 is heard
 *     player.addEventListener("change", () => draw(player.playing, player.active, player.loop));
 *     player.addEventListener("tick", () => drawPlayhead(player.position_s));
 *     const release = bindKeys(player, { actions: { n: nextQuestion } });
 *     await player.play();         // call it from a click or a key: browsers refuse sound before one
 *     player.select(1);            // the other recording, at the same instant, in a 10 ms crossfade
 *     player.setLoop(1.2, 3.4);    // this region again and again, its ends faded so that it does not click
 *
 * Nothing here knows what the tracks are or touches the page; `timeline.js` is the bar to look at and click.
 */

/** All recordings are decoded to this rate, that of the results, so that these are played as they are. */
export const RATE = 48000;

const FADE_S = 0.01; // linear: aligned recordings are alike, so gains that sum to one keep the level
const SHORTEST_LOOP_S = 0.1;

/**
 * Decode a whole file (ArrayBuffer; it is left usable) to an AudioBuffer at 48 kHz.
 * Rejects with a DOMException if the browser does not know the format.
 */
export function decodeAudio(bytes) {
  // An offline context decodes without the click that a sounding one has to wait for.
  return new OfflineAudioContext(1, 1, RATE).decodeAudioData(bytes.slice(0));
}

/**
 * N recordings, one of them audible.
 *
 * Properties (read only): `count`, `duration_s` (the longest track), `position_s`, `playing`, `active`
 * (index of the audible track), `loop` (`{ start_s, end_s }` or null).
 *
 * Events: "change" after any change of tracks, `playing`, `active`, `loop` or a jump in time; "tick" once an
 * animation frame while it plays; "end" when the last sample has been played (it then stands at 0 again).
 */
export class AlignedPlayer extends EventTarget {
  #context;
  #tracks = []; // { buffer, gain: GainNode or null, from, to, since_s }
  #voice = null; // the sources that play: { sources, envelopes, started_s, offset_s }
  #position_s = 0; // where it stands while it does not play
  #active = 0;
  #loop = null;
  #parts = null; // the loop's samples, cut out of each track

  /** `context`: an AudioContext, or an OfflineAudioContext in tests; made at the first `play` if left out. */
  constructor(context = null) {
    super();
    this.#context = context;
  }

  get count() {
    return this.#tracks.length;
  }

  get duration_s() {
    return this.#tracks.length ? this.#tracks[0].buffer.duration : 0;
  }

  get playing() {
    return this.#voice !== null;
  }

  get active() {
    return this.#active;
  }

  get loop() {
    return this.#loop && { ...this.#loop };
  }

  get position_s() {
    if (!this.#voice) return this.#position_s;
    const at = this.#voice.offset_s + Math.max(0, this.#context.currentTime - this.#voice.started_s);
    if (!this.#loop) return Math.min(at, this.duration_s);
    const { start_s, end_s } = this.#loop;
    return start_s + ((at - start_s) % (end_s - start_s));
  }

  /**
   * Take other recordings (AudioBuffers of one sample rate that start at the same instant); stops, goes to
   * 0, drops the loop and makes track `active` audible. Shorter ones are followed by silence.
   */
  load(buffers, active = 0) {
    this.#silence();
    for (const track of this.#tracks) track.gain?.disconnect();
    const frames = Math.max(0, ...buffers.map((buffer) => buffer.length));
    this.#tracks = buffers.map((buffer) => ({ buffer: padded(buffer, frames), gain: null }));
    this.#active = active;
    this.#position_s = 0;
    this.#loop = this.#parts = null;
    this.#changed();
  }

  /** Play on from where it stands; resolves once the sound device runs. */
  async play() {
    if (this.playing || !this.count) return;
    this.#context ??= new AudioContext({ sampleRate: RATE, latencyHint: "interactive" });
    if (this.#context.state === "suspended" && this.#context instanceof AudioContext) {
      await this.#context.resume();
    }
    if (this.playing) return; // asked twice while the device woke up
    this.#sound(this.#position_s);
    this.#changed();
    this.#tick();
  }

  /** Stop where it is. */
  pause() {
    if (!this.playing) return;
    this.#silence();
    this.#changed();
  }

  /** Play if it stands, pause if it plays. */
  toggle() {
    return this.playing ? this.pause() : this.play();
  }

  /** Go to a time in seconds; with a loop, to the nearest time inside it. */
  seek(time_s) {
    const [low, high] = this.#loop ? [this.#loop.start_s, this.#loop.end_s - FADE_S] : [0, this.duration_s];
    this.#move(Math.min(Math.max(time_s, low), high));
    this.#changed();
  }

  /** Make track `index` the audible one; the time goes on. Other indices than 0..count-1 are ignored. */
  select(index) {
    if (!Number.isInteger(index) || index < 0 || index >= this.count || index === this.#active) return;
    this.#active = index;
    for (const [i, track] of this.#tracks.entries()) this.#fade(track, i === index ? 1 : 0);
    this.#changed();
  }

  /** Repeat from `start_s` to `end_s` (either order, at least 0.1 s); goes to its start if it is outside. */
  setLoop(start_s, end_s) {
    const low = Math.max(0, Math.min(start_s, end_s));
    const high = Math.min(this.duration_s, Math.max(start_s, end_s));
    if (!(high - low >= SHORTEST_LOOP_S)) return;
    const at = this.position_s;
    this.#loop = { start_s: low, end_s: high };
    this.#parts = this.#tracks.map((track) => part(track.buffer, low, high));
    this.#move(at < low || at >= high - FADE_S ? low : at);
    this.#changed();
  }

  /** Play on to the end instead of repeating. */
  clearLoop() {
    if (!this.#loop) return;
    const at = this.position_s;
    this.#loop = this.#parts = null;
    this.#move(at);
    this.#changed();
  }

  #changed() {
    this.dispatchEvent(new Event("change"));
  }

  #tick() {
    if (!this.playing || typeof requestAnimationFrame === "undefined") return;
    this.dispatchEvent(new Event("tick"));
    requestAnimationFrame(() => this.#tick());
  }

  #move(time_s) {
    if (!this.playing) {
      this.#position_s = time_s;
      return;
    }
    this.#silence();
    this.#sound(time_s);
  }

  /** Start one source for each track, all at the same sample. */
  #sound(offset_s) {
    const context = this.#context;
    const started_s = context.currentTime;
    const inside_s = this.#loop ? offset_s - this.#loop.start_s : offset_s;
    const voice = { sources: [], envelopes: [], started_s, offset_s };
    for (const [i, track] of this.#tracks.entries()) {
      if (!track.gain) {
        track.gain = new GainNode(context, { gain: i === this.#active ? 1 : 0 });
        track.gain.connect(context.destination);
        Object.assign(track, { from: track.gain.gain.value, to: track.gain.gain.value, since_s: 0 });
      }
      const buffer = this.#parts ? this.#parts[i] : track.buffer;
      const source = new AudioBufferSourceNode(context, { buffer, loop: this.#loop !== null });
      const envelope = new GainNode(context, { gain: 0 });
      envelope.gain.setValueAtTime(offset_s > 0 ? 0 : 1, started_s); // a file's first sample needs no fade
      envelope.gain.linearRampToValueAtTime(1, started_s + FADE_S);
      source.connect(envelope).connect(track.gain);
      source.start(started_s, inside_s);
      voice.sources.push(source);
      voice.envelopes.push(envelope);
    }
    voice.sources[0].onended = () => this.#ended(voice);
    this.#voice = voice;
  }

  /** Fade the sources out and forget them. */
  #silence() {
    if (!this.#voice) return;
    this.#position_s = this.position_s;
    const now_s = this.#context.currentTime;
    const { sources, envelopes, started_s } = this.#voice;
    this.#voice = null;
    for (const { gain } of envelopes) {
      gain.cancelScheduledValues(now_s);
      gain.setValueAtTime(Math.min(1, (now_s - started_s) / FADE_S), now_s);
      gain.linearRampToValueAtTime(0, now_s + FADE_S);
    }
    for (const [i, source] of sources.entries()) {
      source.onended = () => envelopes[i].disconnect();
      source.stop(now_s + FADE_S);
    }
  }

  #ended(voice) {
    if (voice !== this.#voice) return;
    for (const envelope of voice.envelopes) envelope.disconnect();
    this.#voice = null;
    this.#position_s = 0;
    this.#changed();
    this.dispatchEvent(new Event("end"));
  }

  /** Ramp a track's gain; a ramp under way is taken up where it is, which no browser reports alike. */
  #fade(track, to) {
    if (!track.gain) return;
    const now_s = this.#context.currentTime;
    const done = Math.min(1, (now_s - track.since_s) / FADE_S);
    const from = track.from + (track.to - track.from) * done;
    const { gain } = track.gain;
    gain.cancelScheduledValues(now_s);
    gain.setValueAtTime(from, now_s);
    gain.linearRampToValueAtTime(to, now_s + FADE_S);
    Object.assign(track, { from, to, since_s: now_s });
  }
}

/**
 * Keys for a player: Space plays and pauses, 1 to 9 choose a track, the arrows left and right move by 2 s, Home
 * goes to the start; I and O make the loop start or end here, L ends it. Keys that belong to what has the
 * focus (a text field, the arrows of a radio group or slider, Space on a button) are left to it.
 *
 * `actions`: more keys, `{ key: function }`, in place of those above where they are the same; `key` as in
 * `KeyboardEvent.key`, letters in lower case. Returns a function that ends the binding.
 */
export function bindKeys(player, { actions = {}, target = document } = {}) {
  const keys = {
    " ": () => player.toggle(),
    arrowleft: () => player.seek(player.position_s - 2),
    arrowright: () => player.seek(player.position_s + 2),
    home: () => player.seek(0),
    i: () => player.setLoop(player.position_s, player.loop?.end_s ?? player.duration_s),
    o: () => player.setLoop(player.loop?.start_s ?? 0, player.position_s),
    l: () => player.clearLoop(),
    ...actions,
  };
  const listen = (event) => {
    if (event.defaultPrevented || event.ctrlKey || event.altKey || event.metaKey || belongsTo(event)) return;
    const key = event.key.toLowerCase();
    const act = keys[key] ?? (/^[1-9]$/.test(key) ? () => player.select(Number(key) - 1) : null);
    if (!act) return;
    event.preventDefault();
    act();
  };
  target.addEventListener("keydown", listen);
  return () => target.removeEventListener("keydown", listen);
}

/** Whether the focused control uses this key itself. */
function belongsTo({ key, target }) {
  if (!(target instanceof Element)) return false;
  if (target.matches("input:not([type=radio], [type=checkbox], [type=button]), select, textarea")) return true;
  if (key === " ") return target.matches("button, a, summary, label, [type=checkbox]");
  return key.startsWith("Arrow") && target.matches("[type=radio], [role=slider]");
}

function padded(buffer, frames) {
  if (buffer.length === frames) return buffer;
  const { numberOfChannels, sampleRate } = buffer;
  const longer = new AudioBuffer({ length: frames, numberOfChannels, sampleRate });
  for (let c = 0; c < numberOfChannels; c++) longer.copyToChannel(buffer.getChannelData(c), c);
  return longer;
}

/** The samples of a loop, faded at both ends: where it starts again there is no step. */
function part(buffer, start_s, end_s) {
  const { numberOfChannels, sampleRate } = buffer;
  const first = Math.round(start_s * sampleRate);
  const length = Math.max(1, Math.round(end_s * sampleRate) - first);
  const fade = Math.round(FADE_S * sampleRate);
  const cut = new AudioBuffer({ length, numberOfChannels, sampleRate });
  for (let c = 0; c < numberOfChannels; c++) {
    const samples = buffer.getChannelData(c).slice(first, first + length);
    for (let i = 0; i < fade && i < samples.length; i++) {
      samples[i] *= i / fade;
      samples[samples.length - 1 - i] *= i / fade;
    }
    cut.copyToChannel(samples, c);
  }
  return cut;
}
