// Sound as samples: decoded from a file, resampled, written as a WAV file.

export const RATE = 16000; // what the models take
const DRAWN_BYTES = 64 * 2 ** 20; // decoded, a longer file would fill the memory of a small machine

/** The mono samples of a file at 16 kHz, or null where the browser cannot decode it or it is too large. */
export async function decode(file) {
  if (file.size > DRAWN_BYTES) return null;
  try {
    const context = new OfflineAudioContext(1, 1, RATE);
    return mono(await context.decodeAudioData(await file.arrayBuffer()));
  } catch {
    return null;
  }
}

function mono(buffer) {
  const mixed = new Float32Array(buffer.length);
  for (let channel = 0; channel < buffer.numberOfChannels; channel++) {
    const samples = buffer.getChannelData(channel);
    for (let i = 0; i < mixed.length; i++) mixed[i] += samples[i] / buffer.numberOfChannels;
  }
  return mixed;
}

/** The greatest magnitude of any sample. */
export function loudest(samples) {
  let most = 0;
  for (let i = 0; i < samples.length; i++) most = Math.max(most, Math.abs(samples[i]));
  return most;
}

/** 16-bit samples, as the realtime API and WAV files hold them. */
export function pcm(samples) {
  const data = new Int16Array(samples.length); // filled in a loop: `from` takes seconds for an hour of sound
  for (let i = 0; i < data.length; i++) data[i] = Math.round(Math.max(-1, Math.min(1, samples[i])) * 32767);
  return data;
}

/** A WAV file of mono samples at 16 kHz. */
export function wav(samples, name) {
  const data = pcm(samples);
  const head = new DataView(new ArrayBuffer(44));
  const text = (at, letters) => [...letters].forEach((letter, i) => head.setUint8(at + i, letter.charCodeAt(0)));
  text(0, 'RIFF');
  head.setUint32(4, 36 + data.byteLength, true);
  text(8, 'WAVEfmt ');
  head.setUint32(16, 16, true); // bytes of the format
  head.setUint16(20, 1, true); // PCM
  head.setUint16(22, 1, true); // channels
  head.setUint32(24, RATE, true);
  head.setUint32(28, 2 * RATE, true);
  head.setUint16(32, 2, true); // bytes a frame
  head.setUint16(34, 16, true); // bits a sample
  text(36, 'data');
  head.setUint32(40, data.byteLength, true);
  return new File([head, data], name, { type: 'audio/wav' });
}

export function joined(chunks) {
  const all = new Float32Array(chunks.reduce((sum, chunk) => sum + chunk.length, 0));
  let at = 0;
  for (const chunk of chunks) {
    all.set(chunk, at);
    at += chunk.length;
  }
  return all;
}

/** Samples of any rate, chunk by chunk, at 16 kHz: a windowed sinc, cut off below both half rates. */
export class Resampler {
  constructor(rate, zeros = 16) {
    this.step = rate / RATE;
    this.cutoff = 0.94 * Math.min(1, 1 / this.step);
    this.reach = Math.ceil(zeros / this.cutoff); // input samples on each side
    this.waiting = new Float32Array(this.reach); // silence before the first sample
    this.position = this.reach; // of the next output sample, in `waiting`
  }

  push(chunk) {
    const input = joined([this.waiting, chunk]);
    const output = [];
    for (; this.position + this.reach < input.length; this.position += this.step) output.push(this.at(input, this.position));
    const used = Math.floor(this.position) - this.reach;
    this.waiting = input.slice(used);
    this.position -= used;
    return Float32Array.from(output);
  }

  at(input, position) {
    let sum = 0;
    for (let i = Math.ceil(position - this.reach); i <= position + this.reach; i++) {
      const distance = i - position;
      const x = Math.PI * this.cutoff * distance;
      const window = 0.5 + 0.5 * Math.cos((Math.PI * distance) / this.reach);
      sum += input[i] * (x ? Math.sin(x) / x : 1) * this.cutoff * window;
    }
    return sum;
  }
}
