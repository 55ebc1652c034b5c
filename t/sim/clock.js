/*
 * The simulator's time.
 *
 * Two clocks are in use: one for what Nango dates (tokens, rate limits,
 * connections) and one for deliveries (retries, timeouts, the circuit
 * breaker), so that a test can make retries quick without its tokens running
 * out.  A clock may run faster than real time, be moved forward, or stand
 * still; its timers only know its speed.
 */

'use strict';

class Clock {
    constructor(speed) {
        this.speed = speed || 1;
        this.origin = Date.now();
        this.base = this.origin;
        this.lastMicros = 0;
        this.frozen = false;
        this.timers = new Set();
    }

    now() {
        if (this.frozen) {
            return this.base;
        }

        return Math.floor(this.base
                          + (Date.now() - this.origin) * this.speed);
    }

    /*
     * Microseconds, as a database dates its rows.  They strictly grow, so
     * that the order of rows is never a matter of luck; a clock that stands
     * still is taken at its word.
     */
    micros() {
        const at = this.now() * 1000;

        if (this.frozen) {
            return at;
        }

        const fine = at + Math.floor(Math.random() * 1000);

        this.lastMicros = Math.max(fine, this.lastMicros + 1);

        return this.lastMicros;
    }

    set(ms, frozen) {
        this.base = ms;
        this.origin = Date.now();
        this.lastMicros = 0;
        this.frozen = Boolean(frozen);
    }

    advance(ms) {
        this.base = this.now() + ms;
        this.origin = Date.now();
    }

    setSpeed(speed) {
        this.base = this.now();
        this.origin = Date.now();
        this.speed = speed;
    }

    /* Returns a function that cancels. */
    after(ms, fn) {
        const timer = setTimeout(() => {
            this.timers.delete(timer);
            fn();
        }, ms / this.speed);

        this.timers.add(timer);

        return () => {
            clearTimeout(timer);
            this.timers.delete(timer);
        };
    }

    stop() {
        for (const timer of this.timers) {
            clearTimeout(timer);
        }

        this.timers.clear();
    }
}


/* A database row's date: trailing zeros of the fraction are not printed. */
function rowDate(micros) {
    const ms = Math.floor(micros / 1000);
    const rest = String(micros - ms * 1000).padStart(3, '0');
    const text = new Date(ms).toISOString().replace('Z', rest);

    return text.replace(/\.?0+$/, '') + '+00:00';
}


/* The same moment as the API writes it for a single connection. */
function apiDate(ms) {
    return new Date(ms).toISOString().replace('Z', '+00:00');
}


module.exports = { Clock, rowDate, apiDate };
