/*
 * What becomes of a connection when its end and something else happen at the
 * same time: clients that leave, checks and deletions beside each other, a
 * store that is full, workers that go.
 */

'use strict';

const assert = require('node:assert');
const nodeTest = require('node:test');

const sim = require('../sim/helper');
const { API_KEY } = require('../sim/nango');
const { Client, hmac, once } = require('./client');
const { hold } = require('./edge');
const { create, sleep, until } = require('./nginx');

const KEY = 'signing-key-of-prod';
const ME = { 'X-User': '42' };
const JSON_OF_ME = { ...ME, 'Content-Type': 'application/json' };

/* Of a log of some size somebody is owed all: else it would be pruned. */
function settings(api, store) {
    return {
        http: `
    nango_store @STORE@ ${store || ''};
    nango_environment prod {
        ${/size/.test(store) ? 'deliver away http://127.0.0.1:1/;' : ''}
        api                 ${api};
        api_public          https://nango.example.com;
        connect_ui          https://connect.nango.dev;
        api_key             data:${API_KEY};
        webhook_signing_key data:${KEY};
        reconcile           off;
    }
`,
        server: `
    location = /webhook { nango_webhook; }
    location = /worker  { return 200 $pid; }
    location = /connections {
        nango_owner  end_user_id $http_x_user;
        nango_expose connection_id tags;
        nango_session_limit off;
        nango_connections;
    }
    location = /limited {
        nango_owner         end_user_id $http_x_user;
        nango_session_reuse off;
        nango_session_limit rate=1r/m burst=4;
        nango_session;
    }
`,
    };
}


/* None may hang: what waits for ever is a failure. */
function test(name, fn) {
    return nodeTest(name, { timeout: 60000 }, fn);
}


function event(operation, connection, tags, padding) {
    return JSON.stringify({
        connectionId: connection, from: 'nango', operation,
        provider: 'github', providerConfigKey: 'github', success: true,
        tags, type: 'auth', ...(padding ? { padding } : {}),
    });
}


/* An nginx with connection c-1 of user 42, which Nango has as well. */
async function running(t, store) {
    const nango = await sim.start(t);
    const nginx = await create(t, settings(nango.url, store));

    await nginx.start();
    await until('two workers', () => nginx.workers().length >= 2);
    await nango.control('POST', 'state', { connections: [{
        integration: 'github', connection_id: 'c-1',
        tags: { end_user_id: '42' },
    }] });
    await webhook(nginx, event('creation', 'c-1', { end_user_id: '42' }));
    await until('a leader', () => nginx.leader());

    return { nango, nginx };
}


async function webhook(nginx, body, status) {
    const answer = await once(nginx.port, 'POST', '/webhook', {
        'Content-Type': 'application/json',
        'X-Nango-Hmac-Sha256': hmac(body, KEY),
    }, body);

    assert.strictEqual(answer.status, status || 200, answer.text);
}


async function list(nginx) {
    const answer = await once(nginx.port, 'GET', '/connections', ME);

    assert.strictEqual(answer.status, 200, answer.text);

    return answer.json.connections;
}


/* A connection that another worker than this one has. */
async function beside(t, nginx, pid) {
    for (;;) {
        const client = new Client(nginx.port);

        t.after(() => client.close());

        if (Number((await client.request('GET', '/worker')).text) !== pid) {
            return client;
        }
    }
}


function check(nginx, connection = 'c-1') {
    return once(nginx.port, 'POST', '/connections', JSON_OF_ME,
        `{"integration":"github","connection_id":"${connection}"}`);
}


function remove(nginx) {
    return once(nginx.port, 'DELETE', '/connections?integration=github', ME);
}


/* Nango's answer of that method comes late; that of GET tells of before. */
function late(nango, method, ms, connection = 'c-1') {
    const before = {
        status: 200,
        body: { connection_id: connection, provider_config_key: 'github',
                provider: 'github', errors: [], end_user: null,
                tags: { end_user_id: '42' } },
    };

    return nango.control('POST', 'faults', { faults: [{
        method, path: `/connections/${connection}`, delay_ms: ms, times: 1,
        ...(method === 'GET' ? before : {}),
    }] });
}


function quiet(nginx) {
    assert.deepStrictEqual(nginx.lines('alert', 'crit', 'emerg'), []);
}


for (const abruptly of [false, true]) {
    const how = abruptly ? 'by RST' : 'by FIN';

    test(`a deletion goes on when its client leaves ${how}`, async (t) => {
        const { nango, nginx } = await running(t);
        const client = new Client(nginx.port);

        await late(nango, 'DELETE', 600);

        client.request('DELETE', '/connections?integration=github', ME)
            .catch(() => {});
        await until('Nango to be asked', async () =>
            (await nango.control('GET', 'requests?method=DELETE')).count);
        client.close(abruptly);

        await until('the deletion', async () =>
            (await list(nginx)).length === 0);
        quiet(nginx);
    });
}


