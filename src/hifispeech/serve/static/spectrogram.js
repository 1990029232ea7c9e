/**
 * Pictures of AudioBuffers on canvases: waveform and spectrogram.
 *
 *     const levels = await spectrogram(buffer);            // dB, takes a moment
 *     paintSpectrogram(canvas, levels, { top_db: levels.top_db });
 *     paintWaveform(canvas, buffer, { full: peak(buffer) });
 *
 * A canvas has a fixed number of columns and is stretched by CSS; colours come from the custom properties
 * `--spectrogram` (a list, from silence to loud) and `--wave`, so that a theme change is a second paint.
 */

export const COLUMNS = 1200;

const N_FFT = 1024; // 21 ms at 48 kHz: shows both harmonics and consonants
const BINS = N_FFT / 2;
const MOST_FRAMES = 4; // averaged in a column of a long recording
const RANGE_DB = 85;
const TURN_MS = 12; // of computing, before the page may move again

/**
 * Levels of a recording, channels summed: `{ db: Float32Array [COLUMNS x BINS], top_db, nyquist_hz }`.
 * `signal`: an AbortSignal that ends the work with its reason.
 */
export async function spectrogram(buffer, signal = null) {
  const channels = channelsOf(buffer);
  const window = Float32Array.from({ length: N_FFT }, (_, n) => 0.5 - 0.5 * Math.cos((2 * Math.PI * n) / N_FFT));
  const fft = transform(N_FFT);
  const db = new Float32Array(COLUMNS * BINS);
  const power = new Float32Array(BINS);
  const stride = buffer.length / COLUMNS;
  const frames = Math.min(MOST_FRAMES, Math.max(1, Math.round((2 * stride) / N_FFT)));
  let top_db = -120;
  let turn = performance.now();
  for (let column = 0; column < COLUMNS; column++) {
    power.fill(0);
    for (const channel of channels) {
      for (let frame = 0; frame < frames; frame++) {
        const middle = Math.round((column + (frame + 0.5) / frames) * stride);
        addPower(power, channel, middle - BINS, window, fft);
      }
    }
    for (let bin = 0; bin < BINS; bin++) {
      const level = 10 * Math.log10(power[bin] / (frames * channels.length) + 1e-14);
      db[column * BINS + bin] = level;
      if (level > top_db) top_db = level;
    }
    if (performance.now() - turn > TURN_MS) {
      await new Promise((go) => setTimeout(go));
      signal?.throwIfAborted();
      turn = performance.now();
    }
  }
  return { db, top_db, nyquist_hz: buffer.sampleRate / 2 };
}

/** Paint levels; `top_db` gets the last colour, so give both pictures of a comparison the same. */
export function paintSpectrogram(canvas, { db }, { top_db }) {
  canvas.width = COLUMNS;
  canvas.height = BINS;
  const context = canvas.getContext("2d");
  const image = context.createImageData(COLUMNS, BINS);
  const pixels = new Uint32Array(image.data.buffer);
  const colours = palette(getComputedStyle(canvas).getPropertyValue("--spectrogram"));
  for (let bin = 0; bin < BINS; bin++) {
    const row = (BINS - 1 - bin) * COLUMNS;
    for (let column = 0; column < COLUMNS; column++) {
      const part = 1 + (db[column * BINS + bin] - top_db) / RANGE_DB;
      pixels[row + column] = colours[Math.max(0, Math.min(255, Math.round(part * 255)))];
    }
  }
  context.putImageData(image, 0, 0);
}

/** Paint the lowest and highest sample of each column; `full` is the sample value that fills the height. */
export function paintWaveform(canvas, buffer, { full }) {
  const height = (canvas.height = 120);
  canvas.width = COLUMNS;
  const context = canvas.getContext("2d");
  context.fillStyle = getComputedStyle(canvas).getPropertyValue("--wave");
  const channels = channelsOf(buffer);
  const scale = height / 2 / (full || 1);
  for (let column = 0; column < COLUMNS; column++) {
    const first = Math.floor((column * buffer.length) / COLUMNS);
    const end = Math.max(first + 1, Math.floor(((column + 1) * buffer.length) / COLUMNS));
    let [low, high] = [Infinity, -Infinity];
    for (const samples of channels) {
      for (let i = first; i < end && i < samples.length; i++) {
        if (samples[i] < low) low = samples[i];
        if (samples[i] > high) high = samples[i];
      }
    }
    context.fillRect(column, height / 2 - high * scale, 1, Math.max(1, (high - low) * scale));
  }
}

/** The largest magnitude of a recording. */
export function peak(buffer) {
  let most = 0;
  for (const samples of channelsOf(buffer)) {
    for (let i = 0; i < samples.length; i++) {
      const magnitude = Math.abs(samples[i]);
      if (magnitude > most) most = magnitude;
    }
  }
  return most;
}

function channelsOf(buffer) {
  return Array.from({ length: buffer.numberOfChannels }, (_, c) => buffer.getChannelData(c));
}

function addPower(power, samples, start, window, fft) {
  const { re, im } = fft;
  im.fill(0);
  for (let n = 0; n < N_FFT; n++) re[n] = (samples[start + n] ?? 0) * window[n];
  fft.run();
  const scale = 4 / N_FFT; // a full-scale sine has 0 dB: Hann's mean is a half, half of it is at -f
  for (let bin = 0; bin < BINS; bin++) {
    power[bin] += (re[bin] * re[bin] + im[bin] * im[bin]) * scale * scale;
  }
}

/** An in-place complex FFT of a power of two: fill `re` and `im`, call `run`. */
function transform(size) {
  const [re, im] = [new Float32Array(size), new Float32Array(size)];
  const bits = Math.log2(size);
  const reversed = Array.from({ length: size }, (_, i) => {
    let out = 0;
    for (let bit = 0; bit < bits; bit++) out |= ((i >> bit) & 1) << (bits - 1 - bit);
    return out;
  });
  const cos = Float32Array.from({ length: size / 2 }, (_, i) => Math.cos((2 * Math.PI * i) / size));
  const sin = Float32Array.from({ length: size / 2 }, (_, i) => -Math.sin((2 * Math.PI * i) / size));
  const run = () => {
    for (let i = 0; i < size; i++) {
      const j = reversed[i];
      if (j <= i) continue;
      [re[i], re[j]] = [re[j], re[i]];
      [im[i], im[j]] = [im[j], im[i]];
    }
    for (let half = 1; half < size; half *= 2) {
      const step = size / (2 * half);
      for (let start = 0; start < size; start += 2 * half) {
        for (let k = 0; k < half; k++) {
          const [a, b] = [start + k, start + k + half];
          const [c, s] = [cos[k * step], sin[k * step]];
          const x = re[b] * c - im[b] * s;
          const y = re[b] * s + im[b] * c;
          re[b] = re[a] - x;
          im[b] = im[a] - y;
          re[a] += x;
          im[a] += y;
        }
      }
    }
  };
  return { re, im, run };
}

/** 256 colours as canvas pixels, from a comma-separated list of #rrggbb. */
function palette(list) {
  const stops = list.split(",").map((hex) => {
    const value = parseInt(hex.trim().slice(1), 16);
    return [value >> 16, (value >> 8) & 255, value & 255];
  });
  return Uint32Array.from({ length: 256 }, (_, i) => {
    const place = (i / 255) * (stops.length - 1);
    const at = Math.min(Math.floor(place), stops.length - 2);
    const [r, g, b] = stops[at].map((value, c) => Math.round(value + (stops[at + 1][c] - value) * (place - at)));
    return ((255 << 24) | (b << 16) | (g << 8) | r) >>> 0;
  });
}
