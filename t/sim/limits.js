/*
 * Nango's rate limit: so many requests of an account in a minute that begins
 * with the first of them.  Keys and session tokens are counted apart, all
 * keys together.
 */

'use strict';

const MINUTE = 60000;


class Limits {
    constructor(clock, settings) {
        this.clock = clock;
        this.settings = settings;
        this.windows = new Map();
    }

    clear() {
        this.windows.clear();
    }

    /* Counts one request; refused is the wait in seconds, or null. */
    take(bucket) {
        const now = this.clock.now();
        const limit = this.settings.rate_limit;
        let window = this.windows.get(bucket);

        if (!window || now >= window.ends) {
            window = { used: 0, ends: now + MINUTE };
            this.windows.set(bucket, window);
        }

        window.used++;

        return {
            headers: [
                'X-RateLimit-Limit', String(limit),
                'X-RateLimit-Remaining',
                String(Math.max(0, limit - window.used)),
                'X-RateLimit-Reset', String(Math.floor(window.ends / 1000)),
            ],
            refused: window.used > limit
                     ? Math.floor((window.ends - now) / 1000) : null,
        };
    }
}


module.exports = { Limits };
