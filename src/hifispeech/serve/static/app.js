/** The upscaling page: take a recording, have it upscaled, show and hand out the result. */

import { ApiError, setKey, upscale } from "./api.js";
import { Comparison, kilohertz } from "./comparison.js";
import { RATE, decodeAudio } from "./player.js";
import { canRecord, record } from "./recorder.js";
import { clock } from "./timeline.js";

const MOST_BYTES = 600e6; // of decoded sound that a page may hold, about 26 minutes of mono twice

const $ = (selector) => document.querySelector(selector);

const comparison = new Comparison();
let file = null; // the recording in work or shown
let work = new AbortController();
let results = new Map(); // format to Blob, for `file`
let recorder = null;
let keyTried = false;

/** Show these of the sections below the source, and no other. */
function sections(...names) {
  for (const name of ["unlock", "work", "problem", "result"]) $(`#${name}`).hidden = !names.includes(name);
  $("#source").classList.toggle("small", names.length > 0);
}

function announce(text) {
  $("#announcer").textContent = text;
}

function complain(title, error) {
  $("#problem-title").textContent = title;
  $("#problem-text").textContent = sentence(error.message);
  sections("problem");
}

/** A message as a sentence: the server's begin with the name of the file, go on small and end bare. */
function sentence(text) {
  const bare = file && text.startsWith(`${file.name}: `) ? text.slice(file.name.length + 2) : text;
  return `${bare.charAt(0).toUpperCase()}${bare.slice(1)}`.replace(/[^.!?]$/, "$&.");
}

/** From a chosen file to its result on the page. */
async function start(chosen) {
  work.abort();
  work = new AbortController();
  const { signal } = work;
  file = chosen;
  results = new Map();
  comparison.clear();
  $("#saving").textContent = "";
  sections("work");
  $("#work").scrollIntoView({ block: "nearest" });
  try {
    const { job, blob } = await upscale(file, { format: "wav", onState: tellStage, signal });
    results.set("wav", blob);
    tellStage("draw", null);
    const found = await buffers(job, blob);
    signal.throwIfAborted();
    present(job, found);
  } catch (error) {
    if (!signal.aborted) fail(error);
  }
}

function fail(error) {
  if (error instanceof ApiError && error.status === 401) {
    $("#refused").hidden = !keyTried;
    sections("unlock");
    $("#key").focus();
    return;
  }
  complain(`${file.name} could not be upscaled`, error);
}

const STAGES = {
  upload: "Sending",
  busy: "The server is busy; waiting for a free place for",
  queued: "Waiting for the server to take up",
  running: "Upscaling",
  lost: "The server does not answer; trying again for",
  fetch: "Fetching the result for",
  draw: "Reading the result for",
};
let told = "";

function tellStage(stage, done) {
  const bar = $("#progress");
  if (done === null) bar.removeAttribute("value");
  else bar.value = done;
  const percent = done === null ? "" : ` ${Math.floor(done * 100)} %`;
  $("#stage").textContent = `${STAGES[stage]} ${file.name}${percent}`;
  // A screen reader hears each stage once and, in a long one, every quarter.
  const step = `${STAGES[stage]} ${file.name}${done ? `: ${Math.floor(done * 4) * 25} percent` : ""}`;
  if (step !== told) announce(step);
  told = step;
}

/** Both recordings decoded; without those the browser cannot read or hold. */
async function buffers(job, blob) {
  const bytes = 2 * 4 * job.channels * job.duration_s * RATE;
  if (bytes > MOST_BYTES) return { note: "The recording is too long to be played in this page; download it below." };
  const after = await decodeAudio(await blob.arrayBuffer());
  try {
    return { before: await decodeAudio(await file.arrayBuffer()), after };
  } catch {
    return { after, note: "This browser cannot play the original file, so only the result is shown." };
  }
}

