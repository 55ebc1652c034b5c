/*
 * A log that is full, or nearly: what is owed to nobody goes first, then
 * webhooks are refused with 503, while everything else goes on.
 */

'use strict';

const assert = require('node:assert');
const { test } = require('node:test');

const { Backend } = require('./backend');
const { Client, hmac, once } = require('./client');
const { startOnClock, HOUR } = require('./clock');
const { create, sleep, until } = require('./nginx');

const KEY = 'signing-key-of-prod';


function config(deliver, retain) {
    return {
        main: 'worker_rlimit_core 0;',
        http: `
    nango_store @STORE@ size=16m retain=${retain};
    nango_environment prod {
        reconcile           off;
        api                 http://127.0.0.1:1;
        api_public          https://nango.example.com;
        api_key             data:b3a1c0de-0000-4000-8000-00000000abcd;
        webhook_signing_key data:${KEY};
        ${deliver}
    }
`,
        server: `
    location = /webhook { nango_webhook prod; }
    location = /status  { nango_status; }
    location = /connections {
        nango_owner  end_user_id $http_x_user;
        nango_expose connection_id tags;
        nango_connections prod;
    }
`,
    };
}


function headers(text) {
    return {
        'Content-Type': 'application/json',
        'X-Nango-Hmac-Sha256': hmac(text, KEY),
    };
}


function post(nginx, body) {
    const text = Buffer.from(body);

    return once(nginx.port, 'POST', '/webhook', headers(text), text);
}


let serial = 0;

/* Of 100 KB: they are in the log itself, and 16 MB are soon full. */
function large(connection) {
    return JSON.stringify({ connectionId: connection, from: 'nango',
                            n: ++serial, padding: 'x'.repeat(100 * 1024),
                            providerConfigKey: 'github', syncName: 's',
                            type: 'sync' });
}


function creation(connection) {
    return JSON.stringify({ connectionId: connection, from: 'nango',
                            n: ++serial, operation: 'creation',
                            provider: 'github', providerConfigKey: 'github',
                            success: true, tags: { end_user_id: '42' },
                            type: 'auth' });
}


async function status(nginx) {
    return (await once(nginx.port, 'GET', '/status', {})).json;
}


async function connections(nginx) {
    const answer = await once(nginx.port, 'GET', '/connections',
                              { 'X-User': '42' });

    assert.strictEqual(answer.status, 200, answer.text);

    return answer.json.connections.map((one) => one.connection_id);
}


test('a log that a backend is owed is full, and then is not', async (t) => {
    const backend = await Backend.create(t, { keep: false });
    const nginx = await create(t, config(`deliver app ${backend.url};`,
                                         '7d'));

    await backend.down();
    await nginx.start();

    assert.strictEqual((await post(nginx, creation('first'))).status, 200);

    let stored = 1;
    let refused;

    for (let i = 0; i < 400 && !refused; i++) {
        const answer = await post(nginx, large(`c-${i % 20}`));

        if (answer.status === 200) {
            stored++;

        } else {
            refused = answer;
        }
    }

    assert.strictEqual(refused.status, 503);
    assert.strictEqual(refused.headers['x-nango-error'], 'store_unavailable');
    assert.ok(stored > 100, `${stored} stored`);

    /* Whoever reads does so as before. */

    assert.deepStrictEqual(await connections(nginx), ['first']);

    const before = (await status(nginx)).subscribers[0];

    assert.strictEqual(before.stored, stored);
    assert.strictEqual(before.waiting, stored);

    /* The way out: it is delivered, and goes although it is young. */

    await backend.up();
    await until('all', () => backend.accepted.length >= stored, 60000);
    assert.strictEqual(new Set(backend.accepted).size, stored);

    await until('room', async () => (await post(nginx,
                                                large('again'))).status
                                    === 200, 30000);

    const warned = nginx.lines('warn').some(
        (line) => /the log is nearly full/.test(line));

    assert.ok(warned);
    assert.ok(await nginx.stop());
});


test('a steady load levels off, and what is dead stays', async (t) => {
    const backend = await Backend.create(t, {
        keep: false,
        answer: ({ sequence }) => (sequence === 3 ? 500 : 200),
    });
    const nginx = await create(t, config(
        `deliver app ${backend.url} max_age=1ms;`, '1s'));
    const sizes = [];

    await nginx.start();

    /* 60 MB through a log of 16 MB, none of it refused. */

    for (let i = 0; i < 600; i++) {
        let answer = await post(nginx, large(`c-${i}`));

        /* Pruning is a step at a time. */

        for (let n = 0; answer.status === 503 && n < 100; n++) {
            await sleep(50);
            answer = await post(nginx, large(`c-${i}`));
        }

        assert.strictEqual(answer.status, 200);

        if (i % 50 === 49) {
            sizes.push((await status(nginx)).store.bytes);
        }
    }

    t.diagnostic(`bytes: ${sizes.join(' ')}`);

    await until('the rest', () => backend.accepted.length >= 599, 30000);

    const subscriber = await until('the ledger', async () => {
        const one = (await status(nginx)).subscribers[0];

        return one.waiting === 0 && one;
    });

    assert.strictEqual(subscriber.dead, 1);
    assert.strictEqual(subscriber.stored,
                       subscriber.delivered + subscriber.dead);

    await until('it to be pruned', async () => {
        const one = (await status(nginx)).environments[0];

        return one.stored - one.pruned <= 2;
    }, 30000);

    assert.ok(await nginx.stop());
    assert.deepStrictEqual(nginx.lines('emerg', 'alert', 'crit').filter(
        (line) => !/has reached its size/.test(line)), []);
});


/* More than the folds drop that follow what is pruned of the log. */

test('what was deleted is forgotten in time, however much it is', async (t) => {
    const nginx = await create(t, config('', '5s'));
    let left = 6000;

    const clock = await startOnClock(t, nginx);

    await Promise.all(Array.from({ length: 32 }, async () => {
        const client = new Client(nginx.port);

        while (left-- > 0) {
            const text = Buffer.from(JSON.stringify({
                connectionId: `gone-${left}`, from: 'nango',
                operation: 'deletion', provider: 'github',
                providerConfigKey: 'github', success: true, type: 'auth',
            }));
            const answer = await client.request('POST', '/webhook',
                                                headers(text), text);

            assert.strictEqual(answer.status, 200);
        }

        client.close();
    }));

    await until('them to be known', async () => {
        const { store, connections } = await status(nginx);

        return store.lag === 0 && connections.deleted === 6000;
    });

    /* So long they are remembered, whatever is kept. */

    clock.forward(HOUR);

    await until('them to be forgotten',
                async () => (await status(nginx)).connections.deleted === 0,
                30000);

    assert.ok(await nginx.stop());
});
