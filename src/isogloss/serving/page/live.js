// A recording while it is made: its level, and the words that a streaming model finds.

import { $, clock } from './dom.js';
import { listen } from './microphone.js';
import { realtime } from './server.js';
import { RATE, joined, loudest, pcm } from './sound.js';

const BAR = 4; // pixels a chunk of the level

/** Starts recording. Resolves to a function that stops and resolves to the samples.
 * streams: whether the model finds words meanwhile. ended: as of `listen`. */
export async function record(streams, language, ended) {
  const chunks = [];
  const peaks = [];
  let count = 0;
  let frame = 0;
  $('final').textContent = '';
  $('partial').textContent = streams ? '' : 'The words come after the recording: this model needs all of it.';
  const socket = streams ? realtime(language, tell) : null;
  const stop = await listen((chunk) => {
    chunks.push(chunk);
    count += chunk.length;
    socket?.send(pcm(chunk));
    peaks.push(loudest(chunk));
    frame ||= requestAnimationFrame(() => {
      frame = 0;
      $('elapsed').textContent = clock(count / RATE);
      drawLevel(peaks);
    });
  }, ended).catch((error) => {
    socket?.close();
    throw error;
  });
  return async () => {
    await stop();
    socket?.close(); // the whole recording is transcribed next
    return joined(chunks);
  };
}

function tell(message) {
  if (message.type === 'word') $('final').append(` ${message.word}`);
  if (message.type === 'partial') $('partial').textContent = message.text;
  // The recording goes on: it is transcribed as a whole at the end.
  if (message.type === 'error') $('partial').textContent = message.error.message;
}

function drawLevel(peaks) {
  const canvas = $('level');
  const scale = devicePixelRatio;
  canvas.width = canvas.clientWidth * scale;
  canvas.height = canvas.clientHeight * scale;
  const context = canvas.getContext('2d');
  context.fillStyle = getComputedStyle(canvas).color;
  peaks.slice(-Math.floor(canvas.clientWidth / BAR)).reverse().forEach((peak, i) => {
    const height = Math.max(2, Math.sqrt(peak) * canvas.clientHeight) * scale;
    context.fillRect(canvas.width - (i + 1) * BAR * scale, (canvas.height - height) / 2, (BAR - 2) * scale, height);
  });
}
