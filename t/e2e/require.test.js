/*
 * nango_require with several workers and many clients: one fetch for all who
 * wait, whoever dies or leaves meanwhile, and nothing of a secret on disk.
 */

'use strict';

const assert = require('node:assert');
const { createHash } = require('node:crypto');
const fs = require('node:fs');
const http = require('node:http');
const net = require('node:net');
const path = require('node:path');
const nodeTest = require('node:test');

const sim = require('../sim/helper');
const { API_KEY } = require('../sim/nango');
const { Client, hmac, ofWorkers, once } = require('./client');
const { startOnClock, HOUR, MINUTE, SECOND } = require('./clock');
const { hold } = require('./edge');
const { compile } = require('./model');
const { create, sleep, until } = require('./nginx');

const KEY = 'signing-key-of-prod';
const ME = { 'X-User': '42' };


function settings(api, more) {
    return {
        connections: 4096,
        http: `
    nango_store @STORE@;
    nango_environment prod {
        api                 ${api};
        api_public          https://nango.example.com;
        api_key             data:${API_KEY};
        webhook_signing_key data:${KEY};
        ${more || ''}
    }
    log_format all '$status $nango_connection_id $nango_result';
`,
        server: `
    access_log @DIR@/access.log all;
    location = /webhook { nango_webhook; }
    location /connections {
        nango_owner end_user_id $http_x_user;
        nango_connections;
    }
    location /plain {
        nango_owner end_user_id $http_x_user;
        nango_require github;
        empty_gif;
    }
    location /secret {
        nango_owner end_user_id $http_x_user;
        nango_require github id=$arg_id credentials;
        add_header X-Token $nango_credential;
        empty_gif;
    }
    location /maybe {
        nango_owner end_user_id $http_x_user;
        nango_require github optional credentials;
        add_header X-Is "<$nango_connection_id|$nango_credential>";
        empty_gif;
    }
    location /catalog {
        nango_owner end_user_id $http_x_user;
        nango_catalog;
    }
    location = /worker { return 200 $pid; }
`,
    };
}


/* None may hang: what waits for ever is a failure. */
function test(name, fn) {
    return nodeTest(name, { timeout: 120000 }, fn);
}


function event(operation, connection, tags, more) {
    return JSON.stringify({
        connectionId: connection, from: 'nango', operation,
        provider: 'github', providerConfigKey: 'github', success: true,
        tags, type: 'auth', ...more,
    });
}


async function webhook(nginx, body) {
    const answer = await once(nginx.port, 'POST', '/webhook', {
        'Content-Type': 'application/json',
        'X-Nango-Hmac-Sha256': hmac(body, KEY),
    }, body);

    assert.strictEqual(answer.status, 200, answer.text);
    await once(nginx.port, 'GET', '/connections', ME);
}


/* Connection c-1 of user 42, here and there. */
async function running(t, more, token, { workers = 2, clock, server } = {}) {
    const nango = await sim.start(t);
    const options = settings(nango.url, more);
    const nginx = await create(t, { ...options, workers,
        server: options.server + (server ? server(nango.url) : '') });

    await (clock ? clock(nginx) : nginx.start());
    await until('the workers', () => nginx.workers().length >= workers);
    await put(nango, 'c-1', token || 'token-of-c-1');
    await webhook(nginx, event('creation', 'c-1', { end_user_id: '42' }));
    await until('a leader', () => nginx.leader());

    return { nango, nginx };
}


function put(nango, connection, token) {
    return nango.control('POST', 'state', { connections: [{
        integration: 'github', connection_id: connection,
        tags: { end_user_id: '42' },
        credentials: { type: 'OAUTH2', access_token: token },
    }] });
}


function late(nango, ms, more) {
    return nango.control('POST', 'faults', { faults: [{
        method: 'GET', path: '/connections/c-1', delay_ms: ms, ...more,
    }] });
}


async function calls(nango) {
    return (await nango.control('GET', 'requests?path=/connections/')).count;
}


function secret(nginx, query) {
    return once(nginx.port, 'GET', `/secret${query || ''}`, ME);
}


function many(n, ask) {
    return Promise.all(Array.from({ length: n }, ask));
}


function quiet(nginx) {
    assert.deepStrictEqual(nginx.lines('alert', 'crit', 'emerg'), []);
}


for (const [what, more] of [
    ['two workers', ''],
    ['of a Nango that may take hours', 'api_timeout 2h;'],
]) {
    test(`a thousand at once, ${what}, one call`, async (t) => {
        const { nango, nginx } = await running(t, more);

        await late(nango, 1500);

        const answers = await many(1000, () => secret(nginx));

        assert.ok(answers.every((answer) => answer.status === 200
            && answer.headers['x-token'] === 'token-of-c-1'));
        assert.strictEqual(await calls(nango), 1);
        quiet(nginx);
    });
}


