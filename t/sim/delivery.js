/*
 * How webhooks are delivered: three attempts at 0, +3 s and +9 s after 5xx
 * and network errors only, 20 s for each, redirects followed as a client
 * library would, a circuit breaker per URL, the second URL when the first is
 * done with.  Every delivery and its outcome is kept in a list of bounded
 * length.  A delivery keeps its key and its bytes through all attempts.
 */

'use strict';

const crypto = require('node:crypto');
const http = require('node:http');
const https = require('node:https');

const RETRY_WAITS = [3000, 6000];
const TIMEOUT = 20000;
const MAX_REDIRECTS = 5;
const MAX_KEPT = 10000;
const MAX_ANSWER = 4096;

const RETRIED_ERRORS = ['ECONNRESET', 'ETIMEDOUT', 'ECONNABORTED',
                        'ECONNREFUSED', 'EHOSTUNREACH', 'EAI_AGAIN'];


/* Signatures over the exact bytes; the second is the unsafe, older one. */
function sign(key, body) {
    return {
        hmac: crypto.createHmac('sha256', key).update(body).digest('hex'),
        hash: crypto.createHash('sha256').update(key).update(body)
            .digest('hex'),
    };
}


/*
 * Failures are counted in a window that begins with the first of them.  When
 * the breaker has been open for its time one delivery may try: that opens or
 * closes it again.
 */
class Breaker {
    constructor(clock, settings) {
        this.clock = clock;
        this.settings = settings;
        this.urls = new Map();
    }

    clear() {
        this.urls.clear();
    }

    /*
     * Whether an attempt may be made: "yes", "no", or "trial".  A trial keeps
     * the circuit open for the others, and leaves it so if it fails.
     */
    admit(url) {
        const state = this.urls.get(url);

        if (!this.settings.breaker || !state || !state.openUntil) {
            return 'yes';
        }

        if (this.clock.now() < state.openUntil) {
            return 'no';
        }

        state.openUntil = this.clock.now() + this.settings.breaker_open_ms;

        return 'trial';
    }

    note(url, ok, admitted) {
        const now = this.clock.now();
        let state = this.urls.get(url);

        if (ok) {
            if (admitted === 'trial') {
                this.urls.delete(url);
            }

            return;
        }

        if (!state || (!state.openUntil && now >= state.windowEnds)) {
            state = {
                failures: 0,
                windowEnds: now + this.settings.breaker_window_ms,
                openUntil: 0,
            };
            this.urls.set(url, state);
        }

        state.failures++;

        if (!state.openUntil
            && state.failures >= this.settings.breaker_failures)
        {
            state.openUntil = now + this.settings.breaker_open_ms;
        }
    }

    view() {
        return Object.fromEntries([...this.urls].map(([url, state]) => [url, {
            failures: state.failures,
            open: state.openUntil > this.clock.now(),
        }]));
    }
}


/* A URL that is none, a header that may not be: nothing to try again. */
function unsendable(e) {
    return { ok: false, retry: false, error: e.code || e.message };
}


class Deliveries {
    constructor({ clock, settings }) {
        this.clock = clock;
        this.settings = settings;
        this.breaker = new Breaker(clock, settings);
        this.agents = {
            'http:': new http.Agent({ keepAlive: true }),
            'https:': new https.Agent({ keepAlive: true }),
        };
        this.kept = [];
        this.lastId = 0;
        this.underWay = 0;
        this.idleWaiters = [];
        this.cancels = new Set();
        this.stopped = false;
    }

    clear() {
        this.kept = [];
        this.breaker.clear();
    }

    stop() {
        this.stopped = true;

        for (const cancel of this.cancels) {
            cancel();
        }

        this.agents['http:'].destroy();
        this.agents['https:'].destroy();
        this.clock.stop();
    }

    /* The newest deliveries, oldest of them first. */
    list() {
        return this.kept.slice(-MAX_KEPT);
    }

    /* Calls back when nothing is under way, at once if that is now. */
    whenIdle(fn) {
        if (this.underWay === 0) {
            fn();
        } else {
            this.idleWaiters.push(fn);
        }
    }

    /*
     * Begins a delivery and returns its record, which fills as it goes.
     * urls: tried one after the other.  before: headers that come ahead of
     * Nango's own (a forwarded webhook brings the provider's).
     */
    begin({ urls, body, key, describe, before, signatures, then }) {
        const record = {
            id: ++this.lastId,
            at: new Date().toISOString(),
            ...describe,
            body,
            signatures: { ...sign(key, body), ...signatures },
            outcome: 'pending',
            targets: urls.map((url) => ({ url, outcome: 'pending',
                                          attempts: [] })),
        };

        this.kept.push(record);

        if (this.kept.length >= 2 * MAX_KEPT) {
            this.kept = this.kept.slice(-MAX_KEPT);
        }

        this.underWay++;

        this.run(record, before || {}).then(() => {
            this.underWay--;

            if (then) {
                then(record);
            }

            if (this.underWay === 0) {
                const waiters = this.idleWaiters;

                this.idleWaiters = [];
                waiters.forEach((fn) => fn());
            }
        });

        return record;
    }

    /* A delivery that never leaves, as when a process dies with it. */
    drop({ urls, body, key, describe }, reason) {
        const record = {
            id: ++this.lastId,
            at: new Date().toISOString(),
            ...describe,
            body,
            signatures: sign(key, body),
            outcome: reason,
            targets: urls.map((url) => ({ url, outcome: reason,
                                          attempts: [] })),
        };

        this.kept.push(record);

        return record;
    }

