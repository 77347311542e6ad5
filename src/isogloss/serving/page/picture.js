// Sound as a picture: waveform and spectrogram on a canvas, in the colours of the page.

const SIZE = 512; // of the Fourier transform: 32 ms, 31 Hz a row
const RANGE = 60; // decibels from the loudest to the palest
const EMPHASIS = 0.97; // of high frequencies, by what is taken off each sample of the one before

/** Peaks of samples[from:to] as bars from the middle line; a sample of `loudest` fills the height. */
export function drawWaveform(canvas, samples, from, to, loudest) {
  const { context, width, height } = fitted(canvas);
  context.fillStyle = colour(canvas, '--wave');
  for (let x = 0; x < width; x++) {
    const [low, high] = extremes(samples, from + ((to - from) * x) / width, from + ((to - from) * (x + 1)) / width);
    const top = (0.5 - (0.47 * high) / loudest) * height;
    context.fillRect(x, top, 1, Math.max(1, (0.47 * (high - low) * height) / loudest));
  }
}

function extremes(samples, from, to) {
  let [low, high] = [0, 0];
  for (let i = Math.floor(from); i < Math.min(Math.ceil(to), samples.length); i++) {
    low = Math.min(low, samples[i]);
    high = Math.max(high, samples[i]);
  }
  return [low, high];
}

/** Power of samples[from:to], one column of pixels a Fourier transform; the loudest cell has full colour. */
export function drawSpectrogram(canvas, samples, from, to) {
  const { context, width, height } = fitted(canvas);
  const columns = Array.from({ length: width }, (_, x) => spectrum(samples, Math.round(from + ((to - from) * (x + 0.5)) / width)));
  const loudest = columns.reduce((most, column) => column.reduce((a, b) => Math.max(a, b), most), -Infinity);
  const scale = shades(canvas);
  const image = context.createImageData(width, height);
  const pixels = new Uint32Array(image.data.buffer);
  for (let y = 0; y < height; y++) {
    const low = Math.floor(((height - 1 - y) / height) * (SIZE / 2));
    const high = Math.max(low + 1, Math.floor(((height - y) / height) * (SIZE / 2)));
    for (let x = 0; x < width; x++) {
      let power = -Infinity;
      for (let row = low; row < high; row++) power = Math.max(power, columns[x][row]);
      pixels[y * width + x] = scale[Math.round(255 * Math.max(0, 1 + (power - loudest) / RANGE))];
    }
  }
  context.putImageData(image, 0, 0);
}

const WINDOW = Float32Array.from({ length: SIZE }, (_, i) => 0.5 - 0.5 * Math.cos((2 * Math.PI * i) / SIZE));
const COSINES = Float32Array.from({ length: SIZE / 2 }, (_, i) => Math.cos((2 * Math.PI * i) / SIZE));
const SINES = Float32Array.from({ length: SIZE / 2 }, (_, i) => Math.sin((2 * Math.PI * i) / SIZE));

/** Decibels of each frequency below half the rate, around one sample. */
export function spectrum(samples, centre) {
  const start = centre - SIZE / 2;
  const real = WINDOW.map((weight, i) => weight * ((samples[start + i] ?? 0) - EMPHASIS * (samples[start + i - 1] ?? 0)));
  const imaginary = new Float32Array(SIZE);
  transform(real, imaginary);
  return Float32Array.from({ length: SIZE / 2 }, (_, i) => 10 * Math.log10(real[i] ** 2 + imaginary[i] ** 2 + 1e-9));
}

/** Cooley and Tukey's fast Fourier transform, in place. */
function transform(real, imaginary) {
  for (let i = 1, j = 0; i < SIZE; i++) {
    let bit = SIZE >> 1;
    for (; j & bit; bit >>= 1) j ^= bit;
    j ^= bit;
    if (i < j) for (const part of [real, imaginary]) [part[i], part[j]] = [part[j], part[i]];
  }
  for (let length = 2; length <= SIZE; length *= 2) {
    const half = length / 2;
    for (let start = 0; start < SIZE; start += length)
      for (let k = 0; k < half; k++) {
        const [a, b, turn] = [start + k, start + k + half, (k * SIZE) / length];
        const x = real[b] * COSINES[turn] + imaginary[b] * SINES[turn];
        const y = imaginary[b] * COSINES[turn] - real[b] * SINES[turn];
        [real[b], imaginary[b]] = [real[a] - x, imaginary[a] - y];
        [real[a], imaginary[a]] = [real[a] + x, imaginary[a] + y];
      }
  }
}

/** 256 colours from the page's background to its ink, a pixel each. */
function shades(canvas) {
  const strip = new OffscreenCanvas(256, 1).getContext('2d');
  const gradient = strip.createLinearGradient(0, 0, 256, 0);
  ['--shade-0', '--shade-1', '--shade-2', '--shade-3'].forEach((name, i) => gradient.addColorStop(i / 3, colour(canvas, name)));
  strip.fillStyle = gradient;
  strip.fillRect(0, 0, 256, 1);
  return new Uint32Array(strip.getImageData(0, 0, 256, 1).data.buffer);
}

function fitted(canvas) {
  canvas.width = Math.max(1, Math.round(canvas.clientWidth * devicePixelRatio));
  canvas.height = Math.max(1, Math.round(canvas.clientHeight * devicePixelRatio));
  return { context: canvas.getContext('2d'), width: canvas.width, height: canvas.height };
}

function colour(element, name) {
  return getComputedStyle(element).getPropertyValue(name).trim();
}
