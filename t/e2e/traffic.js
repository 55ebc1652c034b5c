/*
 * What a site's clients do while its nginx changes: signed webhooks, sessions
 * one after the other, and lists of connections that have to show what was
 * answered before.  Whoever gets a wrong answer fails all of it.
 */

'use strict';

const assert = require('node:assert');

const { Client } = require('./client');
const { Load, OWNERS } = require('./load');
const { sleep } = require('./nginx');


/*
 * nginx closes idle connections when its workers go, and may do so while a
 * request is on its way to it.  That request is sent again, once, on a
 * connection that is new, and then has to succeed.
 */
function again(error, answer, attempt) {
    if (!error || !error.cut || error.received || attempt > 1) {
        throw error || new Error(`${answer.status}: ${answer.text}`);
    }

    return 0;
}


class Traffic {
    /* load: options of Load, in which the port and again() are ours. */
    constructor(port, load) {
        this.port = port;
        this.load = new Load({ port, again, ...load });
        this.stopped = false;
        this.made = 0;
        this.listed = 0;
        this.cuts = 0;

        /* What changes, for sessions to see that they outlived it. */
        this.generation = 0;
        this.spanned = 0;
    }

    run() {
        this.load.run();
        this.asking = Promise.all([
            ...['a', 'b', 'c', 'd'].map((name) => this.sessions(name)),
            this.lists(), this.lists(),
        ]);

        this.asking.catch(() => {});

        return this;
    }

    /* Ends at once if one of the clients fails. */
    async goOn(ms) {
        await Promise.race([sleep(ms), this.load.running, this.asking]);
    }

    /* What is under way is answered before. */
    async stop() {
        this.stopped = true;
        await this.load.stop();
        await this.asking;
    }

    async ask(client, ...request) {
        for (let attempt = 1; ; attempt++) {
            try {
                return await client.request(...request);
            } catch (err) {
                again(err, undefined, attempt);
                this.cuts++;
            }
        }
    }

    /* Each is somebody else's. */
    async sessions(name) {
        const client = new Client(this.port);

        for (let n = 0; !this.stopped; n++) {
            const { generation } = this;
            const answer = await this.ask(client, 'POST', '/session', {
                'X-User': `${name}-${n}`,
            });

            assert.strictEqual(answer.status, 200, answer.text);
            assert.match(answer.json.sessionToken,
                         /^nango_connect_session_/);

            this.made++;
            this.spanned += this.generation > generation ? 1 : 0;
            await sleep(20);
        }

        client.close();
    }

    async lists() {
        const client = new Client(this.port);

        for (let n = 0; !this.stopped; n++) {
            const newest = this.load.acknowledged;
            const answer = await this.ask(client, 'GET', '/connections', {
                'X-User': `u${n % OWNERS}`,
            });

            assert.strictEqual(answer.status, 200, answer.text);
            assert.ok(answer.json.sequence >= newest,
                      `${answer.json.sequence} of ${newest}`);

            this.listed++;
            await sleep(20);
        }

        client.close();
    }

    toString() {
        const { load } = this;

        return `${load.webhooks.length} webhooks, ${this.made} sessions, `
               + `${this.spanned} of them during a change, ${this.listed} `
               + `lists, ${load.cuts + this.cuts} cut`;
    }
}


module.exports = { Traffic };