test('a client that leaves earlier or later does no harm', async (t) => {
    const { nango, nginx } = await running(t);
    const steps = [
        ['DELETE', '/connections?integration=github'],
        ['POST', '/connections'], ['POST', '/limited'],
        ['GET', '/connections'],
    ];

    for (let i = 0; i < 120; i++) {
        const [method, url] = steps[i % steps.length];
        const client = new Client(nginx.port);

        client.request(method, url, JSON_OF_ME, method === 'POST'
                       && url === '/connections'
                       ? '{"integration":"github","connection_id":"c-1"}' : '')
            .catch(() => {});
        await sleep(i % 11);
        client.close(i % 3 === 0);

        if (i % 8 === 7) {
            await nango.control('POST', 'state', { connections: [{
                integration: 'github', connection_id: 'c-1',
                tags: { end_user_id: '42' },
            }] });
        }
    }

    await sleep(200);

    /* In the end both say the same. */
    const last = await check(nginx);
    const there = (await nango.control('GET', 'state')).connections.length;

    assert.strictEqual(last.status, there ? 200 : 404);
    assert.strictEqual((await list(nginx)).length, there);
    quiet(nginx);
});


test('a check that is overtaken by a deletion revives nothing', async (t) => {
    const { nango, nginx } = await running(t);

    await late(nango, 'GET', 700);

    const checked = check(nginx);

    await until('Nango to be asked', async () =>
        (await nango.control('GET', 'requests?method=GET')).count);

    assert.strictEqual((await remove(nginx)).status, 200);
    assert.strictEqual((await checked).status, 404);
    assert.deepStrictEqual(await list(nginx), []);
    quiet(nginx);
});


test('nor does one of what was not known before', async (t) => {
    const { nango, nginx } = await running(t);

    await late(nango, 'GET', 700, 'c-2');

    const checked = check(nginx, 'c-2');

    await until('Nango to be asked', async () =>
        (await nango.control('GET', 'requests?method=GET')).count);

    await webhook(nginx, event('creation', 'c-2', { end_user_id: '42' }));
    await webhook(nginx, event('deletion', 'c-2', {}));
    assert.strictEqual((await checked).status, 404);
    assert.deepStrictEqual((await list(nginx)).map((one) =>
        one.connection_id), ['c-1']);
    quiet(nginx);
});


test('nor does one while the state is behind', async (t) => {
    const { nango, nginx } = await running(t);
    const leader = nginx.leader();

    /* A new connection might be offered to the worker that is stopped. */
    const one = await beside(t, nginx, leader);
    const two = await beside(t, nginx, leader);
    let checked;

    await late(nango, 'GET', 300);
    nginx.kill(leader, 'SIGSTOP');

    try {
        checked = one.request('POST', '/connections', JSON_OF_ME,
            '{"integration":"github","connection_id":"c-1"}');
        await until('Nango to be asked', async () =>
            (await nango.control('GET', 'requests?method=GET')).count);

        assert.strictEqual((await two.request('DELETE',
            '/connections?integration=github', ME)).status, 200);
        checked = await checked;
    } finally {
        nginx.kill(leader, 'SIGCONT');
    }

    assert.strictEqual(checked.status, 503, checked.text);
    assert.strictEqual(checked.headers['x-nango-error'], 'store_unavailable');

    await until('the fold', async () => (await list(nginx)).length === 0);
    await sleep(300);
    assert.deepStrictEqual(await list(nginx), []);
    quiet(nginx);
});


/*
 * Two connections of one worker, the first of which has sent that webhook; it
 * waits for the log, and what the worker appends next goes behind it.
 */
async function committing(t, nginx, body) {
    const leader = nginx.leader();
    const one = await beside(t, nginx, leader);
    const two = await beside(t, nginx, leader);
    const release = await hold(t, nginx);
    const answered = one.request('POST', '/webhook', {
        'Content-Type': 'application/json',
        'X-Nango-Hmac-Sha256': hmac(body, KEY),
    }, body);

    await sleep(300);

    return { two, done: async () => {
        await release();
        assert.strictEqual((await answered).status, 200);
    } };
}


async function checkBehind(t, nango, nginx, body) {
    assert.strictEqual((await list(nginx)).length, 1);

    const { two, done } = await committing(t, nginx, body);
    const checked = two.request('POST', '/connections', JSON_OF_ME,
        '{"integration":"github","connection_id":"c-1"}');

    await until('Nango to be asked', async () =>
        (await nango.control('GET', 'requests?method=GET')).count);
    await sleep(300);
    await done();

    return checked;
}