    async run(record, before) {
        /* The answer to the browser wins this race by a few ms. */
        await this.sleep(this.settings.webhook_lag_ms * this.clock.speed);

        for (const target of record.targets) {
            await this.runTarget(record, target, before);
        }

        const bad = record.targets.find((t) => t.outcome !== 'delivered');

        record.outcome = bad ? bad.outcome : 'delivered';
    }

    async runTarget(record, target, before) {
        for (let n = 0; !this.stopped; n++) {
            const admitted = this.breaker.admit(target.url);

            if (admitted === 'no') {
                target.outcome = 'circuit_open';
                return;
            }

            const began = Date.now();
            const result = await this.attempt(target.url, record, before)
                .catch(unsendable);

            target.attempts.push({
                at: new Date(began).toISOString(),
                took_ms: Date.now() - began,
                ...result,
            });
            this.breaker.note(target.url, result.ok, admitted);

            if (result.ok) {
                target.outcome = 'delivered';
                return;
            }

            if (!result.retry || n >= RETRY_WAITS.length) {
                break;
            }

            await this.sleep(RETRY_WAITS[n]);
        }

        target.outcome = this.stopped ? 'stopped' : 'failed';
    }

    sleep(ms) {
        if (ms <= 0 || this.stopped) {
            return Promise.resolve();
        }

        return new Promise((resolve) => {
            const done = () => {
                cancelTimer();
                this.cancels.delete(done);
                resolve();
            };
            const cancelTimer = this.clock.after(ms, done);

            this.cancels.add(done);
        });
    }

    headers(url, record, before) {
        const own = {
            'X-Nango-Signature': record.signatures.hash,
            'X-Nango-Hmac-Sha256': record.signatures.hmac,
        };

        for (const name of Object.keys(own)) {
            if (own[name] === null) {
                delete own[name];
            }
        }

        return {
            Accept: 'application/json, text/plain, */*',
            'Content-Type': 'application/json',
            ...before,
            ...own,
            'user-agent': this.settings.user_agent,
            'Content-Length': String(Buffer.byteLength(record.body)),
            'Accept-Encoding': 'gzip, compress, deflate, br',
            Host: url.host,
        };
    }

    /*
     * One attempt, redirects included.  301, 302 and 303 turn the POST into
     * a GET that says nothing of what happened; 307 and 308 repeat it.
     */
    async attempt(target, record, before) {
        const followed = [];
        let url = new URL(target);
        let method = 'POST';
        let headers = this.headers(url, record, before);

        for (;;) {
            const result = await this.exchange(url, method, headers,
                                               method === 'POST'
                                               ? record.body : '');

            if (followed.length > 0) {
                result.followed = followed;
            }

            const status = result.status || 0;

            if (status < 300 || status > 399 || !result.location
                || result.error)
            {
                return result;
            }

            if (followed.length >= MAX_REDIRECTS) {
                return { ok: false, retry: false, status, followed,
                         error: 'ERR_FR_TOO_MANY_REDIRECTS' };
            }

            url = new URL(result.location, url);
            headers = { ...headers, Host: url.host };

            if ((status === 301 || status === 302) && method === 'POST'
                || status === 303)
            {
                method = 'GET';
                delete headers['Content-Type'];
                delete headers['Content-Length'];
            }

            followed.push({ status, method, url: url.href });
        }
    }

    exchange(url, method, headers, body) {
        return new Promise((resolve) => {
            const agent = this.agents[url.protocol];

            if (!agent) {
                resolve({ ok: false, retry: false, error: 'ERR_PROTOCOL' });
                return;
            }

            const client = url.protocol === 'https:' ? https : http;
            const req = client.request(url, { method, agent, headers });
            let over = false;

            const done = (result) => {
                if (!over) {
                    over = true;
                    cancelTimer();
                    this.cancels.delete(cancel);
                    resolve(result);
                }
            };

            const fail = (code, status) => done({
                ok: false,
                retry: status !== undefined || RETRIED_ERRORS.includes(code),
                error: code,
                status,
            });

            const cancel = () => {
                fail('ECANCELED');
                req.destroy();
            };

            const cancelTimer = this.clock.after(TIMEOUT, () => {
                fail('ECONNABORTED');
                req.destroy();
            });

            this.cancels.add(cancel);

            req.on('error', (e) => fail(e.code || 'UNKNOWN'));

            req.on('response', (res) => {
                const chunks = [];
                let length = 0;

                res.on('data', (chunk) => {
                    if (length < MAX_ANSWER) {
                        chunks.push(chunk);
                    }

                    length += chunk.length;
                });

                /* An answer that breaks off is a failure, 200 or not. */
                res.on('error', () => fail('ERR_BAD_RESPONSE',
                                           res.statusCode));

                res.on('end', () => done({
                    ok: res.statusCode >= 200 && res.statusCode < 300,
                    retry: res.statusCode >= 500,
                    status: res.statusCode,
                    location: res.headers.location,
                    answer: Buffer.concat(chunks).toString('utf8')
                        .slice(0, MAX_ANSWER),
                }));
            });

            req.end(body);
        });
    }
}


module.exports = { Deliveries, Breaker, sign };
