/** The listening test: join or resume, ask one question after the other, save each answer, thank. */

import { AlignedPlayer, bindKeys, decodeAudio } from "./player.js";
import { AbxQuestion, MushraQuestion, make } from "./questions.js";
import { Timeline, clock } from "./timeline.js";

const SESSION = "hifispeech-listening-session";
const RETRY_MS = [500, 5000]; // first and longest wait while the server does not answer
const SHORTEST_HEARING_S = 0.3; // a track counts as heard after this much of it, or all of a shorter one

const $ = (id) => document.getElementById(id);
const player = new AlignedPlayer();

const page = {
  question: null, // AbxQuestion or MushraQuestion
  session: null, // token
  number: 0, // of the open question
  heard_s: [], // of each track
  shown_ms: 0, // when the question was ready
  busy: true, // loading or saving
  release: () => {}, // ends the key binding
};

start().catch(report);

async function start() {
  new Timeline($("bar"), player);
  player.addEventListener("change", drawPlayer);
  player.addEventListener("tick", tick);
  $("play").addEventListener("click", () => player.toggle());
  $("unloop").addEventListener("click", () => player.clearLoop());
  $("leave").addEventListener("click", leave);
  $("join").addEventListener("submit", (event) => act(event, join));
  $("question").addEventListener("submit", (event) => act(event, save));

  const test = await request("GET", "api/test");
  $("title").textContent = document.title = test.title;
  const session = localStorage.getItem(SESSION);
  const state = session && (await request("GET", `api/sessions/${session}`).catch(unknown));
  if (state) await show(state, true);
  else welcome();
}

/** A session of another test that was served at this address before. */
function unknown(error) {
  if (error.status !== 404) throw error;
  localStorage.removeItem(SESSION);
  return null;
}

function act(event, work) {
  event.preventDefault();
  work().catch(report);
}

function welcome() {
  view("join");
  $("name").focus();
}

async function join() {
  const state = await request("POST", "api/sessions", { listener: $("name").value });
  localStorage.setItem(SESSION, state.session);
  await show(state, state.done > 0);
}

function leave() {
  localStorage.removeItem(SESSION);
  location.reload();
}

/** Go on where `state`, the server's word, says. */
async function show(state, is_resumed = false) {
  page.session = state.session;
  $("listener").textContent = state.listener;
  $("who").hidden = false;
  if (state.slots === null) return thank(state);
  $("saved").textContent = is_resumed ? "Welcome back: you go on where you were." : "";
  await ask(state);
}

async function ask(state) {
  const { kind, slots, done, total } = state;
  page.busy = true;
  page.number = done + 1;
  page.question ??= prepare(kind);
  page.question.show(slots);
  player.load([]);
  page.heard_s = slots.map(() => 0);
  view("question");
  $("heading").textContent = `Question ${page.number} of ${total}`;
  $("progress").max = total;
  $("progress").value = done;
  $("hint").textContent = "Loading …";
  $("heading").focus();
  const path = `api/sessions/${page.session}/questions/${page.number}`;
  const sounds = await Promise.all(slots.map((slot) => request("GET", `${path}/${slot}`)));
  player.load(await Promise.all(sounds.map(decodeAudio)));
  page.shown_ms = performance.now();
  page.busy = false;
  hint();
}

function prepare(kind) {
  const question = new (kind === "abx" ? AbxQuestion : MushraQuestion)($("answer"), player, hint);
  const radios = question.tracks.map((name, i) => {
    const input = make("input", { type: "radio", name: "track", value: i });
    for (const type of ["change", "click"]) input.addEventListener(type, () => player.select(i));
    return make("label", {}, input, make("span", {}, name));
  });
  $("tracks").replaceChildren(...radios);
  const common = [
    ["Space", "play, pause"],
    ["← →", "back, forward"],
    ["I O", "repeat from here, up to here"],
    ["L", "stop repeating"],
    ["Enter", "save and go on"],
  ];
  for (const [keys, text] of [...question.help, ...common]) {
    const caps = keys.split(" ").map((key) => make("kbd", {}, key));
    $("keys").append(make("div", {}, make("dt", {}, ...caps), make("dd", {}, text)));
  }
  page.release = bindKeys(player, { actions: { ...question.keys, enter } });
  return question;
}

