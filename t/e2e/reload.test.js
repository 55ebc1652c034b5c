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

const { assertFolded, assertKept, reader } = require('./model');
const { create, sleep, until } = require('./nginx');
const { Traffic } = require('./traffic');
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
        reconcile           off;
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

    const traffic = new Traffic(nginx.port, {
        seed: SEED, environments: ENVIRONMENTS,
    }).run();
    const { load } = traffic;

    t.after(() => traffic.stop().catch(() => {}));

    /* Old workers that were seen at work beside new ones. */
    const generations = new Set(nginx.workers());
    let shared = 0;

    for (let i = 0; i < RELOADS; i++) {
        await traffic.goOn(1000);

        const old = nginx.workers();

        nginx.kill(nginx.master, 'SIGHUP');
        traffic.generation++;

        await until('new workers', () => nginx.workers().filter(
            (pid) => !old.includes(pid)).length === 2);

        shared += nginx.workers().some((pid) => old.includes(pid)) ? 1 : 0;
        nginx.workers().forEach((pid) => generations.add(pid));
    }

    const old = [...generations].slice(0, -2);

    await sleep(500);
    await traffic.stop();

    await until('the old workers to go', () => nginx.workers().length === 2
                && !nginx.workers().some((pid) => old.includes(pid)), 5000);

    await until('the fold', () => {
        const { meta } = read(nginx.store, 'meta');

        return meta.applied === meta.last;
    });

    const dump = read(nginx.store);
    const bodies = new Map(load.webhooks.map((one) => [one.hmac, one.event]));

    t.diagnostic(String(traffic));

    assertKept(dump, load.webhooks);
    assertFolded(dump, bodies);

    /* What nginx had begun to answer was answered, and not asked for again. */

    const asked = await sim.control('GET', 'requests?path=/connect/sessions');

    assert.strictEqual(asked.requests.length, traffic.made);
    assert.deepStrictEqual(load.webhooks.filter((webhook) => webhook.answers
        .every((answer) => answer.duplicate)), []);

    /* Who saw nothing has proven nothing. */

    assert.strictEqual(generations.size, 2 * RELOADS + 2);
    assert.ok(shared > 0, 'no two generations were there at once');
    assert.ok(traffic.spanned >= RELOADS);
    assert.ok(traffic.listed >= 10 * RELOADS);

    assert.deepStrictEqual(nginx.lines('emerg', 'alert', 'crit'), []);
    assert.ok(await nginx.stop(), 'nginx does not end');
    assert.deepStrictEqual(nginx.lines('emerg', 'alert', 'crit'), []);
});