test('nor does one behind a deletion that is being committed', async (t) => {
    const { nango, nginx } = await running(t);
    const checked = await checkBehind(t, nango, nginx,
                                      event('deletion', 'c-1', {}));

    assert.strictEqual(checked.status, 404);
    assert.deepStrictEqual(await list(nginx), []);
    quiet(nginx);
});


test('nor does one of what is deleted a second time', async (t) => {
    const { nango, nginx } = await running(t);

    assert.strictEqual((await remove(nginx)).status, 200);

    /* Nango had it again when it was asked. */

    await late(nango, 'GET', 700);

    const checked = check(nginx);

    await until('Nango to be asked', async () =>
        (await nango.control('GET', 'requests?method=GET')).count);
    await webhook(nginx, event('deletion', 'c-1', {}));

    assert.strictEqual((await checked).status, 404);
    assert.deepStrictEqual(await list(nginx), []);
    quiet(nginx);
});


/* Events may be kept for a very short time, deletions not. */

test('nor does one of what was deleted longer ago than is kept', async (t) => {
    const { nango, nginx } = await running(t, 'retain=1s');

    await late(nango, 'GET', 4000);

    const checked = check(nginx);

    await until('Nango to be asked', async () =>
        (await nango.control('GET', 'requests?method=GET')).count);
    await webhook(nginx, event('deletion', 'c-1', {}));
    await sleep(2000);
    await webhook(nginx, event('creation', 'c-2', { end_user_id: '43' }));

    assert.strictEqual((await checked).status, 404);
    assert.deepStrictEqual(await list(nginx), []);
    quiet(nginx);
});


test('what was confirmed while Nango was asked is newer', async (t) => {
    const { nango, nginx } = await running(t);

    await nango.control('POST', 'faults', { faults: [{
        method: 'GET', path: '/connections/c-1', delay_ms: 700, status: 424,
        body: { error: { code: 'invalid_credentials', message: 'broken' } },
    }] });

    const checked = check(nginx);

    await until('Nango to be asked', async () =>
        (await nango.control('GET', 'requests?method=GET')).count);

    /* Valid it was: nothing changes. */

    await webhook(nginx, event('override', 'c-1', { end_user_id: '42' }));

    assert.strictEqual((await checked).json.status, 'valid');
    assert.strictEqual((await list(nginx))[0].status, 'valid');
    quiet(nginx);
});


test('what changes nothing while it is committed is not in the way',
     async (t) => {
    const { nango, nginx } = await running(t);

    await nango.control('POST', 'retag', { integration: 'github',
        connection_id: 'c-1', tags: { end_user_id: '42', team: 'x' } });

    const checked = await checkBehind(t, nango, nginx,
                                      event('refresh', 'c-1', {}));

    assert.strictEqual(checked.status, 200);
    assert.deepStrictEqual(checked.json.tags,
                           { end_user_id: '42', team: 'x' });
    quiet(nginx);
});


test('checks and deletions beside each other agree in the end', async (t) => {
    const { nango, nginx } = await running(t);

    for (let round = 0; round < 15; round++) {
        await nango.control('POST', 'state', { connections: [{
            integration: 'github', connection_id: 'c-1',
            tags: { end_user_id: '42' },
        }] });

        assert.strictEqual((await check(nginx)).status, 200);

        const all = await Promise.all([
            check(nginx), remove(nginx), check(nginx), remove(nginx),
            sleep(round).then(() => check(nginx)),
        ]);

        all.forEach((one) =>
            assert.ok([200, 404].includes(one.status), one.text));

        /* Of two workers, either may have come first. */

        assert.ok(all[1].status === 200 || all[3].status === 200);
        assert.deepStrictEqual(await list(nginx), [], `round ${round}`);
    }

    quiet(nginx);
});


test('a webhook that comes while Nango is asked counts', async (t) => {
    const { nango, nginx } = await running(t);

    await late(nango, 'GET', 500);

    const checked = check(nginx);

    await until('Nango to be asked', async () =>
        (await nango.control('GET', 'requests?method=GET')).count);
    await webhook(nginx, JSON.stringify({
        connectionId: 'c-1', from: 'nango', operation: 'refresh',
        provider: 'github', providerConfigKey: 'github', success: false,
        error: { type: 'x', description: 'newer' }, tags: {}, type: 'auth',
    }));

    const answer = await checked;

    assert.strictEqual(answer.status, 200);
    assert.strictEqual(answer.json.status, 'invalid');
    assert.strictEqual(answer.json.error.description, 'newer');
    quiet(nginx);
});


