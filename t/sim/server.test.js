/*
 * The program: its one line, its options, its end; and the control interface
 * that makes it useful.
 */

'use strict';

const assert = require('node:assert');
const http = require('node:http');
const path = require('node:path');
const { spawn } = require('node:child_process');

const h = require('./helper');

const { test } = h;

const SERVER = path.join(__dirname, 'server.js');


/* A child that is killed with the test, whatever happens in it. */
function run(t, args, stdio) {
    const child = spawn(process.execPath, [SERVER, ...args],
                        { stdio: [stdio || 'ignore', 'pipe', 'pipe'] });
    const state = { child, out: '', err: '' };

    state.ended = new Promise((resolve) => {
        child.on('close', (code, signal) => resolve({ code, signal }));
    });
    child.stdout.setEncoding('utf8');
    child.stderr.setEncoding('utf8');
    child.stderr.on('data', (text) => {
        state.err += text;
    });
    state.ready = new Promise((resolve, reject) => {
        child.stdout.on('data', (text) => {
            state.out += text;

            if (state.out.endsWith('\n')) {
                resolve(state.out.trim().split(' ').pop());
            }
        });
        state.ended.then(() => reject(new Error(state.err)));
    });
    state.ready.catch(() => {});
    t.after(() => child.kill('SIGKILL'));

    return state;
}


test('one line, then service, then SIGTERM', async (t) => {
    const rx = await h.receiver(t);
    const server = run(t, [
        '--port', '0', '--webhook', rx.url,
        '--api-key', '33333333-3333-4333-8333-333333333333',
        '--signing-key', 'key',
        '--integration', 'own:github:OAUTH2:An own name',
        '--rate-limit', '7', '--retry-speed', '10', '--headers', 'short',
        '--set', 'environment="prod"', '--set', 'webhook_lag_ms=0',
    ]);
    const url = await server.ready;

    assert.match(server.out, /^listening on http:\/\/127\.0\.0\.1:\d+\n$/);

    const made = await h.call({ url }, 'POST', '/connect/sessions',
                              { tags: {}, allowed_integrations: ['own'] },
                              { key: '33333333-3333-4333-8333-333333333333' });

    assert.strictEqual(made.status, 201);
    assert.strictEqual(made.headers['x-ratelimit-limit'], '7');
    assert.strictEqual(made.headers['x-frame-options'], undefined);

    const { json } = await h.call({ url }, 'GET', '/_sim/state', undefined,
                                  { key: null });

    assert.strictEqual(json.integrations[0].display_name, 'An own name');

    const done = await h.call({ url }, 'POST', '/_sim/connect',
                              { token: made.json.data.token, wait: true },
                              { key: null });

    assert.strictEqual(done.json.delivery.outcome, 'delivered');
    assert.strictEqual(JSON.parse(rx.requests[0].body).environment, 'prod');

    server.child.kill('SIGTERM');
    assert.deepStrictEqual(await server.ended, { code: 0, signal: null });
    assert.strictEqual(server.out.split('\n').length, 2);
    assert.strictEqual(server.err, '');
});


test('with a Connect UI it says first where that is', async (t) => {
    const server = run(t, ['--connect-ui', '0']);
    const url = await server.ready;
    const [, ui] = /^connect ui on (http:\/\/127\.0\.0\.1:\d+)\nlistening/
        .exec(server.out);

    assert.notStrictEqual(ui, url);
    assert.strictEqual((await h.call({ url: ui }, 'GET', '/')).status, 200);
    server.child.kill('SIGTERM');
    assert.strictEqual((await server.ended).code, 0);
});


test('it ends with SIGINT', async (t) => {
    const server = run(t, []);

    await server.ready;
    server.child.kill('SIGINT');
    assert.strictEqual((await server.ended).code, 0);
});


test('it ends with its standard input', async (t) => {
    const server = run(t, ['--stdin'], 'pipe');

    await server.ready;
    server.child.stdin.end();
    assert.strictEqual((await server.ended).code, 0);
});


test('it ends with the parent it is given', async (t) => {
    const parent = spawn(process.execPath,
                         ['-e', 'setTimeout(() => {}, 20000)'],
                         { stdio: 'ignore' });

    t.after(() => parent.kill('SIGKILL'));

    const server = run(t, ['--parent', String(parent.pid)]);

    await server.ready;
    parent.kill('SIGKILL');
    assert.strictEqual((await server.ended).code, 0);
});


test('an option it does not know', async (t) => {
    const wrong = [['--prot', '1'], ['--port'], ['--set', 'nothing=1']];

    for (const args of wrong) {
        const server = run(t, args);

        assert.strictEqual((await server.ended).code, 2);
        assert.match(server.err, /usage/);
        assert.strictEqual(server.out, '');
    }
});


test('requests are kept as they were seen', async (t) => {
    const nango = await h.start(t);
    const agent = new http.Agent({ keepAlive: true });

    t.after(() => agent.destroy());

    await h.call(nango, 'GET', '/connections?limit=1', undefined,
                 { agent, headers: { 'X-oDD': 'Case' } });
    await h.call(nango, 'POST', '/connect/sessions', undefined,
                 { agent, text: '{"a": "\u00fc"}' });
    await h.call(nango, 'POST', '/connect/sessions', undefined,
                 { text: Buffer.from([0x7b, 0xff, 0x7d]) });

    const seen = (await h.call(nango, 'GET', '/_sim/requests')).json;
    const [a, b, c] = seen.requests;

    assert.strictEqual(seen.count, 3, 'control is not recorded');
    assert.strictEqual(a.path, '/connections?limit=1');
    assert.strictEqual(a.headers[a.headers.indexOf('X-oDD') + 1], 'Case');
    assert.strictEqual(a.status, 200);
    assert.strictEqual(b.body, '{"a": "\u00fc"}');
    assert.strictEqual(b.body_base64, undefined);
    assert.strictEqual(b.connection, a.connection);
    assert.notStrictEqual(c.connection, a.connection);
    assert.strictEqual(c.body_base64, Buffer.from([0x7b, 0xff, 0x7d])
        .toString('base64'));
    assert.strictEqual(c.status, 400);

    const newer = await nango.control('GET',
        `requests?since=${a.id}&method=POST&path=/connect`);

    assert.strictEqual(newer.count, 2);
});