for (const [what, effect, said, patience] of [
    ['a refusal', { status: 500 }, '502 nango_error', '1h'],
    ['silence', { hang: true }, '504 nango_timeout', '2s'],
    ['a reply that is cut', { cut_after: 20 }, '503 nango_unavailable', '1h'],
]) {
    test(`${what} is the answer of all who wait`, async (t) => {
        const { nango, nginx } = await running(t, `api_timeout ${patience};`);

        await late(nango, effect.hang ? 0 : 300, effect);

        const answers = await many(200, () => secret(nginx));

        assert.deepStrictEqual([...new Set(answers.map((one) =>
            `${one.status} ${one.json.error.code}`))], [said]);
        assert.ok(await calls(nango) <= 2, 'no stampede');

        /* And soon it is asked for again, and that is kept. */

        await nango.control('DELETE', 'faults');
        await until('credentials', async () =>
            (await secret(nginx)).status === 200);

        const all = await calls(nango);

        for (let i = 0; i < 8; i++) {
            assert.strictEqual((await secret(nginx)).status, 200);
        }

        assert.strictEqual(await calls(nango), all);
        quiet(nginx);
    });
}


test('what changes while it is waited for is looked at again', async (t) => {
    const { nango, nginx } = await running(t);

    /* The first answer is the oldest, and comes last. */

    await late(nango, 1500, { times: 1, status: 200, body: {
        connection_id: 'c-1', provider_config_key: 'github',
        credentials: { type: 'OAUTH2', access_token: 'token-of-c-1' } } });

    const before = many(50, () => secret(nginx));
    const maybe = many(50, () => once(nginx.port, 'GET', '/maybe', ME));

    await until('a call', async () => await calls(nango) === 1);
    await put(nango, 'c-1', 'token-of-43');
    await webhook(nginx, event('override', 'c-1', { end_user_id: '43' }));

    /* Now somebody else's: his are fetched, and those are nobody else's. */

    const his = await many(50, () => once(nginx.port, 'GET', '/secret',
                                          { 'X-User': '43' }));
    const mine = await before;

    assert.ok(his.every((answer) => answer.status === 200
                        && answer.headers['x-token'] === 'token-of-43'));
    assert.ok(mine.every((answer) =>
        answer.headers['x-token'] !== 'token-of-43'),
        'somebody else\'s credentials');

    for (const { status, headers } of await maybe) {
        assert.strictEqual(status, 200);
        assert.ok(['<|>', '<c-1|token-of-c-1>'].includes(headers['x-is']),
                  headers['x-is']);
    }

    /* What came late is not kept in the place of what came before it. */

    assert.strictEqual((await once(nginx.port, 'GET', '/secret',
        { 'X-User': '43' })).headers['x-token'], 'token-of-43');
    assert.ok(await calls(nango) <= 3, `${await calls(nango)} calls`);
    quiet(nginx);
});


/* Nango knew before us: what it answers is somebody else's already. */

for (const [what, body, status] of [
    ['somebody else\'s', event('override', 'c-1', { end_user_id: '43' })],
    ['deleted', event('deletion', 'c-1', {})],
    ['invalid', event('refresh', 'c-1', {}, { success: false }), 409],
]) {
    test(`what is ${what} while it is waited for`, async (t) => {
        const { nango, nginx } = await running(t);
        const workers = await ofWorkers(t, nginx.port);
        const beside = await ofWorkers(t, nginx.port);

        await late(nango, 1000);
        await put(nango, 'c-1', 'token-of-43');

        const before = workers.map((one) => one.request('GET', '/secret', ME));
        const maybe = beside.map((one) => one.request('GET', '/maybe', ME));

        await until('a call', async () => await calls(nango) === 1);
        await webhook(nginx, body);

        for (const answer of await Promise.all(before)) {
            assert.strictEqual(answer.status, status || 404);
            assert.strictEqual(answer.headers['x-token'], undefined);
        }

        for (const answer of await Promise.all(maybe)) {
            assert.strictEqual(answer.status, 200);
            assert.strictEqual(answer.headers['x-is'],
                               status ? '<c-1|>' : '<|>');
        }

        quiet(nginx);
    });
}


/* The answers to what it was before come never, and too early. */