test('a check and a deletion wake a page that waits', async (t) => {
    const { nango, nginx } = await running(t);
    const { sequence } = (await once(nginx.port, 'GET', '/connections',
                                     ME)).json;
    const wait = (since) => once(nginx.port, 'GET',
        `/connections?since=${since}&wait=25`, ME);

    await nango.control('POST', 'refresh-fail', {
        integration: 'github', connection_id: 'c-1', webhook: false,
    });

    let page = wait(sequence);

    await sleep(50);
    assert.strictEqual((await check(nginx)).json.status, 'invalid');
    page = await page;
    assert.strictEqual(page.json.changed, true);
    assert.strictEqual(page.json.connections[0].status, 'invalid');

    page = wait(page.json.sequence);
    await sleep(50);
    assert.strictEqual((await remove(nginx)).status, 200);
    page = await page;
    assert.strictEqual(page.json.changed, true);
    assert.deepStrictEqual(page.json.connections, []);
    quiet(nginx);
});


for (const signal of ['SIGHUP', 'SIGQUIT']) {
    test(`${signal} waits for a deletion and a check`, async (t) => {
        const { nango, nginx } = await running(t);

        await nango.control('POST', 'state', { connections: [{
            integration: 'github', connection_id: 'c-2',
            tags: { end_user_id: '42' },
        }] });
        await nango.control('POST', 'faults', { faults: [
            { method: 'DELETE', delay_ms: 800 },
            { method: 'GET', path: '/connections/c-2', delay_ms: 800 },
        ] });

        const removed = remove(nginx);
        const checked = once(nginx.port, 'POST', '/connections', JSON_OF_ME,
            '{"integration":"github","connection_id":"c-2"}');

        await until('Nango to be asked', async () =>
            (await nango.control('GET', 'requests?path=/connections/c-2'))
                .count
            && (await nango.control('GET', 'requests?method=DELETE')).count);

        const old = nginx.workers();

        nginx.kill(nginx.master, signal);

        assert.strictEqual((await removed).status, 200);
        assert.strictEqual((await checked).status, 200);
        await until('the old workers to end',
                    () => !old.some((pid) => nginx.alive(pid)), 20000);
        quiet(nginx);

        if (signal === 'SIGQUIT') {
            await until('the master', () => !nginx.alive(nginx.master));
            await nginx.start();
        }

        assert.deepStrictEqual((await list(nginx))
            .map((c) => c.connection_id), ['c-2']);
    });
}


test('a store that is full: nothing is recorded, and asking again goes on',
     async (t) => {
    const { nango, nginx } = await running(t);
    const padding = 'x'.repeat(120 * 1024);

    const old = nginx.workers();

    nginx.configure(settings(nango.url, 'size=16m'));
    nginx.kill(nginx.master, 'SIGHUP');

    await until('new workers', () => !old.some((pid) => nginx.alive(pid)));

    for (let i = 0; ; i++) {
        const body = event('creation', `x-${i}`, {}, padding);
        const answer = await once(nginx.port, 'POST', '/webhook', {
            'Content-Type': 'application/json',
            'X-Nango-Hmac-Sha256': hmac(body, KEY),
        }, body);

        if (answer.status === 503) {
            break;
        }

        assert.ok(i < 400, 'it is never full');
    }

    /* Small ones may still fit: until they do not either. */
    for (let i = 0; i < 2000; i++) {
        const answer = await check(nginx);

        if (answer.status === 503) {
            assert.strictEqual(answer.headers['x-nango-error'],
                               'store_unavailable');
            break;
        }

        assert.strictEqual(answer.status, 200);
        assert.ok(i < 1999, 'it is never full');
    }

    const answer = await remove(nginx);

    assert.strictEqual(answer.status, 503, answer.text);
    assert.strictEqual(answer.headers['x-nango-error'], 'store_unavailable');
    assert.strictEqual((await nango.control('GET', 'state'))
        .connections.length, 0);
    assert.strictEqual((await list(nginx)).length, 1);

    nginx.configure(settings(nango.url, 'size=64m'));
    nginx.kill(nginx.master, 'SIGHUP');

    await until('room', async () => (await remove(nginx)).status === 200);
    assert.deepStrictEqual(await list(nginx), []);
});


test('two workers count an owner\'s sessions together', async (t) => {
    const { nango, nginx } = await running(t);
    const codes = [];

    for (let i = 0; i < 16; i++) {
        codes.push((await once(nginx.port, 'POST', '/limited', ME)).status);
    }

    assert.deepStrictEqual(codes, [...Array(5).fill(200),
                                   ...Array(11).fill(429)]);

    /* And a reload forgets nothing. */
    const old = nginx.workers();

    nginx.kill(nginx.master, 'SIGHUP');
    await until('new workers', () => !old.some((pid) => nginx.alive(pid)));
    assert.strictEqual((await once(nginx.port, 'POST', '/limited', ME)).status,
                       429);
    assert.strictEqual((await nango.control('GET',
        'requests?path=/connect/sessions')).count, 5);
    quiet(nginx);
});
