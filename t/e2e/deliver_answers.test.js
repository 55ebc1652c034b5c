/*
 * Backends that answer badly, strangely, late, too early, not at all or not to
 * the end: what counts as delivered, what is tried again, and that it costs
 * nobody but that event.
 */

'use strict';

const assert = require('node:assert');
const { execFileSync } = require('node:child_process');
const fs = require('node:fs');
const net = require('node:net');
const path = require('node:path');
const nodeTest = require('node:test');

const { Backend } = require('./backend');
const { once } = require('./client');
const { config, ledgers, post, settled, sync } = require('./deliver');
const { compile, reader } = require('./model');
const { create, sleep, until } = require('./nginx');

const OK = 'HTTP/1.1 204 No Content\r\n\r\n';


/* None may hang: what waits for ever is a failure. */
function test(name, fn) {
    return nodeTest(name, { timeout: 60000 }, fn);
}


/*
 * A backend of bare bytes: answer(socket, { connection, attempt, sequence,
 * body }) is called with each whole request, or, if "early" says so, as soon
 * as there are its headers.  A socket that is said to be over is reset by the
 * first byte that comes.
 */
async function bare(t, answer, early) {
    const sockets = new Set();
    const backend = { got: [], connections: 0 };
    const server = net.createServer((socket) => {
        let data = Buffer.alloc(0);
        let begun = false;

        backend.connections++;
        sockets.add(socket);
        socket.on('error', () => {});
        socket.on('end', () => socket.destroy());
        socket.on('close', () => sockets.delete(socket));

        socket.on('data', (part) => {
            if (socket.over) {
                socket.resetAndDestroy();
                return;
            }

            data = Buffer.concat([data, part]);

            for (;;) {
                const end = data.indexOf('\r\n\r\n');

                if (end < 0) {
                    return;
                }

                const head = data.subarray(0, end).toString('latin1');
                const of = (name) => Number(new RegExp(
                    `^${name}: (\\d+)\\r?$`, 'im').exec(head)[1]);
                const length = of('content-length');
                const one = { attempt: of('x-nango-edge-attempt'),
                              sequence: of('x-nango-edge-sequence') };

                if (!begun && early && early(one)) {
                    begun = true;
                    answer(socket, one);
                }

                if (data.length < end + 4 + length) {
                    return;
                }

                one.body = data.subarray(end + 4, end + 4 + length);
                one.connection = JSON.parse(one.body).connectionId;
                data = data.subarray(end + 4 + length);
                backend.got.push(one);

                if (!begun) {
                    answer(socket, one);
                }

                begun = false;
            }
        });
    });

    await new Promise((resolve) => { server.listen(0, '127.0.0.1', resolve); });

    t.after(() => {
        server.close();
        sockets.forEach((socket) => socket.destroy());
    });

    backend.url = `http://127.0.0.1:${server.address().port}/hook`;

    return backend;
}


function attempts(backend, connection) {
    return backend.got.filter((one) => one.connection === connection)
        .map((one) => one.attempt);
}


function assertAlive(nginx) {
    assert.deepStrictEqual(nginx.lines('emerg', 'alert', 'crit'), []);
    assert.doesNotMatch(nginx.log(), /exited on signal/);
}


/*
 * One connection for each of what is done to its first delivery; between two
 * of them one that is taken, or the backend would be thought to be down.
 */
async function firsts(t, list, options) {
    const read = reader(t);
    const backend = await bare(t, (socket, one) => {
        const i = /^bad-(\d+)$/.exec(one.connection);

        if (i && one.attempt === 1) {
            list[i[1]](socket);
        } else {
            socket.write(OK);
        }
    });
    const nginx = await create(t, config(
        `deliver app ${backend.url} concurrency=1 ${options || ''};`));

    await nginx.start();

    for (let i = 0; i < list.length; i++) {
        await post(nginx, sync(`bad-${i}`));
        await post(nginx, sync(`good-${i}`));
    }

    const { app } = await settled(read, nginx, 30000);

    assert.strictEqual(app.delivered, 2 * list.length);
    assertAlive(nginx);
    assert.ok(await nginx.stop());

    /*
     * What breaks on a kept connection before an answer is sent once more on
     * another one, as the same attempt.
     */

    return list.map((_, i) => {
        assert.deepStrictEqual(attempts(backend, `good-${i}`), [1]);

        return attempts(backend, `bad-${i}`)
            .filter((attempt, n, all) => attempt !== all[n - 1]);
    });
}


