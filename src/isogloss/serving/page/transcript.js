// A transcript on the page: words that can be heard, each with its time and confidence; the guess of the language.

import { $, clock, element, languageName, percent } from './dom.js';
import { playStretch } from './player.js';
import { segmentsOf } from './subtitles.js';

const SURE = 0.8;
const DOUBTFUL = 0.5;
const LANGUAGES = 5; // shown at most

let buttons = []; // of the words, in order
let words = [];
let marked; // the button of the word being spoken

/** Forgets what is shown. */
export function clear() {
  [words, buttons, marked] = [[], [], undefined];
  $('words').replaceChildren();
}

/** One more segment, with its words. */
export function add(part) {
  const made = part.words.map(wordButton);
  const spoken = made.length ? made.flatMap((button) => [button, ' ']) : [part.text];
  $('words').append(element('p', { dir: 'auto' }, element('span', { class: 'at number' }, clock(part.start)), ...spoken));
  words.push(...part.words);
  buttons.push(...made);
  if (buttons.length) buttons[0].tabIndex = 0;
}

/** The whole transcript: what has not been added of it since `clear`, and its language. */
export function show(transcript) {
  segmentsOf(transcript).slice($('words').childElementCount).forEach(add);
  $('words').lang = transcript.language ?? '';
  if (!transcript.text) $('words').replaceChildren(element('p', { class: 'quiet', lang: 'en' }, 'No words were recognised.'));
  $('words-help').hidden = !words.length;
  showLanguages(transcript);
}

/** Marks the word that is spoken at `seconds`. */
export function mark(seconds) {
  const spoken = buttons[words.findIndex(({ start, end }) => start <= seconds && seconds < end)];
  if (spoken === marked) return;
  marked?.classList.remove('now');
  spoken?.classList.add('now');
  marked = spoken;
}

function wordButton(word) {
  const sure = word.confidence ?? 1;
  const level = sure < DOUBTFUL ? 'doubtful' : sure < SURE ? 'unsure' : null;
  const facts = `${clock(word.start, 1)} · ${percent(sure)}`;
  // The title is also what a screen reader tells after the word.
  const text = element('span', { class: level }, word.word.trim());
  const button = element('button', { type: 'button', tabindex: -1, title: facts, 'data-facts': facts }, text);
  button.addEventListener('click', () => {
    focusOn(button, false);
    playStretch(word.start, word.end);
  });
  return button;
}

/** One word of all is in the tab order; the arrow keys go on from there. */
function focusOn(button, scroll = true) {
  for (const other of buttons) other.tabIndex = other === button ? 0 : -1;
  button.focus({ preventScroll: !scroll });
}

$('words').addEventListener('keydown', (event) => {
  const at = buttons.indexOf(document.activeElement);
  const next = { ArrowRight: at + 1, ArrowLeft: at - 1, ArrowDown: beside(at, 1), ArrowUp: beside(at, -1), Home: 0, End: buttons.length - 1 }[event.key];
  if (at < 0 || next === undefined) return;
  event.preventDefault();
  focusOn(buttons[Math.max(0, Math.min(buttons.length - 1, next))]);
});

/** The word nearest to this one on the next line (direction 1) or the one before (-1). */
function beside(at, direction) {
  const box = (button) => button.getBoundingClientRect();
  const here = box(buttons[at]);
  const middle = here.left + here.width / 2;
  let best = at;
  let line = null;
  for (let i = at + direction; buttons[i]; i += direction) {
    const { top, left, width } = box(buttons[i]);
    if (Math.abs(top - here.top) < here.height / 2) continue;
    line ??= top;
    if (Math.abs(top - line) > here.height / 2) break;
    if (best === at || Math.abs(left + width / 2 - middle) < Math.abs(box(buttons[best]).left + box(buttons[best]).width / 2 - middle)) best = i;
  }
  return best;
}

function showLanguages({ probabilities = {} }) {
  const ranked = Object.entries(probabilities).sort(([, a], [, b]) => b - a).slice(0, LANGUAGES);
  $('guess').hidden = !ranked.length;
  $('languages').replaceChildren(...ranked.map(([tag, share]) => {
    const bar = element('span', { class: 'bar', 'aria-hidden': true });
    bar.style.setProperty('--share', share);
    return element('li', {}, element('span', {}, languageName(tag)), element('span', { class: 'number' }, percent(share)), bar);
  }));
}
