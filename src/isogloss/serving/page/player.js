// The recording: heard, and seen as waveform and spectrogram, a window of it at a time.

import { drawSpectrogram, drawWaveform } from './picture.js';
import { RATE, wav } from './sound.js';
import { $, clock } from './dom.js';

const WINDOW = 20; // seconds seen at once
const MARGIN = 0.04; // seconds after a word that are heard with it

const audio = $('audio');
let samples = null;
let shown = [0, 1]; // seconds seen
let until = Infinity; // where playing stops
let onTime = () => {};

/** Shows and loads a recording. decoded: its samples, null where the browser cannot decode it. */
export function load(file, decoded) {
  audio.pause();
  URL.revokeObjectURL(audio.src);
  samples = decoded;
  // Of decoded samples every position is exact, which the browsers' own seeking in MP3 and WebM is not.
  audio.src = URL.createObjectURL(decoded ? wav(decoded, file.name) : file);
  $('picture').hidden = !decoded;
  playable(true);
  seen(0);
  moved();
}

/** Plays from `start` to `end` seconds. */
export function playStretch(start, end) {
  audio.currentTime = start;
  until = end + MARGIN;
  audio.play();
}

/** `tell(seconds)` is called while time passes, and after a jump. */
export function follow(tell) {
  onTime = tell;
}

function duration() {
  return samples ? samples.length / RATE : audio.duration || 0;
}

function seen(from) {
  const length = Math.min(WINDOW, duration());
  shown = [from, from + length];
  redraw();
}

/** Draws what is seen, which needs a place on the page: again after that has changed. */
export function redraw() {
  if (!samples || !$('waveform').clientWidth) return;
  const [from, to] = shown.map((second) => Math.round(second * RATE));
  drawWaveform($('waveform'), samples, from, to);
  drawSpectrogram($('spectrogram'), samples, from, to);
  const marks = 4;
  $('scale').replaceChildren(...Array.from({ length: marks + 1 }, (_, i) => {
    const mark = document.createElement('span');
    mark.textContent = clock(shown[0] + ((shown[1] - shown[0]) * i) / marks, 1);
    return mark;
  }));
}

function playable(can) {
  $('player').hidden = !can;
  $('unplayable').hidden = can;
}

function moved() {
  const now = audio.currentTime;
  const [from, to] = shown;
  if (samples && (now < from || now > to)) seen(Math.floor(now / WINDOW) * WINDOW);
  $('cursor').style.setProperty('--at', (now - shown[0]) / (shown[1] - shown[0]));
  $('seek').max = duration();
  $('seek').value = now;
  $('seek').setAttribute('aria-valuetext', `${clock(now, 1)} of ${clock(duration(), 1)}`);
  $('time').textContent = `${clock(now, 1)} / ${clock(duration(), 1)}`;
  onTime(now);
}

function tick() {
  if (audio.currentTime >= until) audio.pause();
  moved();
  if (!audio.paused) requestAnimationFrame(tick);
}

function jump(event) {
  const { left, width } = event.currentTarget.getBoundingClientRect();
  until = Infinity;
  audio.currentTime = shown[0] + ((event.clientX - left) / width) * (shown[1] - shown[0]);
}

$('play').addEventListener('click', () => {
  until = Infinity;
  if (audio.paused) audio.play();
  else audio.pause();
});
$('seek').addEventListener('input', () => {
  until = Infinity;
  audio.currentTime = Number($('seek').value);
});
for (const picture of ['waveform', 'spectrogram']) $(picture).addEventListener('pointerdown', jump);
for (const event of ['play', 'pause'])
  audio.addEventListener(event, () => {
    $('play').classList.toggle('playing', !audio.paused);
    $('play').setAttribute('aria-label', audio.paused ? 'Play' : 'Pause');
    if (!audio.paused) requestAnimationFrame(tick);
  });
for (const event of ['seeked', 'loadedmetadata', 'ended']) audio.addEventListener(event, moved);
audio.addEventListener('error', () => playable(false));
addEventListener('resize', redraw);
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', redraw);