test('who asks for a newer version waits for no older one', async (t) => {
    const { nango, nginx } = await running(t, 'api_timeout 1h;', '',
                                           { workers: 1 });
    const answers = [];

    await nango.control('POST', 'faults', { faults: [
        { hang: true },
        { status: 500, delay_ms: 700 },
        { status: 200, delay_ms: 2000, body: {
            connection_id: 'c-1', provider_config_key: 'github',
            credentials: { type: 'API_KEY', apiKey: 'the-newest' } } },
    ].map((effect) => ({ method: 'GET', path: '/connections/c-1', times: 1,
                         ...effect })) });

    for (let i = 1; i <= 3; i++) {
        answers.push(secret(nginx));
        await until('a call', async () => await calls(nango) === i);

        if (i < 3) {
            await webhook(nginx, event('override', 'c-1',
                                       { end_user_id: '42' }, { n: i }));
        }
    }

    const last = await answers[2];

    assert.strictEqual(last.status, 200, last.text);
    assert.strictEqual(last.headers['x-token'], 'the-newest');
    assert.match(nginx.log(), /answered 500, not credentials/);
    await Promise.all(answers);
    quiet(nginx);
});


/* As of a store that was put back from a copy. */

test('a store that knows less than what is kept', async (t) => {
    const { nango, nginx } = await running(t);

    for (let i = 0; i < 3; i++) {
        await webhook(nginx, event('override', 'c-1', { end_user_id: '42' },
                                   { n: i }));
    }

    assert.strictEqual((await secret(nginx)).status, 200);

    const old = nginx.workers();
    const { http: lines, server } = settings(nango.url);

    nginx.configure({ http: lines.replace('@STORE@', '@DIR@/copy'), server });
    nginx.kill(nginx.master, 'SIGHUP');
    await until('other workers', () => nginx.workers().length >= 2
        && !nginx.workers().some((pid) => old.includes(pid)));
    await webhook(nginx, event('creation', 'c-1', { end_user_id: '42' }));
    await put(nango, 'c-1', 'another-token');

    const answer = await secret(nginx);

    assert.strictEqual(answer.status, 200, answer.text);
    assert.strictEqual(answer.headers['x-token'], 'another-token');
    quiet(nginx);
});


test('what is about to expire serves all who wait', async (t) => {
    const { nango, nginx } = await running(t);

    await nango.control('POST', 'state', { connections: [{
        integration: 'github', connection_id: 'c-1',
        tags: { end_user_id: '42' },
        credentials: { type: 'OAUTH2', access_token: 'short-lived',
                       expires_at: new Date(Date.now() + 20000)
                           .toISOString() },
    }] });
    await late(nango, 500);

    const answers = await many(300, () => secret(nginx));

    assert.ok(answers.every((answer) =>
        answer.headers['x-token'] === 'short-lived'));
    assert.strictEqual(await calls(nango), 1);
    quiet(nginx);
});


test('what is still on its way to the state is not waited for', async (t) => {
    const { nginx } = await running(t);
    const release = await hold(t, nginx, 'state');
    const body = event('creation', 'c-9', { end_user_id: '99' });
    const nobody = { 'X-User': '99' };

    assert.strictEqual((await once(nginx.port, 'POST', '/webhook', {
        'Content-Type': 'application/json',
        'X-Nango-Hmac-Sha256': hmac(body, KEY),
    }, body)).status, 200);

    /* Those who do wait are still at it when it is answered. */

    let waited = false;
    const lists = many(20, () => once(nginx.port, 'GET', '/connections',
                                      nobody).then(() => { waited = true; }));

    assert.strictEqual((await once(nginx.port, 'GET', '/plain', nobody))
        .status, 404);
    assert.strictEqual(waited, false);
    await lists;
    await release();
    await until('the fold', async () => (await once(nginx.port, 'GET',
        '/plain', nobody)).status === 200);
    quiet(nginx);
});


test('many versions while it is waited for are few calls', async (t) => {
    const { nango, nginx } = await running(t);

    await late(nango, 1000);

    const all = [];

    for (let i = 0; i < 5; i++) {
        all.push(many(40, () => secret(nginx)));
        await sleep(60);
        await webhook(nginx, event('override', 'c-1', { end_user_id: '42' },
                                   { n: i }));
    }

    const answers = (await Promise.all(all)).flat();

    assert.ok(answers.every((answer) => answer.status === 200));
    assert.ok(await calls(nango) <= 8, `${await calls(nango)} calls`);
    quiet(nginx);
});


