// How fast a transfer is, for people to read.

/** Seconds over which the rate is smoothed: buffers take bytes in bursts. */
const SMOOTHING = 5;

export class Meter {
  #rate = 0;
  #total = 0;
  #then = -1;

  /**
   * Take notice of a total of bytes, and return the rate in bytes a second; 0 if it is not known yet.
   * @param {number} total @param {number} now seconds of any clock
   */
  read(total, now) {
    const seconds = now - this.#then;
    if (this.#then < 0 || total < this.#total) {
      [this.#then, this.#total, this.#rate] = [now, total, 0];
    } else if (seconds >= 0.2) {
      const recent = (total - this.#total) / seconds;
      const share = this.#rate ? 1 - Math.exp(-seconds / SMOOTHING) : 1;
      this.#rate += share * (recent - this.#rate);
      [this.#then, this.#total] = [now, total];
    }
    return this.#rate;
  }
}
