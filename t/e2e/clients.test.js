/*
 * Clients that leave at every stage, that say nothing, that say everything at
 * once, and that speak older or newer HTTP: nothing of them is left behind,
 * what was acknowledged is there, and no body is taken for a request.
 */

'use strict';

const assert = require('node:assert');
const fs = require('node:fs');
const http2 = require('node:http2');
const path = require('node:path');
const nodeTest = require('node:test');

const { EVENTS, MEMORY, active, assertClosed, bodies, calm, creation, files,
        hold, list, nango, pools, resting, running, settings, signed,
        temporary }
    = require('./edge');
const { NEEDS, connect, speaking, stream } = require('./h2');
const { create, freePort, sleep, until } = require('./nginx');
const { Wire, chunked, chunks, get, head, once, post } = require('./wire');

const LONG = Boolean(process.env.NANGO_LONG);
const JSON_TYPE = { 'Content-Type': 'application/json' };


/* None may hang: what waits for ever is a failure. */
function test(name, options, fn) {
    return nodeTest(name, { timeout: LONG ? 600000 : 120000, ...options }, fn);
}


const WAYS = {
    FIN: (wire) => wire.close(),
    RST: (wire) => wire.close(true),

    /* It reads on, and is told, or cut off, as nginx does. */
    half: async (wire) => {
        wire.end();
        await Promise.race([wire.closed, sleep(8000, 0, { ref: false })]);
        wire.close();
    },
};

const STREAM = { Accept: 'text/event-stream' };

let number = 0;

function fresh(size, user) {
    return creation(`c-${number++}`, size,
                    { tags: { end_user_id: user || 'gone' } });
}


/*
 * When a client leaves: what it has sent by then, what was held up before and
 * is let go afterwards, and how many webhooks are in the store nevertheless.
 */
const STAGES = {
    'before it says anything': { send: () => '' },

    'in the headers': {
        send: () => post('/webhook', signed('x'), 'x').subarray(0, 60),
    },
    'after the headers': {
        send: () => head('POST', '/webhook', { ...signed('x'),
                                               'Content-Length': 1 }),
    },
    'in a body': {
        send: () => {
            const body = fresh(1000);

            return post('/webhook', signed(body), body).subarray(0, -500);
        },
    },
    'in the body of a session': {
        send: () => head('POST', '/session', {
            ...JSON_TYPE, 'X-User': '42', 'Content-Length': 100 }) + '{',
    },
    'in a body that is a file': {
        send: () => {
            const body = fresh(4 * MEMORY);

            return post('/webhook', signed(body), body).subarray(0, -500);
        },
    },
    'in a chunk': {
        send: () => {
            const body = fresh(3 * MEMORY);

            return chunked('/webhook', signed(body), body, 5000)
                .subarray(0, -700);
        },
    },
    'while a body is being verified': {
        any: true, rest: 0,
        send: () => {
            const body = fresh(8 * MEMORY);

            return post('/webhook', signed(body), body);
        },
    },
    'while its webhook is being committed': {
        hold: 'log', stored: 1, rest: 150,
        send: () => {
            const body = fresh();

            return post('/webhook', signed(body), body);
        },
    },
    'while its large webhook is being committed': {
        hold: 'log', stored: 1, rest: 150,
        send: () => {
            const body = fresh(2 * MEMORY);

            return post('/webhook', signed(body), body);
        },
    },
    'while Nango is being asked': {
        silent: true, rest: 150,
        send: () => post('/session', { ...JSON_TYPE, 'X-User': '42' }),
    },
    'while it waits for the fold': {
        hold: 'state', rest: 150,
        send: () => get('/connections', { 'X-User': '42' }),
    },
    'while it waits for the fold, in a body that nobody reads': {
        hold: 'state', rest: 150,
        send: () => head('GET', '/connections', { 'X-User': '42',
                                                  'Content-Length': 10 })
                    + 'abc',
    },
    'in the answer': {
        rest: 150, pause: true,
        send: () => get('/connections?limit=1000', { 'X-User': 'many' }),
    },
    'while it waits for a change': {
        rest: 150,
        send: (last) => get(`/connections?since=${last}&wait=50`,
                            { 'X-User': '42' }),
    },
    'while it waits for an event': {
        rest: 150,
        send: () => get('/events?wait=50', { 'X-User': 'nobody' }),
    },
    'while it reads events': {
        send: () => get('/all?after=0&limit=1000'),
    },
    'in a page of events': {
        rest: 150, pause: true,
        send: () => get('/all?after=0&limit=1000'),
    },
    'in an event\'s body that is a file': {
        rest: 150, pause: true,
        send: () => get('/all?body=61'),
    },
    'while a stream begins': {
        send: () => get('/all?after=0', STREAM),
    },
    'in a stream': {
        rest: 150,
        send: () => get('/events', { ...STREAM, 'X-User': '42' }),
    },
    'in a stream that it does not read': {
        rest: 150, pause: true,
        send: () => get('/all?after=0', STREAM),
    },
    'in the page of operators': {
        rest: 50, pause: true,
        send: () => get('/manage?format=html'),
    },
    'while its act waits for the disk': {
        hold: 'state', rest: 150,
        send: () => post('/manage', JSON_TYPE,
            '{"action":"resume","environment":"prod","subscriber":"away"}'),
    },
};