test('what is no 2xx is tried again', async (t) => {
    const elsewhere = await Backend.create(t);
    const say = (text) => (socket) => socket.write(text);
    const cut = (text) => (socket) => socket.end(text);
    const location = `Location: ${elsewhere.url}\r\n`;
    const list = [
        say(`HTTP/1.1 301 Moved\r\n${location}Content-Length: 0\r\n\r\n`),
        say(`HTTP/1.1 302 Found\r\n${location}Content-Length: 0\r\n\r\n`),
        say(`HTTP/1.1 303 Other\r\n${location}Content-Length: 0\r\n\r\n`),
        say(`HTTP/1.1 307 Moved\r\n${location}Content-Length: 0\r\n\r\n`),
        say(`HTTP/1.1 308 Moved\r\n${location}Content-Length: 0\r\n\r\n`),
        say('HTTP/1.1 304 Not Modified\r\n\r\n'),
        say('HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n'),
        say('HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic\r\n'
            + 'Content-Length: 0\r\n\r\n'),
        say('HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno'),
        say('HTTP/1.1 417 Expectation Failed\r\nContent-Length: 0\r\n\r\n'),
        say('HTTP/1.1 500 Error\r\nContent-Length: 0\r\n\r\n'),
        say('HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n'),
        say('HTTP/1.1 999 What\r\nContent-Length: 0\r\n\r\n'),
        say('HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n'),
        (socket) => socket.destroy(),
        (socket) => socket.resetAndDestroy(),
        cut('SSH-2.0-OpenSSH_9.2\r\n'),
        cut(Buffer.alloc(100)),
        cut('HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nok'),
        cut('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab'),
        cut(`HTTP/1.1 200 OK\r\nX-A: ${'a'.repeat(200000)}\r\n\r\n`),
    ];

    const seen = await firsts(t, list);

    seen.forEach((one, i) => assert.deepStrictEqual(one, [1, 2],
                                                    `${list[i]}`));
    assert.deepStrictEqual(elsewhere.got, []);
});


test('an answer that is cut at each of its bytes', async (t) => {
    const whole = 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok';
    const list = Array.from({ length: whole.length }, (_, i) =>
        (socket) => socket.end(whole.slice(0, i)));

    const seen = await firsts(t, list);

    seen.forEach((one, i) => assert.deepStrictEqual(one, [1, 2], `${i}`));
});


test('what is a 2xx, in whatever form, is delivered once', async (t) => {
    const list = [
        (socket) => socket.write('HTTP/1.1 200 OK\r\nContent-Length: 0\r\n'
                                 + '\r\n'),
        (socket) => socket.end('HTTP/1.0 200 OK\r\n\r\nuntil the end'),
        (socket) => socket.end('HTTP/1.1 299\r\n\r\n'),
        (socket) => socket.write('HTTP/1.1 100 Continue\r\n\r\n' + OK),
        (socket) => socket.write('HTTP/1.1 103 Early Hints\r\nLink: </>\r\n'
                                 + '\r\nHTTP/1.1 100 Continue\r\n\r\n' + OK),
        (socket) => socket.write('HTTP/1.1 200 OK\r\nTransfer-Encoding: '
                                 + 'chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n'),

        /* Ten megabytes, which nobody reads. */
        (socket) => socket.write(Buffer.concat([Buffer.from(
            `HTTP/1.1 200 OK\r\nContent-Length: ${10 << 20}\r\n\r\n`),
            Buffer.alloc(10 << 20, 'x')])),

        async (socket) => {
            for (const c of 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok') {
                await sleep(20);
                socket.write(c);
            }
        },
    ];

    const seen = await firsts(t, list);

    seen.forEach((one, i) => assert.deepStrictEqual(one, [1],
                                                    `${list[i]}`));
});


test('no answer in time, and one that is too late', async (t) => {
    const list = [
        () => {},
        (socket) => socket.write('HTTP/1.1 200 OK\r\nContent-Length: 5\r\n'),
        (socket) => sleep(1500).then(() => socket.write(OK)),
    ];

    const seen = await firsts(t, list, 'timeout=700ms');

    seen.forEach((one, i) => assert.strictEqual(one[1], 2, `${list[i]}`));
});


test('an answer before the body was read', async (t) => {
    const early = [
        'HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n',
        OK,
    ];
    const read = reader(t);
    const first = (one) => one.attempt === 1;
    const backend = await bare(t, (socket, one) => {
        socket.write(first(one) ? early[one.sequence % 2] : OK);
    }, first);
    const nginx = await create(t, config(`deliver app ${backend.url};`));

    await nginx.start();

    for (let i = 0; i < 4; i++) {
        await post(nginx, sync(`c-${i}`,
                               { padding: 'x'.repeat(100000 << i) }));
    }

    const { app } = await settled(read, nginx, 30000);

    assert.strictEqual(app.delivered, 4);

    /* 413 is an answer; and the first of these may not have been sent whole. */

    backend.got.filter((one) => one.attempt === 2).forEach((one) => {
        assert.strictEqual(one.sequence % 2, 0);
    });

    assert.deepStrictEqual(backend.got.filter((one) => one.attempt === 2)
        .map((one) => one.sequence).sort(), [2, 4]);
    assertAlive(nginx);
    assert.ok(await nginx.stop());
});


