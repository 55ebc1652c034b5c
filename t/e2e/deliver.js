/*
 * What tests of deliveries have in common: a configuration with subscribers,
 * webhooks to be delivered, and what has to hold of what was.
 */

'use strict';

const assert = require('node:assert');

const { hmac, once } = require('./client');
const { sleep, until } = require('./nginx');

const KEY = 'signing-key-of-prod';


/* deliver: lines of the environment; more: options of nginx, and the store's */
function config(deliver, more) {
    return {
        main: 'worker_rlimit_core 0;',
        http: `
    nango_store @STORE@ ${more && more.store || ''};
    ${environment('prod', KEY, deliver)}
    ${more && more.environments || ''}
`,
        server: `
    location = /webhook { nango_webhook prod; }
    location = /connections {
        nango_owner  end_user_id $http_x_user;
        nango_expose connection_id tags;
        nango_connections prod;
    }
    ${more && more.locations || ''}
`,
        ...more,
    };
}


function environment(name, key, lines) {
    return `
    nango_environment ${name} {
        reconcile           off;
        api                 http://127.0.0.1:1;
        api_public          https://nango.example.com;
        api_key             data:b3a1c0de-0000-4000-8000-00000000abcd;
        webhook_signing_key data:${key};
        dedupe              1ms;
        ${lines}
    }
`;
}


let serial = 0;

function sync(connection, more) {
    return JSON.stringify({ connectionId: connection, from: 'nango',
                            providerConfigKey: 'github', n: ++serial,
                            syncName: 's', type: 'sync', ...more });
}


function creation(connection, user) {
    return JSON.stringify({ connectionId: connection, from: 'nango',
                            operation: 'creation', provider: 'github',
                            providerConfigKey: 'github', success: true,
                            tags: { end_user_id: user }, type: 'auth',
                            n: ++serial });
}


/* The sequence that it is stored under. */
async function post(nginx, body, headers, to) {
    const text = Buffer.from(body);
    const { path, key } = to || { path: '/webhook', key: KEY };
    const answer = await once(nginx.port, 'POST', path, {
        'Content-Type': 'application/json',
        'X-Nango-Hmac-Sha256': hmac(text, key), ...headers,
    }, text);

    assert.strictEqual(answer.status, 200, answer.text);

    return answer.json.sequence;
}


/* The body's connection, or nothing. */
function laneOf(one) {
    return one.body && JSON.parse(one.body).connectionId;
}


/*
 * Nothing that was accepted comes again, nor before what came earlier of its
 * connection.  got: a backend's.
 */
function assertOrder(got) {
    const last = new Map();

    for (const one of got.filter(({ status }) => status < 300)) {
        const lane = laneOf(one);

        if (lane) {
            assert.ok(!(last.get(lane) >= one.sequence),
                      `${lane}: ${one.sequence} after ${last.get(lane)}`);
            last.set(lane, one.sequence);
        }
    }
}


/*
 * All of the store's events have come, in order for each connection where they
 * came first; those that came again are given to "again" with the one before.
 */
function assertDelivered(backend, events, again) {
    const seen = new Map();
    const lanes = new Map(events.map((one) => [one.sequence,
                                               one.connection_id]));
    const last = new Map();
    const accepted = backend.got.filter(({ status }) => status < 300);

    for (const one of accepted) {
        const lane = lanes.get(one.sequence);
        const before = seen.get(one.sequence);

        assert.ok(lane, `nobody sent ${one.sequence}`);

        if (before) {
            again(before, one);
            continue;
        }

        assert.ok(!(last.get(lane) > one.sequence),
                  `${lane}: ${one.sequence} after ${last.get(lane)}`);
        last.set(lane, one.sequence);
        seen.set(one.sequence, one);
    }

    assert.deepStrictEqual(events.map((one) => one.sequence).filter(
        (sequence) => !seen.has(sequence)), []);

    return accepted.length - seen.size;
}


/* Of all, each event is delivered and nothing else. */
function assertLedgers(all, events) {
    for (const one of Object.values(all)) {
        assert.strictEqual(one.stored, events.length, one.name);
        assert.strictEqual(one.delivered, events.length, one.name);
        assert.strictEqual(one.dead + one.lost + one.skipped, 0, one.name);
    }
}


/*
 * The ledger of each subscriber, by its name, as the store has it: read is
 * what reader() of model.js gave.  It has to be true at any time.
 */
function ledgers(read, nginx) {
    const { subscribers, environments } = read(nginx.store, 'ledgers');
    const stored = new Map(environments.map((one) => [one.name, one.stored]));

    return Object.fromEntries(subscribers.map((one) => {
        const all = (stored.get(one.environment) || 0) - one.base;

        assert.strictEqual(one.counted, one.delivered + one.skipped + one.dead
                                        + one.rows + one.lost, one.name);
        assert.ok(all >= one.counted, `${one.name}: ${all}, ${one.counted}`);

        return [one.name, { ...one, stored: all,
                            waiting: all - one.counted + one.rows }];
    }));
}


/* Until nothing waits for anybody; the ledgers as they are then. */
async function settled(read, nginx, ms) {
    let all;

    try {
        return await until('everything to be settled', async () => {
            all = ledgers(read, nginx);

            if (Object.values(all).every((one) => one.waiting === 0)) {
                return all;
            }

            await sleep(100);

            return false;
        }, ms);
    } catch (err) {
        err.message += `: ${JSON.stringify(all)}`;
        throw err;
    }
}


module.exports = { assertDelivered, assertLedgers, assertOrder, config,
                   creation, environment, KEY, laneOf, ledgers, post, settled,
                   sync };