test('clients that leave at every stage leave nothing', {}, async (t) => {
    const read = bodies(t);
    const api = await nango(t);
    const options = settings(api.port, {
        http: 'lingering_timeout 1s; client_body_timeout 30s;',
        server: `
    ${EVENTS}
    location = /manage { nango_status manage; }`,
    });

    /* One who is parked: nothing is on its way to it. */

    options.http = options.http.replace('nango_environment prod {',
        '$& deliver away http://127.0.0.1:1/ types=async_action;');

    options.main += ' error_log @DIR@/debug.log debug;';
    options.server += ' listen 127.0.0.1:@SMALL@ sndbuf=4k;';
    options.server = options.server.replace('@SMALL@', await freePort());

    const small = Number(/listen 127.0.0.1:(\d+) sndbuf/
        .exec(options.server)[1]);
    const nginx = await running(t, options);
    const workers = nginx.workers();
    let stored = 0;

    /* Whatever is kept for good is there before. */

    for (let i = 0; i < 60; i++) {
        const body = creation(`many-${i}`, 0, { tags: {
            end_user_id: 'many', a: 'x'.repeat(255), b: 'y'.repeat(255) } });

        assert.strictEqual((await once(nginx.port,
            post('/webhook', signed(body), body))).status, 200);
        stored++;
    }

    for (let i = 0; i < 20; i++) {
        const body = fresh(2 * MEMORY);

        assert.strictEqual((await once(nginx.port,
            post('/webhook', signed(body), body))).status, 200);
        assert.strictEqual((await once(nginx.port, get('/connections',
            { 'X-User': '42' }))).status, 200);
        stored++;
    }

    await until('nobody', async () => await active(nginx) === 0);

    const debug = fs.statSync(path.join(nginx.dir, 'debug.log')).size;
    const before = await resting(nginx);

    for (const [what, stage] of Object.entries(STAGES)) {
        for (const [way, leave] of Object.entries(WAYS)) {
            let release;

            if (stage.hold) {
                release = await hold(t, nginx, stage.hold);
            }

            if (stage.hold === 'state') {
                const body = fresh();

                assert.strictEqual((await once(nginx.port,
                    post('/webhook', signed(body), body))).status, 200);
                stored++;
            }

            api.silent = Boolean(stage.silent);

            const wires = Array.from({ length: 4 }, () => new Wire(
                stage.pause ? small : nginx.port));

            await Promise.all(wires.map(async (wire) => {
                await wire.opened;

                if (stage.pause) {
                    wire.socket.pause();
                }

                await wire.write(stage.send(stored));
            }));

            if (stage.silent) {
                await until('Nango to be asked',
                            () => api.held.length === 4);
            }

            await sleep(stage.rest || 0);

            if (way === 'half' && stage.pause) {
                wires.forEach((wire) => wire.socket.resume());
            }

            const left = Promise.all(wires.map(leave));

            await sleep(20);

            /* Others are served meanwhile. */

            assert.strictEqual((await once(nginx.port, get('/plain'))).text,
                               'plain\n');

            if (release) {
                await release();
            }

            api.speak();
            await left;

            if (stage.stored) {
                stored += 4;
                await until(`${what}: what was sent`,
                            () => read(nginx).length >= stored);
            }

            await until(`${what}, ${way}: its connection to be closed`,
                        async () => await active(nginx) === 0);
        }

        if (stage.any) {
            /* Who was gone early enough has not sent it. */

            stored = await until('all or nothing', async () => {
                const { length } = files(nginx, 'bodies');

                await sleep(200);

                const events = read(nginx);

                return temporary(nginx).length === 0
                       && length === files(nginx, 'bodies').length
                       && length === events.filter((e) => e.body_file).length
                       && events.length;
            });
        }

        assert.strictEqual(read(nginx).length, stored, what);
    }

    /* Nango's connections are kept, as they are to be. */

    await assertClosed(nginx, before, api);
    assert.deepStrictEqual(temporary(nginx), []);
    assert.strictEqual(files(nginx, 'bodies').length,
                       read(nginx).filter((e) => e.body_file).length);

    const left = pools(nginx, debug);

    t.diagnostic(left ? `${left.length} blocks of pools are left`
                      : 'skipped for pools: this nginx has no debug log');
    assert.deepStrictEqual(left || [], []);
    calm(nginx, workers);
});