/** Enter saves, but for controls that have their own use for it. */
function enter() {
  const focused = document.activeElement;
  if (focused?.matches("summary, button:not(#next)")) focused.click();
  else if (!$("question").hidden) $("question").requestSubmit();
}

/** What is missing before the answer can be saved, or null. */
function missing() {
  if (page.busy || !player.count) return "Loading …";
  const enough_s = Math.min(SHORTEST_HEARING_S, 0.9 * player.duration_s);
  const names = $("tracks").querySelectorAll("span");
  const unheard = page.heard_s
    .map((time_s, i) => (time_s < enough_s ? (names[i]?.textContent ?? String(i)) : null))
    .filter((name) => name !== null);
  if (unheard.length) return `Still to hear: ${unheard.join(", ")}.`;
  return page.question.missing();
}

function hint() {
  const text = missing();
  say("hint", text ?? "");
  $("next").classList.toggle("main", text === null);
}

async function save() {
  const text = missing();
  if (text !== null) {
    $("announcer").textContent = ""; // so that the same words are announced again
    requestAnimationFrame(() => ($("announcer").textContent = text));
    return;
  }
  page.busy = true;
  player.pause();
  $("hint").textContent = "Saving …";
  const seconds = (performance.now() - page.shown_ms) / 1000;
  const path = `api/sessions/${page.session}/questions/${page.number}`;
  try {
    await show(await request("PUT", path, { ...page.question.answer(), seconds }));
    $("announcer").textContent = "Saved.";
  } catch (error) {
    if (error.status !== 409) throw error; // else: answered in another window; go on where the server is
    await show(await request("GET", `api/sessions/${page.session}`));
  }
}

function thank({ total }) {
  player.load([]);
  page.release();
  view("thanks");
  $("thanks-text").textContent = `All ${total} answers are saved. You can close this page.`;
  $("thanks-heading").focus();
}

let hearing = { track: 0, since_ms: null }; // what sounds, and since when

/** Credit the audible recording with the time since the last look, by the clock: frames may be late. */
function listen() {
  const now_ms = performance.now();
  if (hearing.since_ms !== null) page.heard_s[hearing.track] += (now_ms - hearing.since_ms) / 1000;
  hearing = { track: player.active, since_ms: player.playing ? now_ms : null };
}

function tick() {
  listen();
  drawTime();
  hint();
}

function drawPlayer() {
  listen();
  $("play").classList.toggle("playing", player.playing);
  $("play").setAttribute("aria-label", player.playing ? "Pause" : "Play");
  $("unloop").hidden = !player.loop;
  for (const [i, input] of $("tracks").querySelectorAll("input").entries()) input.checked = i === player.active;
  page.question?.draw();
  drawTime();
  if (page.question) hint();
}

function drawTime() {
  $("time").textContent = player.count ? `${clock(player.position_s)} / ${clock(player.duration_s)}` : "";
}

function view(name) {
  for (const id of ["join", "question", "thanks"]) $(id).hidden = id !== name;
}

/**
 * Talk to the server: JSON, or bytes of sound. While there is no answer it asks again, for as long as it
 * takes: the server keeps what it has confirmed, and takes the same answer twice as one.
 */
async function request(method, path, body) {
  for (let wait_ms = RETRY_MS[0]; ; wait_ms = Math.min(RETRY_MS[1], 2 * wait_ms)) {
    let response;
    try {
      const headers = body ? { "Content-Type": "application/json" } : {};
      response = await fetch(path, { method, headers, body: body && JSON.stringify(body) });
      const is_sound = response.headers.get("Content-Type")?.startsWith("audio/");
      const content = await (is_sound ? response.arrayBuffer() : response.json());
      if (response.ok) {
        problem(null);
        return content;
      }
      throw Object.assign(new Error(content.error.message), { status: response.status });
    } catch (error) {
      if (error.status) throw error;
      problem("The test does not answer. Nothing is lost: this page goes on when it is back.");
    }
    await new Promise((resolve) => setTimeout(resolve, wait_ms));
  }
}

function problem(text) {
  say("problem-text", text ?? "");
  $("problem").hidden = text === null;
}

/** Set a text that is read out when it changes, and only then. */
function say(id, text) {
  if ($(id).textContent !== text) $(id).textContent = text;
}

/** Show an error that asking again does not cure. */
function report(error) {
  page.busy = false;
  problem(error.message);
}
