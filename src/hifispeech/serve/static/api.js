/**
 * The server's HTTP API as the page uses it: start a job, follow it, fetch its result. The report of the job
 * says what was measured, so that the file is sent once.
 *
 * Every failure is an `ApiError` whose message can be shown to the user; aborted work rejects with the
 * "AbortError" of its signal.
 */

const POLL_MS = [150, 2000]; // first and longest wait between two looks at a job
const MOST_TRIES = 20; // while the server is busy
const MOST_LOST = 15; // looks at a job without an answer: a server that starts again goes on with its jobs

let key = null;

/** Send this API key from now on. */
export function setKey(value) {
  key = value;
}

/** `status` is 0 when there was no answer at all. */
export class ApiError extends Error {
  constructor(message, { status = 0, code = "no_answer", retry_after_s = null } = {}) {
    super(message);
    Object.assign(this, { name: "ApiError", status, code, retry_after_s });
  }
}

/**
 * Run a job to its end; resolves to `{ job, blob }`: its last status and the audio in `format`.
 *
 * `onState(name, share)` is called with "upload", "busy" (the queue is full; it tries again), "queued",
 * "running", "lost" (no answer for the moment) and "fetch", and the share done, 0 to 1, or null. The server is
 * told to forget the job at the end, also when `signal` aborts.
 */
export async function upscale(file, { format, onState, signal }) {
  const started = await submit(file, { format, onState, signal });
  const path = `v1/jobs/${encodeURIComponent(started.id)}`;
  const forget = () => request(path, { method: "DELETE", keepalive: true }).catch(() => {});
  window.addEventListener("pagehide", forget);
  try {
    const job = await follow(path, { onState, signal });
    onState("fetch", null);
    const response = await request(`${path}/result`, { signal });
    return { job, blob: await response.blob() };
  } catch (error) {
    throw signal.aborted ? signal.reason : error;
  } finally {
    window.removeEventListener("pagehide", forget);
    forget();
  }
}

async function submit(file, { format, onState, signal }) {
  for (let tries = 1; ; tries++) {
    try {
      const onProgress = (share) => onState("upload", share);
      return await upload(`v1/jobs?format=${format}`, file, { onProgress, signal });
    } catch (error) {
      if (error.status !== 429 || tries === MOST_TRIES) throw error;
      onState("busy", null);
      await wait(1000 * (error.retry_after_s ?? 2), signal);
    }
  }
}

async function follow(path, { onState, signal }) {
  let lost = 0;
  for (let pause_ms = POLL_MS[0]; ; pause_ms = Math.min(POLL_MS[1], pause_ms * 1.2)) {
    let job;
    try {
      job = await (await request(path, { signal })).json();
      lost = 0;
    } catch (error) {
      if (![0, 503].includes(error.status) || ++lost > MOST_LOST) throw error;
      onState("lost", null);
      await wait(POLL_MS[1], signal);
      continue;
    }
    if (job.status === "done") return job;
    if (job.status === "failed") throw new ApiError(job.error, { status: 200, code: "failed" });
    if (job.status === "cancelled") throw new ApiError("The server cancelled this job.", { code: "cancelled" });
    onState(job.status, job.status === "running" ? job.progress : null);
    await wait(pause_ms, signal);
  }
}

/** POST a file as multipart form, by XMLHttpRequest, since `fetch` does not tell how far an upload is. */
function upload(path, file, { onProgress = () => {}, signal }) {
  return new Promise((resolve, reject) => {
    const sender = new XMLHttpRequest();
    const abort = () => sender.abort();
    const fail = () => reject(new ApiError(NO_ANSWER));
    sender.open("POST", path);
    for (const [name, value] of Object.entries(headers())) sender.setRequestHeader(name, value);
    sender.upload.onprogress = ({ loaded, total }) => onProgress(total ? loaded / total : null);
    sender.onload = () => {
      const { status, responseText } = sender;
      if (status < 300) resolve(JSON.parse(responseText));
      else reject(failure(status, responseText, sender.getResponseHeader("Retry-After")));
    };
    sender.onerror = fail;
    sender.onabort = () => reject(signal?.aborted ? signal.reason : new ApiError(NO_ANSWER));
    sender.onloadend = () => signal?.removeEventListener("abort", abort);
    if (signal?.aborted) return reject(signal.reason);
    signal?.addEventListener("abort", abort);
    const form = new FormData();
    form.append("file", file, file.name);
    sender.send(form);
  });
}

async function request(path, options) {
  let response;
  try {
    response = await fetch(path, { ...options, headers: headers() });
  } catch (error) {
    throw options.signal?.aborted ? options.signal.reason : new ApiError(NO_ANSWER);
  }
  if (response.ok) return response;
  throw failure(response.status, await response.text(), response.headers.get("Retry-After"));
}

const NO_ANSWER = "The server does not answer. Check that it is still running, then try again.";

function failure(status, text, retry_after) {
  const known = { status, retry_after_s: retry_after === null ? null : Number(retry_after) };
  try {
    const { code, message } = JSON.parse(text).error;
    return new ApiError(message, { ...known, code });
  } catch {
    return new ApiError(`The server answered with status ${status} and no explanation.`, known);
  }
}

function headers() {
  return key === null ? {} : { Authorization: `Bearer ${key}` };
}

function wait(time_ms, signal) {
  return new Promise((resolve, reject) => {
    const stop = () => {
      clearTimeout(timer);
      reject(signal.reason);
    };
    const timer = setTimeout(() => {
      signal.removeEventListener("abort", stop);
      resolve();
    }, time_ms);
    if (signal.aborted) stop();
    signal.addEventListener("abort", stop, { once: true });
  });
}