test('connections that the backend closes between requests', async (t) => {
    const read = reader(t);
    const backend = await bare(t, (socket) => {
        socket.write(OK);
        socket.over = true;
    });
    const nginx = await create(t, config(
        `deliver app ${backend.url} concurrency=1;`));

    await nginx.start();

    for (let i = 0; i < 30; i++) {
        await post(nginx, sync(`c-${i}`, i % 10 === 7
            ? { padding: 'x'.repeat(200000) } : {}));
    }

    /* Closed while it was sent: once more, and each is taken once. */

    const { app } = await settled(read, nginx, 20000);

    assert.strictEqual(app.delivered, 30);
    assert.strictEqual(backend.got.length, 30);
    assert.strictEqual(new Set(backend.got.map((one) => one.sequence)).size,
                       30);
    assertAlive(nginx);
    assert.ok(await nginx.stop());
});


test('a connection is used again and again', async (t) => {
    const backend = await bare(t, (socket) => socket.write(OK));
    const nginx = await create(t, config(
        `deliver app ${backend.url} concurrency=1;`));

    await nginx.start();

    for (let i = 0; i < 50; i++) {
        await post(nginx, sync(`c-${i}`));
    }

    await until('all', () => backend.got.length === 50);
    assert.strictEqual(backend.connections, 1);
    assert.ok(await nginx.stop());
});


test('410 parks it, also over a restart; others go on', async (t) => {
    const read = reader(t);
    const gone = await Backend.create(t, {
        answer: ({ body }) => (/"gone"/.test(body) ? 410 : 200) });
    const other = await Backend.create(t);
    const nginx = await create(t, config(`deliver gone ${gone.url};
        deliver other ${other.url};`));

    await nginx.start();
    await post(nginx, sync('c-1'));
    await until('the first', () => gone.accepted.length === 1);
    await post(nginx, sync('gone'));
    await until('it to be parked', () => ledgers(read, nginx).gone.parked);

    const { length } = gone.got;

    for (let round = 0; round < 2; round++) {
        for (let i = 0; i < 5; i++) {
            await post(nginx, sync(`c-${i}`));
        }

        await until('the other', () =>
            other.accepted.length === 7 + 5 * round);
        assert.ok(await nginx.stop());
        await nginx.start();
    }

    await until('all', () => ledgers(read, nginx).other.waiting === 0);

    const { gone: ledger } = ledgers(read, nginx);

    assert.strictEqual(gone.got.length, length);
    assert.strictEqual(ledger.parked, 1);
    assert.strictEqual(ledger.delivered, 1);
    assert.strictEqual(ledger.waiting, 11);
    assert.strictEqual(nginx.lines('error').filter(
        (line) => /answered 410/.test(line)).length, 1);
    assertAlive(nginx);
    assert.ok(await nginx.stop());
});


/* Nobody but who resumes it does anything meanwhile. */

test('who was parked and is resumed gets what waits at once', async (t) => {
    const read = reader(t);
    const backend = await Backend.create(t, { answer: () => 410 });
    const nginx = await create(t, config(`deliver app ${backend.url};`,
        { locations: 'location = /manage { nango_status manage; }' }));

    await nginx.start();
    await post(nginx, sync('c-1'));

    for (let round = 0; round < 2; round++) {
        await until('it to be parked', () =>
            ledgers(read, nginx).app?.parked);

        backend.answer = () => (round === 0 ? 410 : 200);

        const { length } = backend.got;
        const body = Buffer.from('{"action":"resume","environment":"prod",'
                                 + '"subscriber":"app"}');
        const { status, text } = await once(nginx.port, 'POST', '/manage',
            { 'Content-Type': 'application/json' }, body);

        assert.strictEqual(status, 200, text);
        await until('another try', () => backend.got.length > length);
    }

    await until('it', () => backend.accepted.length === 1);
    assertAlive(nginx);
    assert.ok(await nginx.stop());
});


/* What the leader would park once more changes nothing; a hand does. */

