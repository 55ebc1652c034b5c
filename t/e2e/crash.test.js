/*
 * kill -9 of a worker, the leader, the master and all of them, twenty times
 * at random moments, under a load of signed webhooks: what was answered 200
 * is in the log, once, and the state is the fold of the log.
 *
 * NANGO_SEED repeats the load and the kills of another run, though not its
 * moments; NANGO_KILLS asks for more of them.
 */

'use strict';

const assert = require('node:assert');
const { test } = require('node:test');

const { Client } = require('./client');
const { Load, OWNERS, random } = require('./load');
const { assertFolded, assertKept, reader, STATUS } = require('./model');
const { create, sleep, until } = require('./nginx');

const SEED = Number(process.env.NANGO_SEED || Date.now() % 1000000);
const KILLS = Number(process.env.NANGO_KILLS || 20);

const ENVIRONMENTS = [
    { name: 'prod', path: '/webhook', key: 'signing-key-of-prod',
      dedupes: true },

    /*
     * Where repeats are events, but for those in the same millisecond, replayed
     * creations get as far as the fold.
     */
    { name: 'replay', path: '/replay', key: 'signing-key-of-replay',
      dedupes: false },
];

const HTTP = `
    nango_store @STORE@;
    nango_environment prod {
        reconcile           off;
        api                 http://127.0.0.1:1;
        api_public          https://nango.example.com;
        api_key             data:b3a1c0de-0000-4000-8000-00000000abcd;
        webhook_signing_key data:signing-key-of-prod;
    }
    nango_environment replay {
        reconcile           off;
        api                 http://127.0.0.1:1;
        api_public          https://nango.example.com;
        api_key             data:b3a1c0de-0000-4000-8000-00000000abce;
        webhook_signing_key data:signing-key-of-replay;
        dedupe              1ms;
    }
`;

const SERVER = `
    location = /webhook { nango_webhook prod; }
    location = /replay  { nango_webhook replay; }
    location = /connections {
        nango_owner  end_user_id $http_x_user;
        nango_expose connection_id tags;
        nango_connections prod;
    }
`;


/* As many of each as it takes, in the order that chance wants. */
function plan(rnd) {
    const kinds = ['worker', 'leader', 'master', 'all', 'worker', 'leader'];
    const list = Array.from({ length: KILLS },
                            (_, i) => kinds[i % kinds.length]);

    for (let i = list.length - 1; i > 0; i--) {
        const j = Math.floor(rnd() * (i + 1));

        [list[i], list[j]] = [list[j], list[i]];
    }

    return list;
}


/* What was killed: a leader may be missing at that moment. */
async function strike(nginx, kind, rnd) {
    const workers = nginx.workers();
    const anyone = workers[Math.floor(rnd() * workers.length)];

    if (kind === 'worker') {
        return nginx.kill(anyone, 'SIGKILL');
    }

    if (kind === 'leader') {
        const leader = nginx.leader();

        return leader !== undefined && nginx.kill(leader, 'SIGKILL');
    }

    if (kind === 'master') {
        await nginx.killMaster(nginx.master);

        /* Its workers go on without it for a while. */
        await sleep(rnd() * 200);
    }

    await nginx.killAll();
    await nginx.start();

    return true;
}


test('what was answered survives kill -9', { timeout: 120000 }, async (t) => {
    const read = reader(t);
    const rnd = random(SEED);
    const nginx = await create(t, { http: HTTP, server: SERVER });

    t.diagnostic(`seed ${SEED}`);

    await nginx.start();

    const load = new Load({
        port: nginx.port,
        seed: SEED,
        environments: ENVIRONMENTS,
        again: (error, answer, attempt) => {
            if (error && !error.cut || answer && answer.status !== 503) {
                throw error || new Error(`${answer.status}: ${answer.text}`);
            }

            if (attempt === 200) {
                throw new Error('a webhook is not answered any more');
            }

            return 100;
        },
    }).run();

    t.after(() => load.stop().catch(() => {}));

    const struck = {};

    for (const kind of plan(rnd)) {
        const pause = 300 + rnd() * 600;

        /* Ends at once if one of the clients gives up. */
        await Promise.race([sleep(pause), load.running]);

        /* A leader that died is followed. */
        await until(`the ${kind}`, () => strike(nginx, kind, rnd));

        struck[kind] = (struck[kind] || 0) + 1;
    }

    await sleep(500);
    await load.stop();
    await until('the fold', () => {
        const { meta } = read(nginx.store, 'meta');

        return meta.applied === meta.last;
    });

    const dump = read(nginx.store);
    const bodies = new Map(load.webhooks.map((one) => [one.hmac, one.event]));
    const duplicates = load.webhooks.filter((webhook) => webhook.answers.some(
        (answer) => answer.duplicate)).length;

    t.diagnostic(`${JSON.stringify(struck)}, ${load.webhooks.length} webhooks, `
                 + `${dump.events.length} events, ${load.cuts} cut, `
                 + `${load.unavailable} told to come again, `
                 + `${duplicates} told to be duplicates`);

    assertKept(dump, load.webhooks);

    const model = assertFolded(dump, bodies);

    await assertOwners(nginx, model);

    /* Who saw nothing has proven nothing. */

    const { counts } = model;

    assert.ok(load.cuts >= KILLS);
    assert.ok(duplicates > 0);
    assert.ok(counts.valid && counts.invalid && counts.tombstones
              && counts.ignored);

    assert.deepStrictEqual(nginx.lines('emerg', 'alert', 'crit').filter(
        (line) => !/exited on signal 9/.test(line)), []);

    assert.ok(await nginx.stop(), 'nginx does not end');
});


/* Everybody sees exactly what is theirs, the newest first. */
async function assertOwners(nginx, model) {
    const client = new Client(nginx.port);
    const mine = (user) => [...model.connections.values()].filter(
        (c) => c.environment === 'prod' && c.tags.end_user_id === user
               && c.status !== STATUS.deleted);

    for (let n = 0; n < OWNERS; n++) {
        const user = `u${n}`;
        const answer = await client.request(
            'GET', '/connections?limit=1000', { 'X-User': user });

        assert.strictEqual(answer.status, 200);
        assert.deepStrictEqual(
            answer.json.connections.map((c) => ({
                connection_id: c.connection_id,
                integration: c.integration,
                status: c.status,
                tags: c.tags,
            })),
            mine(user).sort((a, b) => b.created_sequence - a.created_sequence)
                .map((c) => ({
                    connection_id: c.connection_id,
                    integration: c.integration,
                    status: c.status === STATUS.valid ? 'valid' : 'invalid',
                    tags: c.tags,
                })));
    }

    client.close();
}
