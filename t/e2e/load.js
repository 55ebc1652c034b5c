/*
 * A load of signed webhooks as Nango sends them: clients that keep their
 * connections, and repeat byte for byte what was not answered.  Each webhook
 * keeps what was answered to it.
 *
 * All auth webhooks differ from each other, so a HMAC names one of them.  Now
 * and then one that was answered is sent again, or one is sent by two clients
 * at once.
 */

'use strict';

const { Client, hmac } = require('./client');
const { sleep } = require('./nginx');

const CONNECTIONS = 300;
const OWNERS = 36;
const INTEGRATIONS = ['github', 'slack'];

/* More than the module takes into memory. */
const LARGE = 140 * 1024;

const RECENT = 400;

/* Up to which of all numbers from 0 to 1 each is made. */
const KINDS = [
    [0.01, 'deletion', true],
    [0.05, 'creation', false],
    [0.35, 'creation', true],
    [0.50, 'override', true],
    [0.65, 'override', false],
    [0.80, 'refresh', true],
    [1.00, 'refresh', false],
];


/* The same numbers for the same seed (mulberry32). */
function random(seed) {
    let state = seed >>> 0;

    return () => {
        state = (state + 0x6d2b79f5) >>> 0;

        let z = Math.imul(state ^ (state >>> 15), state | 1);

        z ^= z + Math.imul(z ^ (z >>> 7), z | 61);

        return ((z ^ (z >>> 14)) >>> 0) / 4294967296;
    };
}


function owner(n) {
    return { end_user_id: `u${n}`, organization_id: `o${n % 6}` };
}


class Load {
    /*
     * environments: {name, path, key, dedupes}.  pause: a client's mean rest
     * between two webhooks.  again(error, answer, attempt) says how long to
     * wait before what was not answered 200 is repeated, or throws.
     */
    constructor(options) {
        this.options = { clients: 16, pause: 12, large: 0.01, ...options };
        this.random = random(options.seed);
        this.webhooks = [];
        this.twins = [];
        this.stopped = false;
        this.repeats = 0;
        this.cuts = 0;
        this.unavailable = 0;

        /* The newest of the sequences that were answered. */
        this.acknowledged = 0;
    }

    pick(list) {
        return list[Math.floor(this.random() * list.length)];
    }

    make() {
        const n = this.webhooks.length;
        const dice = this.random();
        const [, operation, success] = KINDS.find(([upTo]) => dice < upTo);
        const connection = Math.floor(this.random() * CONNECTIONS);
        const integration = INTEGRATIONS[connection % INTEGRATIONS.length];
        const environment = this.random() < 0.85
                            ? this.options.environments[0]
                            : this.pick(this.options.environments);
        const event = {
            authMode: 'OAUTH2',
            connectionId: `c-${connection}`,
            environment: 'dev',
            from: 'nango',
            operation,
            provider: this.random() < 0.02 ? 'other' : integration,
            providerConfigKey: integration,
            success,
            tags: {},
            type: 'auth',
            unique: n,
        };

        /* A reconnect may come without tags, or make it somebody else's. */

        if (success && operation === 'creation'
            || success && operation === 'override' && this.random() < 0.5)
        {
            event.tags = owner(this.random() < 0.9
                               ? connection % OWNERS
                               : Math.floor(this.random() * OWNERS));
        }

        if (!success) {
            event.error = { type: 'refresh_token_error',
                            description: `failure ${n % 5}` };
        }

        if (operation === 'deletion') {
            delete event.success;
            delete event.tags;
        }

        if (this.random() < this.options.large) {
            event.padding = 'x'.repeat(LARGE);
        }

        const body = Buffer.from(JSON.stringify(event));

        delete event.padding;

        const webhook = {
            event, body, environment,
            hmac: hmac(body, environment.key),
            sends: 0,
            answers: [],
        };

        this.webhooks.push(webhook);

        return webhook;
    }

    next() {
        const dice = this.random();
        const recent = this.webhooks.slice(-RECENT)
            .filter((one) => one.answers.length);

        if (this.twins.length) {
            return this.twins.pop();
        }

        if (dice < 0.05 && recent.length) {
            this.repeats++;
            return this.pick(recent);
        }

        const webhook = this.make();

        if (dice > 0.98) {
            this.twins.push(webhook);
        }

        return webhook;
    }

    /* Until it is answered 200, or again() throws. */
    async deliver(client, webhook) {
        for (let attempt = 1; ; attempt++) {
            let answer, error;

            if (webhook.sends++ === 0) {
                webhook.sent = performance.now();
            }

            try {
                answer = await client.request('POST', webhook.environment.path,
                    { 'Content-Type': 'application/json',
                      'X-Nango-Hmac-Sha256': webhook.hmac }, webhook.body);
            } catch (err) {
                error = err;
            }

            if (answer && answer.status === 200) {
                webhook.answers.push({
                    ...answer.json,
                    at: performance.now(),
                });
                this.acknowledged = Math.max(this.acknowledged,
                                             answer.json.sequence);
                return;
            }

            this.cuts += error ? 1 : 0;
            this.unavailable += answer && answer.status === 503 ? 1 : 0;

            await sleep(this.options.again(error, answer, attempt));
        }
    }

    async client() {
        const client = new Client(this.options.port);

        try {
            while (!this.stopped) {
                await this.deliver(client, this.next());
                await sleep(this.random() * 2 * this.options.pause);
            }
        } catch (err) {
            this.stopped = true;
            throw err;
        } finally {
            client.close();
        }
    }

    /* Fails as soon as one of the clients does. */
    run() {
        this.running = Promise.all(Array.from(
            { length: this.options.clients }, () => this.client()));

        /* Who waits for something else first will see it later. */
        this.running.catch(() => {});

        return this;
    }

    /* What is under way is answered before. */
    async stop() {
        this.stopped = true;
        await this.running;
    }
}


module.exports = { Load, OWNERS, CONNECTIONS, owner, random };