test('another worker takes over from one that was killed', async (t) => {
    /* No client here has that much patience. */

    const { nango, nginx } = await running(t, 'api_timeout 60s;');

    await late(nango, 1500, { times: 1 });

    /* Connections of both workers, so that one of them fetches. */

    const clients = [];
    const pids = [];

    while (clients.length < 40 || new Set(pids).size < 2) {
        const client = new Client(nginx.port);

        clients.push(client);
        pids.push(Number((await client.request('GET', '/worker', {})).text));
    }

    const first = pids[0];
    const begun = clients[0].request('GET', '/secret', ME).catch(() => {});

    await until('a call', async () => await calls(nango) === 1);

    const others = clients.filter((client, i) => i && pids[i] !== first)
        .map((client) => client.request('GET', '/secret', ME));

    await sleep(100);
    nginx.kill(first, 'SIGKILL');
    await begun;

    const answers = await Promise.all(others);

    assert.ok(answers.every((answer) => answer.status === 200));
    assert.strictEqual(await calls(nango), 2);
    clients.forEach((client) => client.close());
});


/* A worker that waits for an answer is stopped; the state goes on. */
async function stopped(t, more) {
    const { nango, nginx } = await running(t, more);
    const all = await ofWorkers(t, nginx.port);
    const pids = await Promise.all(all.map(async (client) =>
        Number((await client.request('GET', '/worker')).text)));
    const n = pids.indexOf(nginx.leader()) ? 0 : 1;

    await late(nango, 0, { hang: true, times: 1 });

    const answer = all[n].request('GET', '/secret', ME);

    await until('a call', async () => await calls(nango) === 1);
    nginx.kill(pids[n], 'SIGSTOP');

    return { nango, nginx, answer, other: all[1 - n],
             go: () => nginx.kill(pids[n], 'SIGCONT') };
}


test('another worker takes over from one that is stopped', async (t) => {
    const { nango, nginx, answer, other, go }
        = await stopped(t, 'api_timeout 1s;');

    await until('credentials', async () =>
        (await other.request('GET', '/secret', ME)).status === 200);

    /* What comes of its call by now does not count any more. */

    go();
    await answer;
    await until('its failure', () => /for credentials failed/.test(
        nginx.log()));

    for (let i = 0; i < 4; i++) {
        assert.strictEqual((await secret(nginx)).status, 200);
    }

    assert.strictEqual(await calls(nango), 2);
    quiet(nginx);
});


test('one that was stopped has nothing of what is somebody else\'s now',
     async (t) => {
    const { nango, nginx, answer, other, go }
        = await stopped(t, 'api_timeout 1h;');
    const body = event('override', 'c-1', { end_user_id: '43' });
    const his = { 'X-User': '43' };

    await put(nango, 'c-1', 'token-of-43');
    assert.strictEqual((await other.request('POST', '/webhook', {
        'Content-Type': 'application/json',
        'X-Nango-Hmac-Sha256': hmac(body, KEY),
    }, body)).status, 200);
    await until('the fold', async () =>
        (await other.request('GET', '/plain', his)).status === 200);
    assert.strictEqual((await other.request('GET', '/secret', his))
        .headers['x-token'], 'token-of-43');

    go();
    assert.strictEqual((await answer).status, 404);
    quiet(nginx);
});


test('what a clock that ran ahead has kept is asked for again', async (t) => {
    let clock;
    const { nango, nginx } = await running(t, '', '', {
        clock: async (one) => {
            clock = await startOnClock(t, one, { wall: true });
            clock.forward(24 * HOUR);
        },
    });
    const asked = [];

    for (const ms of [0, 0, -24 * HOUR, 0]) {
        clock.forward(ms);
        assert.strictEqual((await secret(nginx)).status, 200);
        asked.push(await calls(nango));
    }

    assert.deepStrictEqual(asked, [1, 1, 2, 2]);
    quiet(nginx);
});


/* Where a connection's credentials are kept: see docs/internals.md. */
function place(connection) {
    const hash = createHash('sha256').update('c');

    for (const part of ['prod', 'github', connection]) {
        const length = Buffer.alloc(4);

        length.writeUInt32BE(part.length);
        hash.update(length).update(part);
    }

    return hash.digest().readUInt16LE() % 512;
}


test('one whose answer does not come leaves room beside it', async (t) => {
    const { nango, nginx } = await running(t, 'api_timeout 1h;');
    let n = 2;

    while (place(`c-${n}`) !== place('c-1')) {
        n++;
    }

    await nango.control('POST', 'state', { connections: [{
        integration: 'github', connection_id: `c-${n}`,
        tags: { end_user_id: '43' },
        credentials: { type: 'API_KEY', apiKey: 'another' },
    }] });
    await webhook(nginx, event('creation', `c-${n}`, { end_user_id: '43' }));
    await late(nango, 0, { hang: true });

    const client = new Client(nginx.port);

    t.after(() => client.close());
    client.request('GET', '/secret', ME).catch(() => {});
    await until('a call', async () => await calls(nango) === 1);

    const answer = await once(nginx.port, 'GET', '/secret',
                              { 'X-User': '43' });

    assert.strictEqual(answer.headers['x-token'], 'another');
    quiet(nginx);
});


