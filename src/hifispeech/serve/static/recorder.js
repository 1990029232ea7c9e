/** Records the microphone, untouched by echo or noise filters, to a WAV file. */

/**
 * Ask for the microphone and record at once. Resolves to `{ stop, cancel }`: `stop()` gives a mono 16-bit WAV
 * File at the device's rate, `cancel()` throws the recording away. `onBlock(seconds, peak)` is called for
 * every block that came in. Rejects with an Error that says what to do.
 */
export async function record(onBlock) {
  const stream = await microphone();
  const context = new AudioContext();
  const blocks = [];
  let frames = 0;
  const close = () => {
    for (const track of stream.getTracks()) track.stop();
    return context.close();
  };
  try {
    await context.audioWorklet.addModule(new URL("recorder-worklet.js", import.meta.url));
    const tap = new AudioWorkletNode(context, "tap", { numberOfOutputs: 0 });
    tap.port.onmessage = ({ data }) => {
      blocks.push(data);
      frames += data.length;
      onBlock(frames / context.sampleRate, data.reduce((most, x) => Math.max(most, Math.abs(x)), 0));
    };
    context.createMediaStreamSource(stream).connect(tap);
    await context.resume();
  } catch (error) {
    await close();
    throw error;
  }
  const stop = async () => {
    await close();
    if (!frames) throw new Error("Nothing was recorded; hold on a little longer.");
    return new File([wav(blocks, frames, context.sampleRate)], "recording.wav", { type: "audio/wav" });
  };
  return { stop, cancel: close };
}

/** Whether this page may ask for a microphone: browsers allow it on localhost and over https only. */
export const canRecord = () => Boolean(navigator.mediaDevices?.getUserMedia);

async function microphone() {
  const audio = { channelCount: 1, echoCancellation: false, noiseSuppression: false, autoGainControl: false };
  try {
    return await navigator.mediaDevices.getUserMedia({ audio });
  } catch (error) {
    if (error.name === "NotAllowedError") {
      throw new Error("The browser did not allow the microphone. Allow it next to the address, then try again.");
    }
    if (error.name === "NotFoundError") throw new Error("No microphone was found. Connect one, then try again.");
    throw new Error(`The microphone cannot be used: ${error.message}`);
  }
}

function wav(blocks, frames, sample_rate) {
  const view = new DataView(new ArrayBuffer(44 + 2 * frames));
  const text = (at, word) => [...word].forEach((letter, i) => view.setUint8(at + i, letter.charCodeAt(0)));
  text(0, "RIFF");
  view.setUint32(4, 36 + 2 * frames, true);
  text(8, "WAVEfmt ");
  view.setUint32(16, 16, true);
  view.setUint16(20, 1, true); // PCM
  view.setUint16(22, 1, true); // mono
  view.setUint32(24, sample_rate, true);
  view.setUint32(28, 2 * sample_rate, true);
  view.setUint16(32, 2, true);
  view.setUint16(34, 16, true);
  text(36, "data");
  view.setUint32(40, 2 * frames, true);
  let at = 44;
  for (const block of blocks) {
    for (const x of block) {
      view.setInt16(at, Math.max(-32768, Math.min(32767, Math.round(x * 32768))), true);
      at += 2;
    }
  }
  return view;
}