function present(job, { before, after, note }) {
  const edges_hz = job.cutoff_hz.map((hz, i) => (job.full_band[i] || job.silent[i] ? null : hz));
  $("#verdict").textContent = verdict(job, edges_hz);
  const channels = { 1: "mono", 2: "stereo" }[job.channels] ?? `${job.channels} channels`;
  $("#facts").textContent = [
    file.name,
    clock(job.duration_s),
    channels,
    `sampled at ${kilohertz(job.sample_rate)}, now ${kilohertz(RATE)}`,
  ].join(" · ");
  const notes = [note, ...job.warnings];
  if (job.samples_over) notes.push(`${job.samples_over} samples were above full scale and were cut off there`);
  $("#notes").replaceChildren(
    ...notes.filter(Boolean).map((text) => {
      const item = document.createElement("li");
      item.textContent = sentence(text);
      return item;
    }),
  );
  sections("result");
  comparison.show({ before, after, edges_hz });
  announce(`Done. ${$("#verdict").textContent}`);
  $("#verdict").focus({ preventScroll: true });
  $("#result").scrollIntoView({ block: "nearest" });
}

function verdict(job, edges_hz) {
  if (job.silent.every(Boolean)) return "Nothing but digital silence: it stays silent";
  const lowest = Math.min(...edges_hz.filter((hz) => hz !== null));
  if (!Number.isFinite(lowest)) return "Already full band: nothing had to be added";
  return `Speech up to ${kilohertz(lowest)} became full band`;
}

/** Hand out the result; other formats than the one shown are made by the server first. */
async function save(format) {
  const button = $("#save button");
  const { signal } = work;
  button.disabled = true;
  try {
    if (!results.has(format)) {
      const onState = (stage, done) => {
        $("#saving").textContent = done === null ? "Preparing …" : `Preparing … ${Math.floor(done * 100)} %`;
      };
      const { blob } = await upscale(file, { format, onState, signal });
      results.set(format, blob);
    }
    const link = document.createElement("a");
    link.href = URL.createObjectURL(results.get(format));
    link.download = `${file.name.replace(/\.[^.]+$/, "")}-48k.${format}`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
    $("#saving").textContent = `Saved as ${link.download}`;
  } catch (error) {
    if (!signal.aborted) $("#saving").textContent = sentence(error.message);
  } finally {
    button.disabled = false;
  }
}

async function startRecording() {
  comparison.player.pause();
  try {
    recorder = await record((seconds, level) => {
      $("#recorded").textContent = clock(seconds);
      $("#level").value = Math.sqrt(level); // soft speech shows, too
    });
  } catch (error) {
    complain("Recording did not start", error);
    return;
  }
  sections();
  showRecorder(true);
  announce("Recording");
  $("#stop").focus();
}

function showRecorder(on) {
  $("#choose").hidden = on;
  $("#recording").hidden = !on;
  if (!on) recorder = null;
}

async function stopRecording() {
  const { stop } = recorder;
  showRecorder(false);
  $("#record").focus();
  try {
    await start(await stop());
  } catch (error) {
    complain("The recording cannot be used", error);
  }
}

function listen() {
  $("#file").addEventListener("change", ({ target }) => {
    if (target.files.length) start(target.files[0]);
    target.value = ""; // the same file can be chosen again
  });
  $("#record").addEventListener("click", startRecording);
  $("#stop").addEventListener("click", stopRecording);
  $("#discard").addEventListener("click", () => {
    recorder.cancel();
    showRecorder(false);
    $("#record").focus();
  });
  $("#cancel").addEventListener("click", () => {
    work.abort();
    sections();
    announce("Cancelled");
    $("#file").focus();
  });
  $("#unlock").addEventListener("submit", (event) => {
    event.preventDefault();
    setKey($("#key").value);
    keyTried = true;
    $("#key").value = "";
    start(file);
  });
  $("#save").addEventListener("submit", (event) => {
    event.preventDefault();
    save($("#format").value);
  });
  listenForDrops();
}

function listenForDrops() {
  const mark = (on) => document.body.classList.toggle("dropping", on);
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    mark(event.dataTransfer.types.includes("Files"));
  });
  document.addEventListener("dragleave", (event) => mark(event.relatedTarget !== null));
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    mark(false);
    const [dropped] = event.dataTransfer.files;
    if (dropped && !recorder) start(dropped);
  });
}

listen();
$("#privacy").textContent = `Any audio or video file with speech. It is sent to ${location.host} and nowhere else.`;
if (!canRecord()) {
  $("#record").disabled = true;
  $("#privacy").textContent += " Recording needs https, or a server on this computer.";
}
