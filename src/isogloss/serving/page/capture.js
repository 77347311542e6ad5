// In the audio thread: hands the microphone's samples to the page, 2048 at a time.

const CHUNK = 2048;

registerProcessor('capture', class extends AudioWorkletProcessor {
  constructor() {
    super();
    this.chunk = new Float32Array(CHUNK);
    this.filled = 0;
  }

  process([[samples]]) {
    for (const sample of samples ?? []) {
      this.chunk[this.filled++] = sample;
      if (this.filled === CHUNK) {
        this.port.postMessage(this.chunk);
        this.filled = 0;
      }
    }
    return true;
  }
});