test('the ring of requests is bounded', async (t) => {
    const nango = await h.start(t);
    const req = { method: 'GET', url: '/', httpVersion: '1.1',
                  rawHeaders: [], socket: {} };

    for (let i = 0; i < 25000; i++) {
        nango.recorder.add(req, Buffer.alloc(0), 0);
    }

    const kept = nango.recorder.list({});

    assert.strictEqual(kept.length, 10000);
    assert.strictEqual(kept[9999].id, 25000);
    assert.ok(nango.recorder.entries.length < 20001);
});


test('the state is shown, set and reset', async (t) => {
    const nango = await h.start(t, { settings: { rate_limit: 5 } });

    await h.session(nango, { tags: { a: 'b' } });
    await nango.control('POST', 'state', {
        integrations: [{ id: 'new', provider: 'x', auth_mode: 'BASIC' }],
        connections: [{ integration: 'new', connection_id: 'fixed', id: 77,
                        tags: { a: 'b' } }],
        api_keys: ['44444444-4444-4444-8444-444444444444'],
        signing_key: 'other',
        next: { connection_ids: ['next-one'] },
    });
    await nango.control('POST', 'settings', { rate_limit: 9 });

    const state = await nango.control('GET', 'state');

    assert.deepStrictEqual(state.counts, { connections: 1, sessions: 1,
                                           webhooks: 0, requests: 1 });
    assert.strictEqual(state.connections[0].connection_id, 'fixed');
    assert.strictEqual(state.connections[0].id, 77);
    assert.deepStrictEqual(state.sessions[0].tags, { a: 'b' });
    assert.strictEqual(state.signing_key, 'other');
    assert.strictEqual(state.settings.rate_limit, 9);
    assert.strictEqual((await h.call(nango, 'GET', '/connections')).status,
                       401, 'the old key');
    assert.strictEqual(nango.state.newConnectionId(), 'next-one');

    await nango.control('POST', 'faults', { faults: [{ status: 500 }] });
    await nango.control('POST', 'reset');

    const after = await nango.control('GET', 'state');

    assert.strictEqual(after.counts.connections, 0);
    assert.strictEqual(after.counts.sessions, 0);
    assert.strictEqual(after.settings.rate_limit, 5);
    assert.strictEqual(after.integrations.some((i) => i.id === 'new'), false);
    assert.strictEqual((await h.call(nango, 'GET', '/connections')).status,
                       200);
});


test('many connections at once', async (t) => {
    const rx = await h.receiver(t);
    const nango = await h.start(t, { settings: { webhook_url: rx.url } });
    const began = Date.now();
    const { count } = await nango.control('POST', 'connections/bulk', {
        count: 20000, owners: 100, integration: 'slack',
        tags: { end_user_id: 'user-{owner}', number: 'n{n}' },
    });

    assert.strictEqual(count, 20000);
    assert.ok(Date.now() - began < 5000, `${Date.now() - began} ms`);
    assert.strictEqual(rx.requests.length, 0);

    const mine = await h.call(nango, 'GET',
                              '/connections?tags[end_user_id]=user-99');

    assert.strictEqual(mine.json.connections.length, 200);
    assert.strictEqual(mine.json.connections[0].tags.number, 'n19999');

    await assert.rejects(nango.control('POST', 'connections/bulk',
        { count: -1, integration: 'slack' }), /"count"/);
});


test('the clock is moved', async (t) => {
    const nango = await h.start(t);

    await nango.control('POST', 'clock', { now: '2030-01-01T00:00:00Z',
                                           frozen: true });

    const made = await h.call(nango, 'POST', '/connect/sessions',
                              { tags: {} });

    assert.strictEqual(made.json.data.expires_at, '2030-01-01T00:30:00.000Z');

    await nango.control('POST', 'clock', { advance_ms: 1000 });
    assert.strictEqual((await nango.control('GET', 'state')).now,
                       '2030-01-01T00:00:01.000Z');

    await nango.control('POST', 'clock', { now: '2030-01-01T00:00:00Z',
                                           speed: 100000 });
    await new Promise((resolve) => {
        setTimeout(resolve, 50);
    });
    assert.ok(nango.clock.now() >= Date.parse('2030-01-01T01:00:00Z'));
});


test('mistakes in commands are told', async (t) => {
    const nango = await h.start(t);
    const post = (command, body, extra) =>
        h.call(nango, 'POST', `/_sim/${command}`, body, extra);

    const cases = [
        [404, 'conect', {}],
        [400, 'connect', {}],
        [400, 'connect', { token: 'x', tags: {} }],
        [401, 'connect', { token: 'x' }],
        [400, 'delete', { integration: 'github', connection_id: 'x' }],
        [400, 'settings', { rate: 1 }],
        [400, 'state', { next: { x: [1] } }],
        [400, 'forward', { integration: 'nope', payload: 1 }],
    ];

    for (const [status, command, body] of cases) {
        const answer = await post(command, body);

        assert.strictEqual(answer.status, status, command);
        assert.ok(answer.json.error.message);
    }

    assert.strictEqual((await post('connect', undefined, { text: '{' }))
        .status, 400);
});