/* What says nothing of its end, and what says that it is far. */

test('kept for five minutes, and for an hour at most', async (t) => {
    const nango = await sim.start(t);
    const nginx = await create(t, settings(nango.url));
    const clock = await startOnClock(t, nginx);
    const users = { 'c-1': '42', 'c-2': '43' };

    await nango.control('POST', 'state', { connections: [
        { connection_id: 'c-1',
          credentials: { type: 'API_KEY', apiKey: 'key' } },
        { connection_id: 'c-2',
          credentials: { type: 'OAUTH2', access_token: 'token',
                         expires_at: new Date(clock.now() + 24 * HOUR)
                             .toISOString() } },
    ].map((one) => ({ integration: 'github',
                      tags: { end_user_id: users[one.connection_id] },
                      ...one })) });

    const asked = [];

    for (const [connection, user] of Object.entries(users)) {
        await webhook(nginx, event('creation', connection,
                                   { end_user_id: user }));
    }

    for (const ms of [0, 5 * MINUTE - 30 * SECOND, MINUTE,
                      54 * MINUTE, MINUTE])
    {
        clock.forward(ms);

        for (const user of Object.values(users)) {
            assert.strictEqual((await once(nginx.port, 'GET', '/secret',
                { 'X-User': user })).status, 200);
        }

        asked.push(await Promise.all(Object.keys(users).map(
            async (connection) => (await nango.control('GET',
                `requests?path=/connections/${connection}`)).count)));
    }

    assert.deepStrictEqual(asked, [[1, 1], [1, 1], [2, 1], [3, 1], [3, 2]]);
    quiet(nginx);
});


test('clients that leave while they wait', async (t) => {
    const { nango, nginx } = await running(t);

    await late(nango, 800);

    const workers = nginx.workers();
    const clients = Array.from({ length: 100 }, () => new Client(nginx.port));

    clients.forEach((client) =>
        client.request('GET', '/secret', ME).catch(() => {}));
    await until('a call', async () => await calls(nango) === 1);
    clients.forEach((client, i) => client.close(i % 2 === 0));

    const answer = await secret(nginx);

    assert.strictEqual(answer.headers['x-token'], 'token-of-c-1');
    assert.strictEqual(await calls(nango), 1);
    assert.deepStrictEqual(nginx.workers(), workers);
    quiet(nginx);
});


/* nginx is told of it by the part that another server is asked for. */

test('a page that is left while a part of it waits', async (t) => {
    const { nango, nginx } = await running(t, '', '', {
        workers: 1,
        server: (url) => `
    error_log @DIR@/error.log info;
    location = /part {
        proxy_set_header Host localhost;
        proxy_pass ${url}/health;
    }
    location = /page {
        ssi on;
        default_type text/html;
        return 200 '<!--# include virtual="/part" -->
                    <!--# include virtual="/secret" -->';
    }
`,
    });
    const workers = nginx.workers();

    await nango.control('POST', 'faults', { faults: [
        { path: '/connections/c-1', delay_ms: 1000 },
        { path: '/health', hang: true },
    ] });

    const page = http.get({ host: '127.0.0.1', port: nginx.port,
                            path: '/page', agent: false, headers: ME });

    page.on('error', () => {});
    await until('both parts', async () => await calls(nango) === 1
        && (await nango.control('GET', 'requests?path=/health')).count);
    page.destroy();
    await until('nginx knows that', () =>
        /prematurely closed connection/.test(nginx.log()));

    /* Others, in the memory that it had. */

    const answers = await many(50, () => secret(nginx));

    assert.ok(answers.every((answer) => answer.status === 200));
    assert.strictEqual(await calls(nango), 1);
    assert.deepStrictEqual(nginx.workers(), workers);
    quiet(nginx);
});