test('who is resumed while another 410 is looked at', async (t) => {
    const held = [];
    const read = reader(t);
    const backend = await Backend.create(t, {
        answer: () => new Promise((resolve) => { held.push(resolve); }) });
    const nginx = await create(t, config(
        `deliver app ${backend.url} concurrency=2;`,
        { locations: 'location = /manage { nango_status manage; }' }));
    const control = path.join(nginx.dir, 'shared', 'abort');

    fs.mkdirSync(path.dirname(control));
    fs.chmodSync(path.dirname(control), 0o777);

    await nginx.start({ NANGO_ABORT: control,
        LD_PRELOAD: compile(t, 'shim_abort.c', '-shared', '-fPIC', '-ldl',
                            '-llmdb') });
    await post(nginx, sync('c-1'));
    await post(nginx, sync('c-2'));
    await until('both', () => held.length === 2);
    held[0](410);
    await until('it to be parked', () => ledgers(read, nginx).app?.parked);

    fs.writeFileSync(control, '');
    held[1](410);
    await until('the leader', () => fs.existsSync(`${control}.seen`));
    backend.answer = () => 200;

    const { status, text } = await once(nginx.port, 'POST', '/manage',
        { 'Content-Type': 'application/json' }, Buffer.from('{"action":'
            + '"resume","environment":"prod","subscriber":"app"}'));

    assert.strictEqual(status, 200, text);
    assert.strictEqual(ledgers(read, nginx).app.parked, 0);
    fs.unlinkSync(control);

    await until('both to be taken', () => backend.accepted.length === 2);
    assertAlive(nginx);
    assert.ok(await nginx.stop());
});


for (const [name, header, least] of [
    ['seconds', () => '2', 2000],
    ['a date', () => new Date(Date.now() + 3000).toUTCString(), 2000],
]) {
    test(`Retry-After in ${name} is waited for, by all`, async (t) => {
        for (const status of [429, 503]) {
            let told;
            const early = [];
            const backend = await Backend.create(t, {
                answer: () => {
                    if (!told) {
                        told = Date.now();
                        return { status,
                                 headers: { 'Retry-After': header() } };
                    }

                    /* What nginx measures are milliseconds of another kind. */

                    early.push(Date.now() - told + 50 < least);

                    return 200;
                },
            });
            const nginx = await create(t, config(
                `deliver app ${backend.url} concurrency=1;`));

            await nginx.start();
            await post(nginx, sync('c-1'));
            await until('an answer', () => told);
            await post(nginx, sync('c-2'));
            await until('both', () => backend.accepted.length === 2);

            assert.deepStrictEqual(early, [false, false]);
            assert.ok(await nginx.stop());
        }
    });
}


test('Retry-After of ages is an hour, and not nothing', async (t) => {
    const backend = await Backend.create(t, {
        answer: () => ({ status: 503,
                         headers: { 'Retry-After': '2305843009213693952' } }),
    });
    const nginx = await create(t, config(`deliver app ${backend.url};`));

    await nginx.start();

    for (let i = 0; i < 5; i++) {
        await post(nginx, sync(`c-${i}`));
        await until('the first', () => backend.got.length > 0);
    }

    /* Without it, all of them would have been tried within a second. */

    await sleep(1500);
    assert.strictEqual(backend.got.length, 1);
    assert.ok(await nginx.stop());
});


function certificate(dir, name, ip) {
    execFileSync('openssl', ['req', '-x509', '-newkey', 'ec', '-pkeyopt',
        'ec_paramgen_curve:prime256v1', '-nodes', '-keyout', `${name}.key`,
        '-out', `${name}.pem`, '-subj', `/CN=${name}`, '-addext',
        `subjectAltName=IP:${ip}`, '-days', '30'],
        { cwd: dir, stdio: ['ignore', 'ignore', 'pipe'] });

    return { key: fs.readFileSync(path.join(dir, `${name}.key`)),
             cert: fs.readFileSync(path.join(dir, `${name}.pem`)),
             file: path.join(dir, `${name}.pem`) };
}


test('TLS, and certificates that are wrong', async (t) => {
    const nginx = await create(t, config(''));
    const good = certificate(nginx.dir, 'good', '127.0.0.1');
    const name = certificate(nginx.dir, 'name', '127.0.0.9');
    const backend = await Backend.create(t, { tls: good });
    const named = await Backend.create(t, { tls: name });

    nginx.configure(config(`
        deliver good     ${backend.url} trusted_certificate=${good.file};
        deliver stranger ${backend.url}?stranger
                         trusted_certificate=${name.file};
        deliver plain    ${backend.url.replace('https', 'http')}?plain;
        deliver nobody   ${backend.url}?nobody;
        deliver named    ${named.url} trusted_certificate=${name.file};
        deliver careless ${named.url}?careless verify=off;
    `));
    await nginx.start();

    const body = sync('c-1', { padding: 'x'.repeat(3 << 20) });

    await post(nginx, body);
    await until('two', () => backend.accepted.length === 1
                             && named.accepted.length === 1, 20000);
    assert.ok(backend.got[0].body.equals(Buffer.from(body)));
    assert.match(named.got[0].url, /careless/);

    await until('them to be noticed', () => nginx.lines('error').filter(
        (line) => /does not take events/.test(line)).length === 3, 20000);

    assert.strictEqual(backend.got.length, 1);
    assert.strictEqual(named.got.length, 1);
    assertAlive(nginx);
    assert.ok(await nginx.stop());
});
