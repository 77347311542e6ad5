// A transcript (verbose_json of the server) as subtitles, text or JSON.
// Captions are cut as isogloss.serving.writers cuts them; a test holds the two together.

const LINE_CHARACTERS = 42;
const CAPTION_CHARACTERS = 2 * LINE_CHARACTERS;
const CAPTION_SECONDS = 7;

export const FORMATS = {
  srt: { type: 'application/x-subrip', write: srt },
  vtt: { type: 'text/vtt', write: vtt },
  json: { type: 'application/json', write: (transcript) => JSON.stringify(transcript, null, 1) + '\n' },
  txt: { type: 'text/plain', write: (transcript) => transcript.text + '\n' },
};

/** The segments, each with its words: a word belongs to the last segment that has begun by its middle. */
export function segmentsOf({ words = [], segments = [], text = '', duration = 0 }) {
  const parts = segments.length ? segments : [{ start: 0, end: duration, text }];
  const filled = parts.map((part) => ({ ...part, words: [] }));
  for (const word of words) {
    const middle = (word.start + word.end) / 2;
    filled[Math.max(0, filled.findLastIndex((part) => part.start <= middle))].words.push(word);
  }
  return filled;
}

/** Pieces of text that fit a screen, in order: [{start, end, text}] in milliseconds. */
export function captions(transcript) {
  const last = Math.ceil(transcript.duration * 1000);
  const found = [];
  for (const [start, end, text] of segmentsOf(transcript).flatMap((part) => [...readable(part)])) {
    const previous = found.at(-1);
    const begin = previous ? Math.max(Math.round(start * 1000), previous.end) : Math.min(Math.round(start * 1000), last - 1);
    // Where nothing of the recording is left for them, the words join the last caption.
    if (begin >= last) previous.text += ` ${text}`;
    else found.push({ start: begin, end: Math.min(last, Math.max(Math.round(end * 1000), begin + 1)), text });
  }
  return found;
}

function* readable(part) {
  const spoken = part.words.length ? part.words.map((word) => [word.start, word.end, word.word.trim()])
    : [[part.start, part.end, part.text.trim()]];
  let run = [];
  let start = part.start;
  let end = start;
  for (const [from, to, word] of spoken) {
    if (!word) continue;
    if (run.length && ([...run, word].join(' ').length > CAPTION_CHARACTERS || to - start > CAPTION_SECONDS)) {
      yield [start, end, run.join(' ')];
      run = [];
    }
    if (!run.length) start = from;
    run.push(word);
    end = to;
  }
  if (run.length) yield [start, end, run.join(' ')];
}

function srt(transcript) {
  // SubRip has no escape for the arrow that makes a line of times.
  return captions(transcript).map(({ start, end, text }, number) =>
    `${number + 1}\n${clock(start, ',')} --> ${clock(end, ',')}\n${lines(text.replaceAll('-->', '→'))}\n\n`).join('');
}

function vtt(transcript) {
  const escaped = (text) => text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');
  return 'WEBVTT\n\n' + captions(transcript).map(({ start, end, text }) =>
    `${clock(start, '.')} --> ${clock(end, '.')}\n${escaped(lines(text))}\n\n`).join('');
}

function lines(text) {
  const wrapped = [''];
  for (const word of text.split(/\s+/)) {
    const joined = wrapped.at(-1) ? `${wrapped.at(-1)} ${word}` : word;
    if (wrapped.at(-1) && joined.length > LINE_CHARACTERS) wrapped.push(word);
    else wrapped[wrapped.length - 1] = joined;
  }
  return wrapped.join('\n');
}

function clock(milliseconds, point) {
  const part = (size, wrap, digits = 2) => String(Math.floor(milliseconds / size) % wrap).padStart(digits, '0');
  return `${part(3600000, Infinity)}:${part(60000, 60)}:${part(1000, 60)}${point}${part(1, 1000, 3)}`;
}