test('the queue has room again when its clients have left', {}, async (t) => {
    const read = bodies(t);
    const nginx = await running(t, { ...settings(), workers: 1,
                                     connections: 1200 });
    const first = fresh();

    await once(nginx.port, post('/webhook', signed(first), first));

    const release = await hold(t, nginx);
    const wires = [];
    let full;

    /* 64 MB of them at most, all different. */

    for (let i = 0; i < 700 && !full; i++) {
        const body = fresh(MEMORY);
        const wire = new Wire(nginx.port);

        wires.push(wire);
        await wire.write(post('/webhook', signed(body), body));
        await sleep(1);
        full = wire.answers[0];
    }

    for (let i = 0; i < 100 && !full; i++) {
        await sleep(50);
        full = wires.map((wire) => wire.answers[0]).find((a) => a);
    }

    assert.strictEqual(full.status, 503);
    assert.strictEqual(full.headers['x-nango-error'], 'store_unavailable');

    wires.forEach((wire, i) => wire.close(i % 2 === 0));
    assert.strictEqual((await once(nginx.port, get('/plain'))).status, 200);
    await until('nobody', async () => await active(nginx) === 0);
    await release();

    /* They went on without anybody, and so does it, with one as large. */

    const last = fresh(MEMORY);
    let answer;

    await until('room', async () => {
        answer = await once(nginx.port,
                            post('/webhook', signed(last), last));
        return answer.status === 200;
    });

    const stored = read(nginx).length;

    assert.strictEqual(answer.json.sequence, stored);
    assert.ok(stored > 500, `${stored} of them`);
    calm(nginx);
});


/* What each of them is, and is not, in one segment. */
test('pipelined requests of all kinds are answered in their order', {},
     async (t) =>
{
    const read = bodies(t);
    const api = await nango(t);
    const nginx = await running(t, settings(api.port));
    const sent = Array.from({ length: 6 }, (_, i) => fresh(i === 2 ? 3000
                                                                   : 0, '42'));
    const forged = fresh();
    const requests = [
        post('/webhook', signed(sent[0]), sent[0]),
        post('/webhook', signed(sent[1]), sent[1]),
        get('/plain'),
        post('/session', { ...JSON_TYPE, 'X-User': '42' },
             '{"integration":"github"}'),
        get('/connections', { 'X-User': '42' }),
        post('/webhook', signed(forged, 'other'), forged),
        chunked('/webhook', signed(sent[2]), sent[2], 100),
        head('GET', '/connections', { 'X-User': '42', 'Content-Length': 5 }),
        Buffer.from('GET /'),
        post('/session', JSON_TYPE, 'GET /plain HTTP/1.1\r\n\r\n'),
        post('/webhook', {}, 'GET /plain HTTP/1.1\r\n\r\n'),
        post('/webhook', signed(sent[3]), sent[3]),
        get('/connections', { 'X-User': '42' }),
        post('/webhook', signed(sent[4]), sent[4]),
        get('/plain'),
        post('/webhook', signed(sent[5]), sent[5]),
    ];
    const wanted = [200, 200, 200, 200, 200, 401, 200, 200, 401, 401, 200, 200,
                    200, 200, 200];
    const all = Buffer.concat(requests);
    const check = async (wire) => {
        const answers = [];

        while (answers.length < wanted.length) {
            answers.push(await wire.answer());
        }

        assert.deepStrictEqual(answers.map((a) => a.status), wanted);
        assert.deepStrictEqual([2, 13].map((i) => answers[i].text),
                               ['plain\n', 'plain\n']);
        assert.ok(answers[3].json.sessionToken);
        assert.deepStrictEqual([0, 1, 6, 10, 12, 14].map(
            (i) => answers[i].json.sequence), [1, 2, 3, 4, 5, 6]);
        assert.deepStrictEqual([4, 7, 11].map(
            (i) => answers[i].json.connections.length), [2, 3, 4]);

        await sleep(50);
        assert.deepStrictEqual(wire.answers, []);
        assert.strictEqual(wire.why, undefined);
        wire.close();
    };

    const whole = new Wire(nginx.port);

    await whole.opened;
    whole.write(all);
    await check(whole);

    /* Again, cut at any place; now all of them are duplicates. */

    for (let i = 7; i < all.length; i += LONG ? 13 : 311) {
        const wire = new Wire(nginx.port);

        await wire.opened;
        await wire.write(all.subarray(0, i));
        await sleep(1);
        wire.write(all.subarray(i));

        for (const status of wanted) {
            assert.strictEqual((await wire.answer()).status, status);
        }

        wire.close();
    }

    assert.strictEqual(read(nginx).length, 6);
    calm(nginx);
});


