/*
 * A reload every second, under a load of signed webhooks, with sessions under
 * way at a slow Nango and lists of connections that wait for the fold: nobody
 * gets a wrong answer, what the old workers began they finish, both
 * generations write one store, and the old ones go.  For ten seconds; for a
 * minute with NANGO_LONG=1.
 */

'use strict';

const assert = require('node:assert');
const { test } = require('node:test');

const { Client } = require('./client');
const { Load, OWNERS } = require('./load');
const { assertFolded, assertKept, reader } = require('./model');
const { create, sleep, until } = require('./nginx');
const { createNango, API_KEY } = require('../sim/nango');

const SEED = Number(process.env.NANGO_SEED || Date.now() % 1000000);
const RELOADS = process.env.NANGO_LONG ? 60 : 10;
const DELAY = 300;

const ENVIRONMENTS = [
    { name: 'prod', path: '/webhook', key: 'signing-key-of-prod',
      dedupes: true },
];


function http(sim) {
    return `
    nango_store @STORE@;
    nango_environment prod {
        api                 ${sim.url};
        api_public          https://nango.example.com;
        api_key             data:${API_KEY};
        webhook_signing_key data:signing-key-of-prod;
    }
    `;
}


const SERVER = `
    location = /webhook { nango_webhook; }
    location = /session {
        nango_owner         end_user_id $http_x_user;
        nango_session_reuse off;
        nango_session;
    }
    location = /connections {
        nango_owner  end_user_id $http_x_user;
        nango_connections;
    }
`;


/*
 * nginx closes idle connections when it reloads, and may do so while a request
 * is on its way to it.  That request is sent again, once, on a connection
 * that is new, and then has to succeed.
 */
function again(error, answer, attempt) {
    if (!error || !error.cut || error.received || attempt > 1) {
        throw error || new Error(`${answer.status}: ${answer.text}`);
    }

    return 0;
}


/* The answer, if need be on a second connection. */
async function ask(client, state, ...request) {
    for (let attempt = 1; ; attempt++) {
        try {
            return await client.request(...request);
        } catch (err) {
            again(err, undefined, attempt);
            state.cuts++;
        }
    }
}


/* Sessions one after the other, each somebody else's. */
async function sessions(nginx, name, state) {
    const client = new Client(nginx.port);

    for (let n = 0; !state.stopped; n++) {
        const { reloads } = state;
        const answer = await ask(client, state, 'POST', '/session', {
            'X-User': `${name}-${n}`,
        });

        assert.strictEqual(answer.status, 200, answer.text);
        assert.match(answer.json.sessionToken, /^nango_connect_session_/);

        state.made++;
        state.spanned += state.reloads > reloads ? 1 : 0;
        await sleep(20);
    }

    client.close();
}


/* Each has seen what was answered before it was asked for. */
async function lists(nginx, load, state) {
    const client = new Client(nginx.port);

    for (let n = 0; !state.stopped; n++) {
        const newest = load.acknowledged;
        const answer = await ask(client, state, 'GET', '/connections', {
            'X-User': `u${n % OWNERS}`,
        });

        assert.strictEqual(answer.status, 200, answer.text);
        assert.ok(answer.json.sequence >= newest,
                  `${answer.json.sequence} of ${newest}`);

        state.listed++;
        await sleep(20);
    }

    client.close();
}


test('reloads cost nobody an answer', { timeout: 30000 + RELOADS * 3000 },
     async (t) =>
{
    const read = reader(t);
    const sim = await createNango({
        settings: { rate_limit: 100000 },
    }).listen();

    t.after(() => sim.close());

    await sim.control('POST', 'faults', {
        add: { path: '/connect/sessions', delay_ms: DELAY },
    });

    const nginx = await create(t, { http: http(sim), server: SERVER });

    t.diagnostic(`seed ${SEED}`);
    await nginx.start();

    const load = new Load({
        port: nginx.port, seed: SEED, environments: ENVIRONMENTS, again,
    }).run();
    const state = { made: 0, listed: 0, cuts: 0, spanned: 0, reloads: 0,
                    stopped: false };
    const asking = Promise.all([
        ...['a', 'b', 'c', 'd'].map((name) => sessions(nginx, name, state)),
        lists(nginx, load, state), lists(nginx, load, state),
    ]);

    asking.catch(() => {});
    t.after(() => {
        state.stopped = true;
        return load.stop().catch(() => {});
    });

    /* Old workers that were seen at work beside new ones. */
    const generations = new Set(nginx.workers());
    let shared = 0;

    for (let i = 0; i < RELOADS; i++) {
        await Promise.race([sleep(1000), load.running, asking]);

        const old = nginx.workers();

        nginx.kill(nginx.master, 'SIGHUP');
        state.reloads++;

        await until('new workers', () => nginx.workers().filter(
            (pid) => !old.includes(pid)).length === 2);

        shared += nginx.workers().some((pid) => old.includes(pid)) ? 1 : 0;
        nginx.workers().forEach((pid) => generations.add(pid));
    }

    const old = [...generations].slice(0, -2);

    await sleep(500);
    state.stopped = true;
    await load.stop();
    await asking;

    await until('the old workers to go', () => nginx.workers().length === 2
                && !nginx.workers().some((pid) => old.includes(pid)), 5000);

    await until('the fold', () => {
        const { meta } = read(nginx.store, 'meta');

        return meta.applied === meta.last;
    });

    const dump = read(nginx.store);
    const bodies = new Map(load.webhooks.map((one) => [one.hmac, one.event]));

    t.diagnostic(`${load.webhooks.length} webhooks, ${load.cuts} cut, `
                 + `${state.made} sessions, ${state.spanned} of them during a `
                 + `reload, ${state.listed} lists, ${state.cuts} cut`);

    assertKept(dump, load.webhooks);
    assertFolded(dump, bodies);

    /* What nginx had begun to answer was answered, and not asked for again. */

    const asked = await sim.control('GET', 'requests?path=/connect/sessions');

    assert.strictEqual(asked.requests.length, state.made);
    assert.deepStrictEqual(load.webhooks.filter((webhook) => webhook.answers
        .every((answer) => answer.duplicate)), []);

    /* Who saw nothing has proven nothing. */

    assert.strictEqual(generations.size, 2 * RELOADS + 2);
    assert.ok(shared > 0, 'no two generations were there at once');
    assert.ok(state.spanned >= RELOADS);
    assert.ok(state.listed >= 10 * RELOADS);

    assert.deepStrictEqual(nginx.lines('emerg', 'alert', 'crit'), []);
    assert.ok(await nginx.stop(), 'nginx does not end');
    assert.deepStrictEqual(nginx.lines('emerg', 'alert', 'crit'), []);
});