/* What a client sends behind a request is the next one, a body is none. */
test('pipelined, with bodies that nobody wants', async (t) => {
    const { nango, nginx } = await running(t);
    const inner = 'GET /plain HTTP/1.1\r\nHost: a\r\nX-User: 42\r\n\r\n';

    await late(nango, 300);

    const text = await new Promise((resolve, reject) => {
        const socket = net.connect(nginx.port, '127.0.0.1');
        let seen = '';

        socket.on('data', (data) => { seen += data.toString('latin1'); });
        socket.on('end', () => resolve(seen));
        socket.on('error', reject);
        socket.write(`POST /plain HTTP/1.1\r\nHost: a\r\nX-User: 43\r\n`
                     + `Content-Length: ${inner.length}\r\n\r\n${inner}`
                     + 'GET /secret HTTP/1.1\r\nHost: a\r\nX-User: 42\r\n\r\n'
                     + `POST /secret HTTP/1.1\r\nHost: a\r\nX-User: 44\r\n`
                     + `Content-Length: ${inner.length}\r\n\r\n${inner}`
                     + 'GET /plain HTTP/1.1\r\nHost: a\r\nX-User: 43\r\n'
                     + 'Connection: close\r\n\r\n');
    });

    assert.deepStrictEqual(text.match(/HTTP\/1\.1 \d+/g),
                           ['HTTP/1.1 404', 'HTTP/1.1 200', 'HTTP/1.1 404',
                            'HTTP/1.1 404']);
    quiet(nginx);
});


test('more connections than there is room for', async (t) => {
    const { nango, nginx } = await running(t, 'api_connections 64;');
    const total = 3000;
    const client = new Client(nginx.port);
    const connections = Array.from({ length: total }, (_, i) => `n-${i}`);

    await nango.control('POST', 'settings', { rate_limit: 1000000 });
    await nango.control('POST', 'state', { connections: connections
        .map((connection) => ({
            integration: 'github', connection_id: connection,
            tags: { end_user_id: connection },
            credentials: { type: 'API_KEY', apiKey: `key-of-${connection}` },
        })) });

    for (const connection of connections) {
        const body = event('creation', connection,
                           { end_user_id: connection });

        await client.request('POST', '/webhook', {
            'Content-Type': 'application/json',
            'X-Nango-Hmac-Sha256': hmac(body, KEY) }, body);
    }

    await once(nginx.port, 'GET', '/connections', ME);

    const clients = Array.from({ length: 32 }, () => new Client(nginx.port));
    const left = [...connections, ...connections];

    await Promise.all(clients.map(async (one) => {
        for (let c = left.pop(); c; c = left.pop()) {
            const answer = await one.request('GET', '/secret',
                                             { 'X-User': c });

            assert.strictEqual(answer.headers['x-token'], `key-of-${c}`);
        }

        one.close();
    }));

    client.close();
    quiet(nginx);
});


test('a secret is nowhere on disk', async (t) => {
    const token = 'a-secret-that-is-easy-to-find';
    const { nango, nginx } = await running(t, '', token);

    assert.strictEqual((await secret(nginx)).headers['x-token'], token);

    await webhook(nginx, event('refresh', 'c-1', {}, { success: false,
        error: { type: 'x', description: 'y' } }));
    assert.strictEqual((await secret(nginx)).status, 409);
    await nango.control('POST', 'refresh-fail', {
        integration: 'github', connection_id: 'c-1', webhook: false });
    await nginx.stop();

    const walk = (dir) => fs.readdirSync(dir, { withFileTypes: true })
        .flatMap((one) => (one.isDirectory() ? walk(path.join(dir, one.name))
                           : [path.join(dir, one.name)]));
    const files = walk(nginx.dir);

    assert.ok(files.some((file) => file.endsWith('access.log')));

    for (const file of files) {
        assert.ok(!fs.readFileSync(file).includes(token), file);
    }

    assert.match(fs.readFileSync(path.join(nginx.dir, 'access.log'), 'latin1'),
                 /^200 c-1 /m);
});


test('reloads under load: never an answer but the right one', async (t) => {
    const { nginx } = await running(t);
    let done = false;
    let asked = 0;

    const load = many(8, async () => {
        const client = new Client(nginx.port);

        while (!done) {
            for (const where of ['/plain', '/secret']) {
                let answer;

                try {
                    answer = await client.request('GET', where, ME);
                } catch (err) {
                    /* a connection that was idle when its worker left */
                    assert.ok(err.cut && err.received === 0, err);
                    continue;
                }

                assert.strictEqual(answer.status, 200, answer.text);
                asked++;
            }
        }

        client.close();
    });

    for (let i = 0; i < 3; i++) {
        nginx.kill(nginx.master, 'SIGHUP');
        await sleep(700);
    }

    done = true;
    await load;
    assert.ok(asked > 100);
    quiet(nginx);
});