test('whoever writes thousands of requests before it reads an answer', {},
     async (t) =>
{
    const options = settings(1);

    options.server += ` listen 127.0.0.1:${await freePort()} sndbuf=4k;`;

    const port = Number(/:(\d+) sndbuf/.exec(options.server)[1]);
    const nginx = await running(t, options);
    const wire = new Wire(port);
    const count = 2000;

    await wire.opened;
    wire.socket.pause();

    for (let i = 0; i < count; i++) {
        const body = fresh();

        wire.write(i % 4 === 0 ? post('/webhook', signed(body), body)
                   : i % 4 === 1 ? post('/webhook', signed(body, 'x'), body)
                   : i % 4 === 2 ? post('/session', {}, 'not this')
                                 : get('/connections', { 'X-User': '42' }));
    }

    await sleep(500);
    wire.socket.resume();

    for (let i = 0; i < count; i++) {
        const { status } = await wire.answer();

        assert.strictEqual(status, [200, 401, 401, 200][i % 4]);
    }

    wire.close();
    calm(nginx);
});


const SMUGGLED = 'GET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n';

/* Requests whose body is one that looks like another: [status, head]. */
const ERRORS = {
    'a webhook without signature': [401, 'POST', '/webhook', {}],
    'a webhook with a malformed one': [401, 'POST', '/webhook',
                                       { 'X-Nango-Hmac-Sha256': 'abc' }],
    'a forged webhook': [401, 'POST', '/webhook',
                         { 'X-Nango-Hmac-Sha256': '0'.repeat(64) }],
    'a webhook by PUT': [405, 'PUT', '/webhook', {}],
    'a webhook by GET': [405, 'GET', '/webhook', {}],
    'a webhook by DELETE': [405, 'DELETE', '/webhook', {}],
    'a webhook too large': [413, 'POST', '/tiny', { signed: true }],
    'a session by PUT': [405, 'PUT', '/session', { 'X-User': '42' }],
    "nobody's session": [401, 'POST', '/session', {}],
    'a session from elsewhere': [403, 'POST', '/session', {
        'X-User': '42', 'Origin': 'https://evil.example' }],
    'a session of another type': [415, 'POST', '/session',
                                  { 'X-User': '42' }],
    'a session that is no JSON': [400, 'POST', '/session',
                                  { 'X-User': '42', ...JSON_TYPE }],
    'a session too large': [413, 'POST', '/session',
                            { 'X-User': '42', ...JSON_TYPE }, 9000],
    'connections by PUT': [405, 'PUT', '/connections', { 'X-User': '42' }],
    'a check of another type': [415, 'POST', '/connections',
                                { 'X-User': '42' }],
    "nobody's connections": [401, 'GET', '/connections', {}],
    'connections with a body': [200, 'GET', '/connections',
                                { 'X-User': '42' }],
    'a wrong limit': [400, 'GET', '/connections?limit=x',
                      { 'X-User': '42' }],
    'a callback with a body': [308, 'GET', '/callback?state=x', {}],
    'a bad store': [503, 'POST', '/webhook', { signed: true }],
    "a bad store's connections": [503, 'GET', '/connections',
                                  { 'X-User': '42' }],
};


