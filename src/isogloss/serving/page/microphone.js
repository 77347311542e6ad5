// The microphone as chunks of 16 kHz samples.

import { Resampler } from './sound.js';

// As it sounds: what makes calls pleasant to people takes away what models were trained on.
const AUDIO = { channelCount: 1, echoCancellation: false, noiseSuppression: false, autoGainControl: true };
const REASONS = {
  NotAllowedError: 'The browser was not allowed to use the microphone; allow it in the site settings, or choose a file.',
  NotFoundError: 'No microphone was found; connect one, or choose a file.',
  NotReadableError: 'The microphone is in use by another program; close that, or choose a file.',
};

/** Starts recording: `take` gets each chunk, `ended` is called if the microphone goes away.
 * Resolves to a function that stops it, rejects with a sentence. */
export async function listen(take, ended) {
  if (!navigator.mediaDevices)
    throw new Error('The browser gives the microphone only to pages from localhost or over https; choose a file instead.');
  const stream = await navigator.mediaDevices.getUserMedia({ audio: AUDIO }).catch((error) => {
    throw new Error(REASONS[error.name] ?? `The microphone cannot be used: ${error.message}.`);
  });
  stream.getTracks().forEach((track) => track.addEventListener('ended', ended)); // not by our own stop()
  const context = new AudioContext();
  const stop = () => {
    stream.getTracks().forEach((track) => track.stop());
    return context.close();
  };
  try {
    await context.audioWorklet.addModule('capture.js');
  } catch (error) {
    await stop();
    throw new Error(`The microphone cannot be read: ${error.message}.`);
  }
  const capture = new AudioWorkletNode(context, 'capture', { numberOfOutputs: 0, channelCount: 1, channelCountMode: 'explicit' });
  const resampler = new Resampler(context.sampleRate);
  capture.port.onmessage = ({ data }) => take(resampler.push(data));
  context.createMediaStreamSource(stream).connect(capture);
  return stop;
}
