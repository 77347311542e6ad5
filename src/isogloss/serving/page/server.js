// The server's API. Every failure is an Error whose message is one sentence to show.

let key = sessionStorage.getItem('key') ?? '';

export class Refusal extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

export function setKey(value) {
  key = value;
  sessionStorage.setItem('key', value);
}

/** A response of the server that is no refusal. */
async function call(path, options = {}) {
  const headers = { ...options.headers, ...(key && { Authorization: `Bearer ${key}` }) };
  const response = await fetch(path, { ...options, headers }).catch(lost);
  if (response.ok) return response;
  const answer = await response.json().catch(() => null);
  throw new Refusal(answer?.error?.message ?? `The server answered ${response.status} ${response.statusText}.`, response.status);
}

function lost(error) {
  if (error.name === 'AbortError') throw error;
  throw new Refusal('The server cannot be reached; the recording is kept here, so try again when it is back.', 0);
}

/** The server-sent events of a response. */
async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let waiting = '';
  while (true) {
    const { done, value } = await reader.read().catch(lost);
    if (done) return;
    const blocks = (waiting + value).split('\n\n');
    waiting = blocks.pop();
    for (const block of blocks) yield JSON.parse(block.split('\n').find((line) => line.startsWith('data: ')).slice(6));
  }
}

/** The models served: [{id, languages, streams, searches, …}]. */
export async function models() {
  return (await (await call('v1/models')).json()).data;
}

/** A file's transcript as verbose_json; `tell` gets each segment, with its words, as soon as it is known. */
export async function transcribe(file, { language, hotwords, signal }, tell) {
  const form = new FormData();
  form.append('file', file);
  form.append('stream', 'true');
  form.append('response_format', 'verbose_json');
  if (language) form.append('language', language);
  if (hotwords) form.append('prompt', hotwords);
  const response = await call('v1/audio/transcriptions', { method: 'POST', body: form, signal });
  for await (const { type, ...event } of events(response)) {
    if (type === 'transcript.text.delta') tell(event.segment);
    if (type === 'transcript.text.done') return event;
    if (type === 'error') throw new Refusal(event.error.message, 0);
  }
  return lost(new Error('The answer has no end.'));
}

/** What of the index is near a sentence or a file, the nearest first: [{score, text, language, audio, start, end}]. */
export async function search(query, count = 10) {
  const response = await call('v1/search', { method: 'POST', ...(query instanceof Blob ? formOf : jsonOf)(query, count) });
  return (await response.json()).results;
}

function formOf(file, count) {
  const body = new FormData();
  body.append('file', file);
  body.append('count', count);
  return { body };
}

function jsonOf(query, count) {
  return { body: JSON.stringify({ query, count }), headers: { 'Content-Type': 'application/json' } };
}

/** A socket that takes chunks of PCM and tells `tell` each message of the server. */
export function realtime(language, tell) {
  const url = new URL('v1/realtime', location.href);
  url.protocol = url.protocol.replace('http', 'ws');
  if (language) url.searchParams.set('language', language);
  // A browser's socket has no headers: the key travels as a subprotocol, as in OpenAI's API.
  const socket = new WebSocket(url, key ? ['realtime', `openai-insecure-api-key.${key}`] : []);
  const early = []; // said before the socket was open
  socket.onopen = () => early.splice(0).forEach((message) => socket.send(message));
  socket.onmessage = ({ data }) => tell(JSON.parse(data));
  const send = (message) => {
    if (socket.readyState === WebSocket.CONNECTING) early.push(message);
    else if (socket.readyState === WebSocket.OPEN) socket.send(message);
  };
  return { send, finish: () => send('{"type":"finish"}'), close: () => socket.close() };
}