test('no body is taken for a request, and the connection goes on', {},
     async (t) =>
{
    const more = { server: `
        location = /smuggled { return 200 "smuggled"; }
        location = /tiny     { nango_webhook prod max_body=1k; }
        location = /callback { nango_oauth_callback prod; }
    ` };
    const read = bodies(t);
    const good = await running(t, settings(0, more));
    const bad = await create(t, settings(0, more));

    /* A store that cannot be opened: its log is no directory. */

    fs.mkdirSync(bad.store, { mode: 0o700 });
    fs.writeFileSync(`${bad.store}/log`, '');
    await bad.start();
    await until('workers', () => bad.workers().length >= 2);

    for (const [what, [status, method, url, headers, size]] of
        Object.entries(ERRORS))
    {
        const body = Buffer.from(SMUGGLED.repeat(
            Math.ceil((size || 1100) / SMUGGLED.length)));
        const { signed: sign, ...others } = headers;
        const fields = { ...others, ...(sign ? signed(body) : {}) };
        const nginx = what.includes('bad store') ? bad : good;

        for (const [how, request] of [
            ['with a length', Buffer.concat([head(method, url, {
                ...fields, 'Content-Length': body.length }), body])],
            ['in chunks', Buffer.concat([head(method, url, {
                ...fields, 'Transfer-Encoding': 'chunked' }),
                                         chunks(body, 61)])],
        ]) {
            const start = request.indexOf('\r\n\r\n') + 4;

            /* At once; the body later; in the midst of it. */

            for (const cut of [request.length, start, start + 30]) {
                const wire = new Wire(nginx.port);
                const seen = `${what} ${how}, cut at ${cut - start}`;

                await wire.opened;
                await wire.write(request.subarray(0, cut));

                if (cut < request.length) {
                    await sleep(10);
                    await wire.write(request.subarray(cut));
                }

                wire.write(get('/plain'));

                const answer = await wire.answer();

                assert.deepStrictEqual([seen, answer.status], [seen, status]);
                assert.strictEqual((await wire.answer(3000)).text, 'plain\n',
                                   seen);
                wire.close();
            }
        }
    }

    assert.deepStrictEqual(read(good), []);
    calm(good);
});


test('a late body that nobody reads, while its request waits', {},
     async (t) =>
{
    const nginx = await running(t, settings());
    const body = fresh();

    await list(nginx);

    const release = await hold(t, nginx, 'state');

    assert.strictEqual((await once(nginx.port,
        post('/webhook', signed(body), body))).status, 200);

    for (const bytes of ['1234567890', chunks(SMUGGLED, 11)]) {
        const wire = new Wire(nginx.port);

        await wire.write(head('GET', '/connections', { 'X-User': '42',
            ...(typeof bytes === 'string' ? { 'Content-Length': 10 }
                                : { 'Transfer-Encoding': 'chunked' }) }));
        await sleep(100);
        await wire.write(bytes);
        wire.write(get('/plain'));

        /* A second for the fold, and none after it. */

        assert.strictEqual((await wire.answer(4000)).status, 200);
        assert.strictEqual((await wire.answer(3000)).text, 'plain\n');
        wire.close();
    }

    await release();
    calm(nginx);
});