test('a store that cannot be read: 503, and nothing else of the site', async (t) => {
    const nango = await sim.start(t);
    const nginx = await create(t, settings(nango.url));

    fs.mkdirSync(nginx.store, { mode: 0o777 });
    fs.chmodSync(nginx.store, 0o777);
    fs.writeFileSync(path.join(nginx.store, 'log'), 'no directory');
    await nginx.start();

    const answer = await once(nginx.port, 'GET', '/plain', ME);

    assert.strictEqual(answer.status, 503, answer.text);
    assert.strictEqual(answer.json.error.code, 'store_unavailable');

    const maybe = await once(nginx.port, 'GET', '/maybe', ME);

    assert.strictEqual(maybe.status, 200, maybe.text);
    assert.strictEqual(maybe.headers['x-is'], '<|>');
    assert.strictEqual((await once(nginx.port, 'GET', '/worker', {})).status,
                       200);
});


test('one list of integrations for five hundred', async (t) => {
    const { nango, nginx } = await running(t);

    await nango.control('POST', 'faults', { faults: [{
        path: '/integrations', delay_ms: 500 }] });

    const answers = await many(500, () => once(nginx.port, 'GET', '/catalog',
                                               ME));

    assert.ok(answers.every((answer) => answer.status === 200
                            && answer.json.integrations.some((one) =>
                                one.integration === 'github'
                                && one.connected)));
    assert.ok((await nango.control('GET', 'requests?path=/integrations'))
        .count <= 2);
    quiet(nginx);
});


test('clients that leave while they wait for it', async (t) => {
    const { nango, nginx } = await running(t);
    const workers = nginx.workers();

    await nango.control('POST', 'faults', { faults: [{
        path: '/integrations', delay_ms: 800 }] });

    const clients = Array.from({ length: 100 }, () => new Client(nginx.port));

    clients.forEach((client) =>
        client.request('GET', '/catalog', ME).catch(() => {}));
    await until('a call', async () => (await nango.control('GET',
        'requests?path=/integrations')).count);
    clients.forEach((client, i) => client.close(i % 2 === 0));

    const answer = await once(nginx.port, 'GET', '/catalog', ME);

    assert.strictEqual(answer.status, 200, answer.text);
    assert.deepStrictEqual(nginx.workers(), workers);
    quiet(nginx);
});


test('a Nango that is dead is left alone, and found again', async (t) => {
    const { nango, nginx } = await running(t, 'api_timeout 300ms;');
    const { port } = nango;

    await late(nango, 0, { hang: true });

    for (let i = 0; i < 8; i++) {
        await secret(nginx);
        await webhook(nginx, event('override', 'c-1', { end_user_id: '42' },
                                   { n: i }));
    }

    assert.match(nginx.log(), /environment "prod" does not answer/);

    /* Most of these are answered without asking. */

    const before = await calls(nango);

    for (let i = 0; i < 20; i++) {
        const answer = await secret(nginx);

        assert.ok([503, 504].includes(answer.status), answer.text);
        await webhook(nginx, event('override', 'c-1', { end_user_id: '42' },
                                   { n: 100 + i }));
    }

    assert.ok(await calls(nango) - before < 8);

    await nango.control('DELETE', 'faults');
    await until('credentials', async () =>
        (await secret(nginx)).status === 200, 20000);
    assert.match(nginx.log(), /environment "prod" answers again/);
    assert.ok(port);
    quiet(nginx);
});


/* Nobody else is let through, however long the one that was may take. */

test('one at a time looks whether Nango is back', async (t) => {
    const { nango, nginx } = await running(t, 'api_timeout 300ms;');

    await late(nango, 0, { hang: true });
    await until('enough failures', async () => {
        await secret(nginx);
        await webhook(nginx, event('override', 'c-1', { end_user_id: '42' },
                                   { n: Math.random() }));
        return /environment "prod" does not answer/.test(nginx.log());
    });

    /* What is known of the environment outlives a reload. */

    const old = nginx.workers();

    nginx.configure(settings(nango.url, 'api_timeout 2h;'));
    nginx.kill(nginx.master, 'SIGHUP');
    await until('new workers', () => nginx.workers().length >= 2
        && !nginx.workers().some((pid) => old.includes(pid)), 30000);

    const clients = [];
    const failed = await calls(nango);

    /* Those that come too early are answered, and it tries again. */

    await until('a request that hangs', async () => {
        const client = new Client(nginx.port);

        clients.push(client);
        client.request('GET', '/secret', ME).catch(() => {});
        await sleep(100);
        return await calls(nango) > failed;
    });

    for (let i = 0; i < 10; i++) {
        const answer = await once(nginx.port, 'GET', '/catalog', ME);

        assert.strictEqual(answer.status, 503, answer.text);
    }

    assert.strictEqual((await nango.control('GET',
        'requests?path=/integrations')).count, 0);
    clients.forEach((client) => client.close(true));
    quiet(nginx);
});


