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
    const shared = commonDivisor(rate, RATE);
    [this.up, this.down] = [RATE / shared, rate / shared];
    const cutoff = 0.94 * Math.min(1, RATE / rate);
    const reach = Math.ceil(zeros / cutoff); // input samples on each side
    // An output sample lies at one of `up` places between two input samples, each of which has weights of its own.
    this.weights = Array.from({ length: this.up }, (_, phase) =>
      Float32Array.from({ length: 2 * reach }, (_, i) => weight(i - reach + 1 - phase / this.up, cutoff, reach)));
    this.waiting = new Float32Array(reach - 1); // silence before the first sample
    this.start = 0; // in `waiting`, of the input that the next output sample is made of
    this.phase = 0;
  }

  push(chunk) {
    const input = joined([this.waiting, chunk]);
    const output = [];
    for (let weights; this.start + (weights = this.weights[this.phase]).length <= input.length;) {
      let sum = 0;
      for (let i = 0; i < weights.length; i++) sum += weights[i] * input[this.start + i];
      output.push(sum);
      const next = this.phase + this.down;
      this.start += Math.floor(next / this.up);
      this.phase = next % this.up;
    }
    const used = Math.min(this.start, input.length);
    this.waiting = input.slice(used);
    this.start -= used;
    return Float32Array.from(output);
  }
}

/** Of an input sample so far from an output sample. */
function weight(distance, cutoff, reach) {
  const x = Math.PI * cutoff * distance;
  const hann = 0.5 + 0.5 * Math.cos((Math.PI * distance) / reach);
  return cutoff * (x ? Math.sin(x) / x : 1) * hann;
}

function commonDivisor(a, b) {
  return b ? commonDivisor(b, a % b) : a;
}