test('older, odd and rude HTTP', {}, async (t) => {
    const api = await nango(t);
    const read = bodies(t);
    const nginx = await running(t, settings(api.port));
    const body = fresh(0, '42');
    const fields = Object.entries(signed(body))
        .map(([name, value]) => `${name}: ${value}\r\n`).join('');
    const length = `Content-Length: ${body.length}\r\n`;
    const ask = (...parts) => once(nginx.port, Buffer.concat(
        parts.map((part) => Buffer.from(part))));
    let answer;

    /* HTTP/1.0, which has no chunks and no Host. */

    answer = await ask(`POST /webhook HTTP/1.0\r\n${fields}${length}\r\n`,
                       body);
    assert.strictEqual(answer.status, 200);
    assert.strictEqual(answer.headers.connection, 'close');
    assert.strictEqual(answer.json.sequence, 1);

    answer = await ask(`POST /session HTTP/1.0\r\nX-User: 42\r\n\r\n`);
    assert.strictEqual(answer.status, 200);

    answer = await ask('GET /connections HTTP/1.0\r\nX-User: 42\r\n\r\n');
    assert.strictEqual(answer.json.connections.length, 1);

    /* Without a length there is no body: an empty one, which is forged. */

    answer = await ask(`POST /webhook HTTP/1.0\r\n${fields}\r\n`, body);
    assert.strictEqual(answer.status, 401);

    /* The whole address. */

    answer = await ask('POST http://localhost/webhook HTTP/1.1\r\n'
                       + `Host: other\r\n${fields}${length}\r\n`, body);
    assert.deepStrictEqual(answer.json, { ack: true, sequence: 1,
                                          duplicate: true });

    /* HEAD: no body, and the next answer where it should be. */

    const wire = new Wire(nginx.port);

    for (const [url, status] of [['/connections', 200], ['/webhook', 405],
                                 ['/session', 405]])
    {
        wire.head = true;
        wire.write(head('HEAD', url, { 'X-User': '42' }));
        answer = await wire.answer();
        assert.strictEqual(answer.status, status);
        assert.ok(Number(answer.headers['content-length']) > 0);
        wire.head = false;
        wire.write(get('/plain'));
        assert.strictEqual((await wire.answer()).text, 'plain\n');
    }

    /* 100 where the body is wanted, and only there. */

    for (const [headers, status, wanted] of [
        [signed(body), 200, true], [{}, 401, undefined],
    ]) {
        const one = new Wire(nginx.port);

        one.write(head('POST', '/webhook', { ...headers,
            'Content-Length': body.length, 'Expect': '100-continue' }));

        await Promise.race([one.closed, until('100, or an answer',
            () => one.continued || one.answers.length)]);
        assert.strictEqual(one.continued, wanted);

        if (wanted) {
            one.write(body);
        }

        assert.strictEqual((await one.answer()).status, status);
        one.close();
    }

    /* Two lengths: nginx refuses, and nothing is stored. */

    for (const both of [
        `${length}Transfer-Encoding: chunked\r\n`,
        `Transfer-Encoding: chunked\r\n${length}`,
        `${length}Content-Length: 1\r\n`,
        'Transfer-Encoding: gzip, chunked\r\n',
    ]) {
        const one = new Wire(nginx.port);

        one.write(Buffer.concat([
            Buffer.from('POST /webhook HTTP/1.1\r\nHost: localhost\r\n'
                        + `${fields}${both}\r\n`),
            chunks(body, 50), Buffer.from(SMUGGLED)]));
        answer = await one.answer();
        assert.ok([400, 501].includes(answer.status), both);
        await one.closed;
        assert.deepStrictEqual(one.answers, []);
        one.close();
    }

    wire.close();
    assert.strictEqual(read(nginx).length, 1);
    calm(nginx);
});


test('thousands of idle clients', {}, async (t) => {
    const [, hard] = /^Max open files +\S+ +(\d+)/m.exec(
        fs.readFileSync('/proc/self/limits', 'latin1'));
    const most = LONG ? 10000 : 2000;

    /* nginx may accept all of them in one worker, as we do. */

    const count = Math.min(most, Number(hard) - 1000);

    if (count < most) {
        t.diagnostic(`${count} of ${most}: the limit is ${hard} files`);
    }

    const memory = (nginx) => nginx.workers().reduce((sum, pid) => sum
        + Number(/^RssAnon:\s+(\d+)/m.exec(fs.readFileSync(
            `/proc/${pid}/status`, 'latin1'))[1]), 0);
    const used = {};
    const settled = {
        plain: { main: '', http: 'keepalive_timeout 300s;', server: `
            location = /webhook     { return 200; }
            location = /connections { return 200; }
            location = /plain       { return 200 "plain\\n"; }
            location = /status      { stub_status; }` },
        nango: settings(0, { http: 'keepalive_timeout 300s;' }),
    };

    for (const [name, options] of Object.entries(settled)) {
        const nginx = await running(t, {
            ...options, connections: count + 500,
            main: `${options.main} worker_rlimit_nofile ${count + 1000};`,
        });
        const warm = fresh();
        const wires = [];

        for (let i = 0; i < 20; i++) {
            await once(nginx.port, post('/webhook', signed(warm), warm));
            await once(nginx.port, get('/connections', { 'X-User': '42' }));
        }

        const before = memory(nginx);

        while (wires.length < count) {
            const some = Array.from({ length: 200 },
                                    () => new Wire(nginx.port));

            await Promise.all(some.map(async (wire, i) => {
                const body = i % 10 ? warm : fresh();

                wire.write(i % 2 ? get('/connections', { 'X-User': '42' })
                                 : post('/webhook', signed(body), body));
                assert.strictEqual((await wire.answer()).status, 200);
            }));

            wires.push(...some);
        }

        assert.strictEqual(await active(nginx), wires.length);
        used[name] = (memory(nginx) - before) * 1024 / wires.length;

        /* Others go on, and so do they. */

        const body = fresh();

        assert.strictEqual((await once(nginx.port,
            post('/webhook', signed(body), body))).status, 200);

        for (let i = 0; i < wires.length; i += 97) {
            wires[i].write(get('/plain'));
            assert.strictEqual((await wires[i].answer()).text, 'plain\n');
        }

        wires.forEach((wire) => wire.close());
        await until('nobody', async () => await active(nginx) === 0);
        calm(nginx);
        await nginx.stop();
    }

    t.diagnostic(`${count} idle clients: ${used.nango.toFixed(0)} bytes each, ${
        used.plain.toFixed(0)} of plain nginx`);

    /* No request's memory is kept for them. */

    assert.ok(used.nango < used.plain + 4096);
});