/* Says whose credentials it was asked with; to the second question as well. */
async function backend(t) {
    const seen = [];
    const server = http.createServer((req, res) => {
        const secret = req.headers['x-secret'] || 'nobody';
        const body = `${secret}.`.repeat(20).slice(0, 80);
        const [, first, last] = (req.headers.range || '').match(/(\d+)-(\d+)/)
                                || [];

        seen.push(`${req.url} ${secret}`);

        if (first === undefined) {
            res.writeHead(200, { 'X-Accel-Expires': '@1' });
            res.end(body);
            return;
        }

        res.writeHead(206, {
            'Cache-Control': 'max-age=1000',
            'Content-Range': `bytes ${first}-${last}/${body.length}`,
        });
        res.end(body.slice(Number(first), Number(last) + 1));
    });

    await new Promise((resolve) => {
        server.listen(0, '127.0.0.1', resolve);
    });

    t.after(() => server.close());

    return { seen, url: `http://127.0.0.1:${server.address().port}` };
}


test('slices and updates in the background are of their request', async (t) => {
    const { nango, nginx } = await running(t);
    const { seen, url } = await backend(t);
    const { http: lines, server } = settings(nango.url);
    const same = `
        nango_owner         end_user_id $http_x_user;
        nango_require       github credentials;
        proxy_cache         c;
        proxy_cache_use_stale updating;
        proxy_cache_background_update on;
        proxy_http_version  1.1;
        proxy_set_header    X-Secret $nango_credential;
        proxy_pass          ${url};
    `;

    nginx.configure({
        http: `${lines} proxy_cache_path @DIR@/cache keys_zone=c:1m;`,
        server: `${server}
            location = /old {
                proxy_cache_key $nango_connection_id$uri;
                ${same}
            }
            location = /sliced {
                slice            20;
                proxy_cache_key  $nango_connection_id$uri$slice_range;
                proxy_set_header Range $slice_range;
                ${same}
            }`,
    });

    const old = nginx.workers();

    nginx.kill(nginx.master, 'SIGHUP');
    await until('other workers', () => {
        const now = nginx.workers();

        return now.length >= 2 && now.every((pid) => !old.includes(pid));
    });

    await nango.control('POST', 'state', { connections: [{
        integration: 'github', connection_id: 'c-2',
        tags: { end_user_id: '43' },
        credentials: { type: 'OAUTH2', access_token: 'token-of-c-2' },
    }] });
    await webhook(nginx, event('creation', 'c-2', { end_user_id: '43' }));

    for (const path of ['/sliced', '/old', '/old']) {
        for (const [user, token] of [['42', 'token-of-c-1'],
                                     ['43', 'token-of-c-2']])
        {
            const answer = await new Promise((resolve, reject) => {
                http.get({ host: '127.0.0.1', port: nginx.port, path,
                           agent: false, headers: { 'X-User': user } },
                         (res) => {
                    let text = '';

                    res.on('data', (data) => { text += data; });
                    res.on('end', () => resolve(text));
                    res.on('error', reject);
                }).on('error', reject);
            });

            assert.strictEqual(answer, `${token}.`.repeat(20).slice(0, 80));
        }
    }

    /* Four slices of either; what was old by then was asked for again. */

    await until('updates', () => seen.length === 12);
    assert.deepStrictEqual(seen.sort(), ['c-1', 'c-2'].flatMap((id) => [
        ...Array(2).fill(`/old token-of-${id}`),
        ...Array(4).fill(`/sliced token-of-${id}`),
    ]).sort());
    quiet(nginx);
});


/* Each of two workers finds the other at what it wants to write to. */

test('a fetch that cannot begin keeps nobody waiting', async (t) => {
    const nginx = await create(t, settings('http://127.0.0.1:1',
                                           'api_timeout 1s;'));
    const shim = compile(t, 'shim_slow.c', '-shared', '-fPIC', '-ldl');
    const users = Array.from({ length: 50 }, (_, i) => `u-${i}`);
    const statuses = {};

    await nginx.start({ LD_PRELOAD: shim });
    await until('two workers', () => nginx.workers().length >= 2);

    for (const user of users) {
        await webhook(nginx, event('creation', `c-${user}`,
                                   { end_user_id: user }));
    }

    const ask = async (user) => {
        const answer = await once(nginx.port, 'GET', '/secret',
                                  { 'X-User': user });

        statuses[answer.status] = (statuses[answer.status] || 0) + 1;
    };

    for (let i = 0; i < 10; i++) {
        await Promise.all(users.flatMap((user) =>
            Array.from({ length: 4 }, () => ask(user))));
        await sleep(1200);
    }

    assert.deepStrictEqual(statuses, { 503: 2000 });
    quiet(nginx);
});