/* Without a length, where it is not asked for. */
function webhook(client, body, length, key) {
    const one = stream(client, 'POST', '/webhook', {
        ...signed(body, key),
        ...(length ? { 'content-length': body.length } : {}),
    });

    one.end(body);

    return one.done;
}


test('HTTP/2: every endpoint, bodies of every size, many streams', NEEDS,
     async (t) =>
{
    const read = bodies(t);
    const api = await nango(t);
    const nginx = await speaking(t, settings(api.port));
    const sent = [];

    for (const url of nginx.urls) {
        const client = connect(t, url);

        for (const size of [0, 1, MEMORY - 1, MEMORY, MEMORY + 1,
                            4 * MEMORY]) {
            for (const length of [true, false]) {
                const body = size < 2 ? Buffer.alloc(size, '1') : fresh(size);
                const { status, json } = await webhook(client, body, length);

                sent.push(body);
                assert.deepStrictEqual([size, status], [size, 200]);
                assert.strictEqual(json.sequence, sent.length);
            }
        }

        /* Byte by byte, in frames of their own. */

        const slow = fresh();
        const one = stream(client, 'POST', '/webhook', signed(slow));

        for (let i = 0; i < slow.length; i++) {
            one.write(slow.subarray(i, i + 1));
            await sleep(1);
        }

        one.end();
        assert.strictEqual((await one.done).status, 200);
        sent.push(slow);

        /* All at once, some of them beyond what nginx takes in one go. */

        const many = Array.from({ length: 200 }, (_, i) => fresh(
            i % 20 ? 0 : 3 * MEMORY, '42'));
        const seen = await Promise.all(many.flatMap((body, i) => [
            webhook(client, body, i % 2),
            webhook(client, body, i % 2, 'another key'),
            i % 4 ? stream(client, 'GET', '/connections',
                           { 'x-user': '42' }).done
                  : stream(client, 'POST', '/session',
                           { 'x-user': '42' }).end().done,
        ]));

        assert.deepStrictEqual(seen.map(({ status }) => status),
                               many.flatMap(() => [200, 401, 200]));
        sent.push(...many);

        /* Refused before, and after, its body was read. */

        for (const [headers, status] of [
            [{}, 401], [signed(Buffer.from('other')), 401],
            [{ ...signed(slow), 'content-length': 80 << 20 }, 413],
        ]) {
            const refused = stream(client, 'POST', '/webhook', headers);

            refused.write(fresh(4 * MEMORY));

            if (!headers['content-length']) {
                refused.end();
            }

            assert.strictEqual((await refused.done).status, status);
        }

        assert.strictEqual((await stream(client, 'GET', '/plain').done).text,
                           'plain\n');
        await new Promise((resolve) => { client.close(resolve); });
    }

    const events = read(nginx);

    assert.strictEqual(events.length, sent.length);

    for (const body of sent) {
        assert.ok(events.some((e) => e.bytes.equals(body)));
    }

    await until('nobody', async () => await active(nginx) === 0);
    assert.deepStrictEqual(temporary(nginx), []);
    calm(nginx);
});


/* As above, but it is one stream that ends, and others that go on. */
const STREAMS = {
    'after the headers': {
        send: (client) => stream(client, 'POST', '/webhook', {
            ...signed('x'), 'content-length': 1 }),
    },
    'in a body': {
        send: (client) => {
            const one = stream(client, 'POST', '/webhook', signed('x'));

            one.write('123');
            return one;
        },
    },
    'in a body that is a file': {
        send: (client) => {
            const one = stream(client, 'POST', '/webhook', signed('x'));

            one.write(fresh(3 * MEMORY));
            return one;
        },
    },
    'in the body of a session': {
        send: (client) => {
            const one = stream(client, 'POST', '/session',
                               { 'x-user': '42' });

            one.write('{');
            return one;
        },
    },
    'while its webhook is being committed': {
        hold: 'log', stored: 1,
        send: (client) => {
            const body = fresh();

            return stream(client, 'POST', '/webhook', signed(body)).end(body);
        },
    },
    'while its large webhook is being committed': {
        hold: 'log', stored: 1,
        send: (client) => {
            const body = fresh(2 * MEMORY);

            return stream(client, 'POST', '/webhook', signed(body)).end(body);
        },
    },
    'while Nango is being asked': {
        silent: true,
        send: (client) => stream(client, 'POST', '/session',
                                 { 'x-user': '42' }).end(),
    },
    'while it waits for the fold': {
        hold: 'state',
        send: (client) => stream(client, 'GET', '/connections',
                                 { 'x-user': '42' }),
    },
    'in the answer, for which there is no room': {
        narrow: true,
        send: (client) => stream(client, 'GET', '/connections?limit=1000',
                                 { 'x-user': 'many' }),
    },
};


test('HTTP/2: streams that end at every stage leave nothing', NEEDS,
     async (t) =>
{
    const read = bodies(t);
    const api = await nango(t);
    const nginx = await speaking(t, settings(api.port));
    const workers = nginx.workers();
    let stored = 0;

    for (let i = 0; i < 80; i++) {
        const body = i < 60 ? creation(`many-${i}`, 0, { tags: {
            end_user_id: 'many', a: 'x'.repeat(255), b: 'y'.repeat(255) } })
                            : fresh(2 * MEMORY);

        assert.strictEqual((await once(nginx.port,
            post('/webhook', signed(body), body))).status, 200);
        await once(nginx.port, get('/connections', { 'X-User': '42' }));
        stored++;
    }

    await until('nobody', async () => await active(nginx) === 0);

    const before = await resting(nginx);

    for (const [what, stage] of Object.entries(STREAMS)) {
        for (const url of nginx.urls) {
            let release;

            if (stage.hold) {
                release = await hold(t, nginx, stage.hold);
            }

            if (stage.hold === 'state') {
                const body = fresh();

                assert.strictEqual((await once(nginx.port,
                    post('/webhook', signed(body), body))).status, 200);
                stored++;
            }

            api.silent = Boolean(stage.silent);

            const client = connect(t, url, stage.narrow
                ? { settings: { initialWindowSize: 100 } } : {});
            const ones = Array.from({ length: 6 }, () => stage.send(client));

            if (stage.silent) {
                await until('Nango to be asked',
                            () => api.held.length === 6);
            }

            if (stage.narrow) {
                ones.forEach((one) => one.pause());
            }

            await sleep(150);

            /* Three by RST_STREAM, the others with their connection. */

            ones.slice(0, 3).forEach((one) => one.close(
                http2.constants.NGHTTP2_CANCEL));
            await sleep(30);

            assert.strictEqual((await stream(client, 'GET', '/plain').done)
                .text, 'plain\n', what);

            client.destroy();
            await sleep(30);

            if (release) {
                await release();
            }

            api.speak();

            if (stage.stored) {
                stored += 6;
                await until(`${what}: what was sent`,
                            () => read(nginx).length >= stored);
            }

            await until(`${what}: its connection to be closed`,
                        async () => await active(nginx) === 0);
        }

        assert.strictEqual(read(nginx).length, stored, what);
    }

    await assertClosed(nginx, before, api);
    assert.deepStrictEqual(temporary(nginx), []);
    calm(nginx, workers);
});
