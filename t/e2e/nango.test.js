/*
 * A Nango that is slow, silent or hostile: whatever it does, the answer is one
 * that is documented, it comes in time, nothing else waits for it, nothing is
 * left behind, and nobody gets a session that is not theirs.
 *
 * NANGO_LONG=1 takes more of each, and looks at connections past their age.
 */

'use strict';

const assert = require('node:assert');
const { execFileSync, spawn } = require('node:child_process');
const fs = require('node:fs');
const net = require('node:net');
const os = require('node:os');
const path = require('node:path');
const { test } = require('node:test');

const { Client, hmac, once } = require('./client');
const { compile } = require('./model');
const { create, sleep, until } = require('./nginx');
const peers = require('./peer');
const { reply, session, token, FRAMINGS, JSON_TYPE } = peers;

const LONG = Boolean(process.env.NANGO_LONG);
const API_KEY = 'b3a1c0de-0000-4000-8000-00000000f00d';
const SIGNING_KEY = 'signing-key-of-prod';
const MB = 1024 * 1024;

const CODES = {
    429: 'rate_limited',
    502: 'nango_error',
    503: 'nango_unavailable',
    504: 'nango_timeout',
};


/* An nginx of one worker, with these environments: {name: lines}. */
async function running(t, environments, options) {
    const { env, http, server, level, ...others } = options || {};

    const nginx = await create(t, {
        workers: 1,
        connections: 2048,
        http: `
            error_log @DIR@/error.log ${level || 'info'};
            keepalive_requests 1000000;
            keepalive_timeout 600s;
            ${Object.entries(environments).map(([name, lines]) => `
            nango_environment ${name} {
                reconcile           off;
                api_public https://nango.example.com;
                api_key    data:${API_KEY};
                ${lines}
            }`).join('')}
            ${http || ''}
        `,
        server: `
            location = /plain { return 200 plain; }
            ${Object.keys(environments).map((name) => `
            location = /session/${name} {
                nango_owner         end_user_id $http_x_user;
                nango_session_reuse off;
                nango_session       ${name};
            }`).join('')}
            ${server || ''}
        `,
        ...others,
    });

    await nginx.start(env);

    nginx.worker = nginx.workers()[0];

    return nginx;
}


function ask(nginx, user, environment) {
    return once(nginx.port, 'POST', `/session/${environment || 'main'}`,
                { 'X-User': user });
}


/* That it is an answer as documented, with that status. */
function assertAnswer(answer, status, user) {
    const about = `${user}: ${answer.status} ${answer.text}`;

    assert.ok([].concat(status).includes(answer.status),
              `${about}, and not ${status}`);
    assert.strictEqual(answer.headers['cache-control'], 'no-store', about);
    assert.ok(answer.json, about);

    if (answer.status === 200) {
        assert.strictEqual(answer.json.sessionToken, token(user), about);
        return;
    }

    assert.strictEqual(answer.json.error.code, CODES[answer.status], about);
    assert.strictEqual(answer.headers['x-nango-error'], CODES[answer.status],
                       about);
}


async function assertSession(nginx, user, environment) {
    assertAnswer(await ask(nginx, user, environment), 200, user);
}


/* No process died, nothing alarming was said, and no secret at all. */
/* What did not answer for a while is asked now and then only. */
async function assertBack(nginx, user, environment) {
    let n = 0;

    await until('Nango to be asked again', async () => {
        const answer = await ask(nginx, `${user}-${n++}`, environment);

        return answer.status === 200;
    });
}


function assertCalm(nginx, besides) {
    const log = nginx.log();

    assert.deepStrictEqual(nginx.lines('alert', 'crit', 'emerg')
        .filter((line) => !besides || !besides.test(line)), []);
    assert.ok(!/exited on signal/.test(log));
    assert.ok(!log.includes(API_KEY), 'the key is in the log');
    assert.ok(!log.includes('nango_connect_session_'),
              'a token is in the log');
}


function fds(pid) {
    return fs.readdirSync(`/proc/${pid}/fd`).length;
}


/* "VmRSS", "VmHWM" in bytes, "Threads" as it is */
function status(pid, name) {
    const text = fs.readFileSync(`/proc/${pid}/status`, 'latin1');
    const [, n, unit] = new RegExp(`^${name}:\\s+(\\d+)( kB)?`, 'm')
        .exec(text);

    return unit ? Number(n) * 1024 : Number(n);
}


/* It sleeps where nothing happens. */
async function assertIdle(nginx) {
    const ticks = () => {
        const text = fs.readFileSync(`/proc/${nginx.worker}/stat`, 'latin1');
        const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');

        return Number(fields[11]) + Number(fields[12]);
    };

    await sleep(100);

    const before = ticks();

    await sleep(500);
    assert.ok(ticks() - before < 10, 'the worker is busy with nothing');
}


/*
 * Once Nango's side of all connections is closed, and libcurl has looked at
 * what is left of them, the worker has as many files as it had with one.
 */
async function assertReleased(nginx, peer, before) {
    await assertIdle(nginx);
    await until('the worker to release its files', async () => {
        peer.drop();
        await sleep(1100);
        await assertSession(nginx, 'released');

        return fds(nginx.worker) <= before;
    }, 15000);
}


function percentile(times, p) {
    const sorted = [...times].sort((a, b) => a - b);

    return sorted[Math.min(sorted.length - 1,
                           Math.floor(sorted.length * p))];
}


/* Requests one by one, each measured, until stop() tells how long they took. */
function probe(nginx, method, url, headers, body, expected) {
    const client = new Client(nginx.port);
    const times = [];
    let stopped = false;
    let lag = 0;
    let due = Date.now() + 20;

    /* How late we are ourselves, for want of a processor. */

    const timer = setInterval(() => {
        lag = Math.max(lag, Date.now() - due);
        due = Date.now() + 20;
    }, 20).unref();

    const done = (async () => {
        for (let n = 0; !stopped; n++) {
            const text = typeof body === 'function' ? body(n) : body;
            const begun = process.hrtime.bigint();
            const answer = await client.request(method, url,
                typeof headers === 'function' ? headers(text) : headers, text);

            times.push(Number(process.hrtime.bigint() - begun) / 1e6);
            assert.strictEqual(answer.status, expected || 200, answer.text);
            await sleep(5);
        }
    })();

    done.catch(() => {});

    return async () => {
        stopped = true;
        clearInterval(timer);
        await done;
        client.close();

        return { times, lag, p99: percentile(times, 0.99),
                 max: percentile(times, 1) };
    };
}


/* Nothing that blocks for a while passes unnoticed; a busy machine does. */
function assertQuick(t, what, { times, lag, p99, max }) {
    t.diagnostic(`${times.length} other requests during ${what}: 99th `
                 + `percentile ${p99.toFixed(1)} ms, ${max.toFixed(0)} ms at `
                 + 'most');
    assert.ok(times.length > 3);
    assert.ok(p99 < 3000 + 3 * lag, `others waited ${p99} ms`);
}


/* So many of the jobs at a time. */
async function all(jobs, width) {
    const left = [...jobs];

    await Promise.all(Array.from({ length: width }, async () => {
        for (let job = left.shift(); job; job = left.shift()) {
            await job();
        }
    }));
}


/* Bytes without an end, as fast as they are taken. */
function endless(socket, head, piece) {
    const more = () => {
        while (!socket.destroyed && socket.write(piece)) { /* go on */ }
    };

    socket.write(head);
    socket.on('drain', more);
    more();
}


/* By RST, which TLS in Node.js has no way to. */
function reset(socket) {
    if (socket.encrypted) {
        socket.destroy();
    } else {
        socket.resetAndDestroy();
    }
}


/* What a reply is when all that is strange is its body. */
function body(make) {
    return (socket, { user }) => socket.write(
        reply(201, [JSON_TYPE], make(user)));
}


function member(members) {
    return body((user) => session(user, members));
}


/* A whole session, with these lines before its own. */
function lines(...more) {
    return (socket, { user }) => socket.write(
        reply(201, [...more, JSON_TYPE], session(user)));
}


/* Other bytes, and the end of the connection if it is one. */
function raw(bytes, end) {
    return (socket, { user }) => {
        const data = typeof bytes === 'function' ? bytes(user) : bytes;

        if (end) {
            socket.end(data, 'latin1');
        } else {
            socket.write(data, 'latin1');
        }
    };
}


function code(number, ...more) {
    return raw((user) => reply(number, [...more, JSON_TYPE], session(user)));
}


function pad(n) {
    return 'x'.repeat(n);
}


const HEAD = `HTTP/1.1 201 Created\r\n${JSON_TYPE}\r\n`;
const CHUNKED = `${HEAD}Transfer-Encoding: chunked\r\n\r\n`;

/* What is no session although it was sent in full: [what, status] */
const REPLIES = {
    /* which is one, however odd */
    good:          [code(201), 200],
    noreason:      [raw((user) => reply(201, [JSON_TYPE], session(user))
                        .replace(' Some Words', '')), 200],
    bare:          [raw((user) => `HTTP/1.0 201 Created\n${JSON_TYPE}\n\n`
                                  + session(user), true), 200],
    type:          [raw((user) => reply(201,
        ['CONTENT-TYPE:\tapplication/JSON ; charset=utf-8'], session(user))),
                    200],
    continued:     [raw((user) => 'HTTP/1.1 100 Continue\r\n\r\n'
                                  + FRAMINGS.length(user)), 200],
    hints:         [raw((user) => 'HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n'
                                  + `\r\n${FRAMINGS.chunked(user)}`), 200],
    trailers:      [raw((user) => FRAMINGS.chunked(user)
                        .replace('0\r\n\r\n', '0\r\nX-A: b\r\n\r\n')), 200],
    cookie:        [lines('Set-Cookie: a=b; Path=/'), 200],
    line64k:       [lines(`X-A: ${pad(65500)}`), 200],
    lines64k:      [lines(...Array(64).fill(`X-A: ${pad(1016)}`)), 200],
    lines5000:     [lines(...Array(5000).fill('X-A: some value')), 200],
    samelength:    [raw((user) => reply(201, [JSON_TYPE,
        `Content-Length: ${session(user).length}`], session(user))), 200],
    almost1m:      [body((user) => session(user).padEnd(MB)), 200],
    slowly:        [async (socket, { user }) => {
                        for (const byte of FRAMINGS.chunked(user)) {
                            socket.write(byte);
                            await sleep(2);
                        }
                    }, 200],

    /* bodies */
    html:          [raw((user) => reply(201, ['Content-Type: text/html'],
                                        session(user))), 502],
    notype:        [raw((user) => reply(201, [], session(user))), 502],
    jsonp:         [raw((user) => reply(201,
        ['Content-Type: application/jsonp'], session(user))), 502],
    nojson:        [body(() => 'welcome to nginx'), 502],
    nothing:       [body(() => ''), 502],
    array:         [body(() => '[]'), 502],
    text:          [body(() => '"data"'), 502],
    null:          [body(() => 'null'), 502],
    nodata:        [body(() => '{"token":"a"}'), 502],
    nulldata:      [body(() => '{"data":null}'), 502],
    listdata:      [body(() => '{"data":[{"token":"a"}]}'), 502],
    twice:         [body((user) => session(user) + session(user)), 502],
    half:          [body((user) => session(user).slice(0, -1)), 502],
    number:        [member({ token: 1 }), 502],
    empty:         [member({ token: '' }), 502],
    quote:         [member({ token: 'nango_connect_session_"a' }), 502],
    newline:       [member({ token: 'nango_connect_session_\na' }), 502],
    zero:          [member({ token: 'nango_connect_session_\u0000a' }), 502],
    markup:        [member({ token: '</script><script>' }), 502],
    umlaut:        [member({ token: 'nango_connect_session_\u00e4' }), 502],
    surrogate:     [member({ token: 'nango_connect_session_\ud800' }), 502],
    longtoken:     [member({ token: pad(5000) }), 502],
    nolink:        [member({ connect_link: undefined }), 502],
    badlink:       [member({ connect_link: 'https://a/\r\nSet-Cookie: b' }),
                    502],
    badtime:       [member({ expires_at: '2030\u0007' }), 502],
    utf8:          [raw((user) => FRAMINGS.length(user)
                        .replace('?session', '\xff\xfesessio')), 502],
    deep:          [body(() => '['.repeat(100000)), 502],
    deeper:        [body((user) => session(user).replace('{"data":',
        `{"a":${'['.repeat(100000)}${']'.repeat(100000)},"data":`)), 502],
    gzip:          [raw(() => `${HEAD}Content-Encoding: gzip\r\n`
                              + 'Content-Length: 4\r\n\r\n\x1f\x8b\x08\x00'),
                    502],

    /* statuses */
    ...Object.fromEntries([200, 202, 400, 401, 402, 403, 404, 408, 409, 410,
                           421, 422, 424, 425, 500, 501, 502, 503, 504, 511,
                           599, 999]
        .map((number) => [`status${number}`, [code(number), 502]])),
    status204:     [raw('HTTP/1.1 204 No Content\r\n\r\n'), 502],
    status304:     [raw(`HTTP/1.1 304 Not Modified\r\n${JSON_TYPE}\r\n\r\n`),
                    502],
    upgrade:       [raw('HTTP/1.1 101 Switching Protocols\r\nUpgrade: '
                        + 'websocket\r\nConnection: Upgrade\r\n\r\n'), 502],

    /* what is no HTTP/1.1 */
    http09:        [raw((user) => session(user), true), 502],
    preface:       [raw('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', true), 502],
    frames:        [raw('\0\0\x12\x04\0\0\0\0\0\0\x03\0\0\0\x80\0\x04\0\x01'
                        + '\0\0\0\x05\0\xff\xff\xff', true), 502],
    http2:         [raw((user) => FRAMINGS.length(user)
                        .replace('HTTP/1.1', 'HTTP/2')), [200, 502]],
    http9:         [raw((user) => FRAMINGS.length(user)
                        .replace('HTTP/1.1', 'HTTP/9.9')), 502],
    letters:       [raw((user) => FRAMINGS.length(user)
                        .replace('201', 'abc')), 502],
    digits:        [raw((user) => FRAMINGS.length(user)
                        .replace('201', '20100')), 502],
    garbage:       [raw(() => Buffer.from(Array.from({ length: 4096 },
        (_, i) => (i * 7919) % 251)).toString('latin1'), true), 502],
    ssh:           [raw('SSH-2.0-OpenSSH_9.2\r\n', true), 502],
    nul:           [lines('X-A: a\0b'), 502],

    /* framings */
    lengths:       [raw((user) => reply(201, [JSON_TYPE,
        'Content-Length: 5'], session(user))), [200, 502, 503]],
    shortlength:   [raw((user) => reply(201, [JSON_TYPE], session(user))
        .replace(/(Content-Length: ).*/, '$15')), 502],
    badlength:     [raw((user) => reply(201, [JSON_TYPE], session(user))
        .replace(/(Content-Length: ).*/, '$1five'), true), [200, 502, 503]],
    minuslength:   [raw((user) => reply(201, [JSON_TYPE], session(user))
        .replace(/(Content-Length: ).*/, '$1-5'), true), [200, 502, 503]],
    hugelength:    [raw((user) => reply(201, [JSON_TYPE], session(user))
        .replace(/(Content-Length: ).*/, `$1${'9'.repeat(40)}`), true),
                    [200, 502, 503]],
    badchunk:      [raw(`${CHUNKED}zz\r\n{}\r\n0\r\n\r\n`), [502, 503]],
    minuschunk:    [raw(`${CHUNKED}-1\r\n{}\r\n0\r\n\r\n`), [502, 503]],
    hugechunk:     [raw(`${CHUNKED}${'f'.repeat(40)}\r\n{}`), [502, 503]],
    largechunk:    [raw(`${CHUNKED}7fffffffffffffff\r\n{}`, true),
                    [502, 503]],
    nochunk:       [raw(`${CHUNKED}0\r\n\r\n`), 502],
    noencoding:    [raw((user) => `${HEAD}Transfer-Encoding: foo\r\n\r\n`
                                  + session(user), true), [200, 502, 503]],

    /* too much */
    tenmb:         [body(() => pad(10 * MB)), 502],
    tenmbchunked:  [raw(() => `${CHUNKED}a00000\r\n${pad(10 * MB)}\r\n0\r\n`
                              + '\r\n'), 502],
    tenmbclose:    [raw(() => `${HEAD}\r\n${pad(10 * MB)}`, true), 502],
    endless:       [(socket) => endless(socket, `${HEAD}\r\n`, pad(65536)),
                    502],
    endlesslines:  [(socket) => endless(socket, HEAD,
        `X-A: ${pad(1000)}\r\n`.repeat(64)), 502],
    endlessline:   [(socket) => endless(socket, HEAD, pad(65536)), 502],
    endlessstatus: [(socket) => endless(socket, 'HTTP/1.1 201 ', pad(65536)),
                    502],
    endless100:    [(socket) => endless(socket, '',
        'HTTP/1.1 100 Continue\r\nX-A: b\r\n\r\n'.repeat(1000)), 502],
    line1m:        [lines(`X-A: ${pad(MB)}`), 502],
    lines1m:       [lines(...Array(1024).fill(`X-A: ${pad(1016)}`)), 502],

    /* never: in an environment that waits one second */
    silent:        [() => {}, 504, 'short'],
    slow:          [async (socket, { user }) => {
                        for (const byte of FRAMINGS.length(user)) {
                            socket.write(byte);
                            await sleep(100);

                            if (socket.destroyed) {
                                break;
                            }
                        }
                    }, 504, 'short'],
    dripping:      [async (socket, { user }) => {
                        socket.write(reply(201, [JSON_TYPE], session(user))
                            .slice(0, -40));
                        while (!socket.destroyed) {
                            await sleep(1500);
                        }
                    }, 504, 'short'],
    halfhead:      [raw('HTTP/1.1 201 Created\r\nX-A:'), 504, 'short'],
    halfword:      [raw('HTT'), 504, 'short'],
    waiting:       [raw('HTTP/1.1 100 Continue\r\n\r\n'), 504, 'short'],
    extension:     [(socket) => endless(socket, `${CHUNKED}1;`, pad(65536)),
                    [502, 503, 504], 'short'],
};


/* Retry-After as it may be, and the seconds that are told */
const RETRY_AFTER = [
    ['7', 7], ['   7  ', 7], ['\t7', 7], ['0', 1], ['00', 1],
    ['-5', 1], ['', 1], ['soon', 1], ['1.5', 1], ['7 s', 1], [null, 1],
    ['3600', 3600], ['3601', 3600], ['99999999', 3600], ['9'.repeat(30), 3600],
    [() => new Date(Date.now() + 300000).toUTCString(), 300],
    [() => new Date(Date.now() - 300000).toUTCString(), 1],
    ['Fri, 01 Jan 2100 00:00:00 GMT', 3600],
    ['Fri, 99 Foo 2100 00:00:00 GMT', 1],
];


test('replies of all kinds', {}, async (t) => {
    const redirects = [];
    const trap = net.createServer((socket) => {
        redirects.push(socket.remotePort);
        socket.destroy();
    });

    await new Promise((resolve) => { trap.listen(0, '127.0.0.1', resolve); });
    t.after(() => trap.close());

    const cases = { ...REPLIES };
    const elsewhere = `http://127.0.0.1:${trap.address().port}/`;

    for (const number of [300, 301, 302, 303, 305, 307, 308]) {
        cases[`redirect${number}`] = [code(number, `Location: ${elsewhere}`),
                                      502];
        cases[`ours${number}`] = [code(number, 'Location: /elsewhere'), 502];
    }

    cases.authenticate = [code(401, 'WWW-Authenticate: Basic realm="a"'), 502];
    cases.proxy = [code(407, 'Proxy-Authenticate: Basic realm="a"'), 502];
    cases.altsvc = [lines(`Alt-Svc: http/1.1="127.0.0.1:${
        trap.address().port}"; ma=60`), 200];

    const peer = await peers.create(t, Object.fromEntries(
        Object.entries(cases).map(([name, [what]]) => [name, what])));

    const nginx = await running(t, {
        main: `api http://127.0.0.1:${peer.port}; api_connections 64;
               api_timeout 30s;`,
        short: `api http://127.0.0.1:${peer.port}; api_connections 200;
                api_timeout 1s;`,
    });

    await assertSession(nginx, 'first');

    const files = fds(nginx.worker);
    const others = probe(nginx, 'GET', '/plain', {}, '');
    const wrong = [];

    const round = (number) => all(Object.entries(cases).map(
        ([name, [, expected, environment]]) => async () => {
            const user = `${name}-${number}`;

            try {
                assertAnswer(await ask(nginx, user, environment), expected,
                             user);
            } catch (err) {
                wrong.push(`${user}: ${err.message}`);
            }
        }), 32);

    await round(0);
    assert.deepStrictEqual(wrong, []);

    const memory = status(nginx.worker, 'VmRSS');

    for (let n = 1; n <= (LONG ? 30 : 1); n++) {
        await assertBack(nginx, `back-${n}`, 'short');
        await round(n);
    }

    assert.deepStrictEqual(wrong, []);
    assertQuick(t, 'replies of all kinds', await others());

    /* Each was asked for once, as ourselves, and nowhere else. */

    const users = peer.requests.map((request) => request.user);

    assert.strictEqual(new Set(users).size, users.length);
    assert.deepStrictEqual(redirects, []);

    for (const { head } of peer.requests) {
        assert.ok(head.startsWith('POST /connect/sessions HTTP/1.1\r\n'));
        assert.ok(head.includes(`\r\nAuthorization: Bearer ${API_KEY}`));
        assert.ok(!/^(cookie|proxy|expect|accept-encoding):/im.test(head));
    }

    await assertReleased(nginx, peer, files);

    const growth = status(nginx.worker, 'VmRSS') - memory;

    t.diagnostic(`${Object.keys(cases).length} replies; memory of the worker `
                 + `${(memory / MB).toFixed(1)} MB after the first round, `
                 + `${(growth / MB).toFixed(1)} MB more after all`);
    assert.ok(growth < 24 * MB);

    assert.strictEqual(await nginx.stop(), true);
    assertCalm(nginx);
});


test('a reply of 10 MB costs no memory', {}, async (t) => {
    const peer = await peers.create(t, {
        tenmb: body(() => pad(10 * MB)),
        endless: (socket) => endless(socket, `${HEAD}\r\n`, pad(65536)),
    });
    const nginx = await running(t, {
        main: `api http://127.0.0.1:${peer.port};`,
    });

    await assertSession(nginx, 'first');

    const before = status(nginx.worker, 'VmHWM');

    for (let n = 0; n < (LONG ? 200 : 20); n++) {
        const user = n % 2 ? `tenmb-${n}` : `endless-${n}`;

        assertAnswer(await ask(nginx, user), 502, user);
    }

    const growth = status(nginx.worker, 'VmHWM') - before;

    t.diagnostic(`${(growth / MB).toFixed(1)} MB more at most`);
    assert.ok(growth < 6 * MB);
    assert.ok(nginx.log().includes('the reply is too large'));
    assertCalm(nginx);
});


test('429 and what is said of the time', {}, async (t) => {
    const what = {};

    RETRY_AFTER.forEach(([value], n) => {
        what[`limited${n}`] = (...args) => code(429,
            ...(value === null ? [] : [`Retry-After: ${
                typeof value === 'function' ? value() : value}`]))(...args);
    });

    const peer = await peers.create(t, what);
    const nginx = await running(t, Object.fromEntries(RETRY_AFTER.map(
        (_, n) => [`e${n}`, `api http://127.0.0.1:${peer.port};
                             account e${n};`])));

    await Promise.all(RETRY_AFTER.map(async ([value, seconds], n) => {
        const user = `limited${n}`;
        const answer = await ask(nginx, user, `e${n}`);
        const told = Number(answer.headers['retry-after']);

        assertAnswer(answer, 429, user);
        assert.ok(told <= seconds && told >= (seconds === 300 ? 280 : seconds),
                  `"${value}": ${told}, and not ${seconds}`);

        /* Nobody is sent there meanwhile. */

        if (seconds > 1) {
            assertAnswer(await ask(nginx, 'later', `e${n}`), 429, 'later');
        }
    }));

    assert.strictEqual(peer.of('later').length, 0);

    /* Of those that were told one second, each works after it. */

    await sleep(2100);

    for (let n = 0; n < RETRY_AFTER.length; n++) {
        if (RETRY_AFTER[n][1] === 1) {
            await assertSession(nginx, `after-${n}`, `e${n}`);
        }
    }

    assertCalm(nginx);
});


/* A session over a kept connection, which somebody's late RST may meet. */
async function assertGood(nginx, user) {
    for (let n = 0; ; n++) {
        const answer = await ask(nginx, user);

        if (answer.status === 200 || n === 4) {
            assertAnswer(answer, 200, user);
            return;
        }

        assertAnswer(answer, 503, user);
    }
}


test('cut at every byte', {}, async (t) => {
    /* cut-FRAMING-HOW-LENGTH: the reply to it without what is behind */
    const bytes = (user) => FRAMINGS[user.split('-')[1]](user);
    const name = (framing, how, n) => `cut-${framing}-${how}-${
        String(n).padStart(5, '0')}`;

    const peer = await peers.create(t, {
        cut(socket, { user }) {
            const [, , how, n] = user.split('-');
            const part = bytes(user).slice(0, Number(n));

            if (how === 'fin') {
                socket.end(part);
            } else {
                socket.write(part, () => reset(socket));
            }
        },
    });
    const nginx = await running(t, {
        main: `api http://127.0.0.1:${peer.port}; api_connections 64;`,
    });

    await assertSession(nginx, 'first');

    const files = fds(nginx.worker);
    const others = probe(nginx, 'GET', '/plain', {}, '');
    const jobs = [];

    for (const framing of Object.keys(FRAMINGS)) {
        for (const how of ['fin', 'rst']) {
            const whole = bytes(name(framing, how, 0));
            const head = whole.indexOf('\r\n\r\n') + 4;
            const step = LONG || how === 'fin' ? 1 : 7;

            for (let n = 0; n <= whole.length; n += step) {
                const user = name(framing, how, n);
                let expected = n === whole.length ? 200 : 503;

                if (framing === 'close' && n >= head && n < whole.length) {
                    expected = 502;
                }

                /* To libcurl the last chunk is there with its length. */

                if (framing === 'chunked' && n >= whole.length - 4) {
                    expected = [200, 503];
                }

                /* What was not read before an RST may be lost. */

                if (how === 'rst' && n === whole.length) {
                    expected = [200, 503];
                } else if (how === 'rst' && expected === 502) {
                    expected = [502, 503];
                }

                jobs.push(async () => {
                    /* On a connection that was good once, every other time. */

                    if (n % 2) {
                        await assertGood(nginx, `before-${user}`);
                    }

                    assertAnswer(await ask(nginx, user), expected, user);
                    assert.strictEqual(peer.of(user).length, 1,
                                       `${user} was sent twice`);
                });
            }
        }
    }

    await all(jobs, 16);
    assertQuick(t, `${jobs.length} cuts`, await others());
    await assertReleased(nginx, peer, files);
    assert.strictEqual(await nginx.stop(), true);
    assertCalm(nginx);
});


/* What happens to a connection that is kept, by TCP and by TLS. */
for (const scheme of ['http', 'https']) {
    test(`connections that are kept, ${scheme}`, {}, async (t) => {
        const forged = FRAMINGS.length('somebody-else');
        const behind = (framing, pause) => async (socket, { user }) => {
            const own = FRAMINGS[framing](user);

            if (pause === undefined) {
                socket.write(own + forged);
                return;
            }

            socket.write(own);
            await sleep(pause);
            socket.write(forged);
        };

        const spoilt = [];

        const peer = await peers.create(t, {
            gone: (socket) => socket.end(),
            reset,
            extra: behind('length'),
            extrachunked: behind('chunked'),
            later: behind('length', 20),
            laterchunked: behind('chunked', 20),
            many: (socket, { user }) => {
                socket.write(FRAMINGS.length(user));
                spoilt.push(socket);
            },
            part: (socket, { user }) => {
                socket.write(FRAMINGS.length(user) + forged.slice(0, 100));
                setTimeout(() => socket.write(forged.slice(100)), 20);
            },
            none: (socket) => {
                socket.write('HTTP/1.1 204 No Content\r\n\r\n');
                setTimeout(() => socket.write(forged), 20);
            },
            flood: (socket, { user }) => {
                socket.write(FRAMINGS.length(user));
                setTimeout(() => endless(socket, '', forged.repeat(100)), 20);
            },
            timeout: (socket, { user }) => {
                socket.write(FRAMINGS.length(user));
                setTimeout(() => socket.end(reply(408,
                    ['Connection: close'], '')), 20);
            },
        }, scheme === 'https' ? certificates(t).good : undefined);

        const nginx = await running(t, {
            main: `api ${scheme}://127.0.0.1:${peer.port}; api_verify off;`,
        });

        await assertSession(nginx, 'first');
        await assertSession(nginx, 'second');
        assert.strictEqual(peer.connections, 1, 'connections are not kept');

        /* It was sent on a kept connection, and may have been received. */

        for (const name of ['gone', 'reset']) {
            await assertSession(nginx, `before-${name}`);
            assertAnswer(await ask(nginx, name), 503, name);
            assert.strictEqual(peer.of(name).length, 1,
                               `${name} was sent twice`);
        }

        assert.ok(nginx.log().includes('was closed instead of an answer'));

        /* Nothing was sent on a connection that had been closed before. */

        await assertSession(nginx, 'idle');
        peer.drop();
        await sleep(50);
        await assertSession(nginx, 'again');
        assert.strictEqual(peer.of('again').length, 1);

        /* What was not asked for is nobody's answer. */

        for (const name of ['extra', 'extrachunked', 'later', 'laterchunked',
                            'part', 'none', 'flood', 'timeout'])
        {
            for (let n = 0; n < 3; n++) {
                assertAnswer(await ask(nginx, `${name}-${n}`),
                             name === 'none' ? 502 : 200, `${name}-${n}`);
                await sleep(name.startsWith('extra') ? 0 : 100);
                await assertSession(nginx, `after-${name}-${n}`);
            }
        }

        /* Many at once, and all of them spoilt. */

        await Promise.all(Array.from({ length: 30 }, async (_, n) => {
            await assertSession(nginx, `many-${n}`);
        }));
        spoilt.forEach((socket) => socket.write(forged));
        await sleep(200);
        await Promise.all(Array.from({ length: 30 },
            (_, n) => assertSession(nginx, `after-many-${n}`)));

        if (LONG && scheme === 'http') {
            const { connections } = peer;

            await sleep(52000);
            await assertSession(nginx, 'aged');
            assert.strictEqual(peer.connections, connections + 1,
                               'a connection past its age was used');
        }

        assert.strictEqual(await nginx.stop(), true);
        assertCalm(nginx);
    });
}


/* {ca, and for each kind: key, cert}, made anew */
function certificates(t) {
    const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'nango-e2e-'));
    const file = (name) => path.join(dir, name);
    const openssl = (...args) => execFileSync('openssl', args,
        { cwd: dir, stdio: ['ignore', 'ignore', 'pipe'] });
    const key = ['-newkey', 'ec', '-pkeyopt',
                 'ec_paramgen_curve:prime256v1', '-nodes'];

    t.after(() => fs.rmSync(dir, { recursive: true, force: true }));

    /* Workers read it, and are somebody else. */
    fs.chmodSync(dir, 0o755);

    for (const name of ['ca', 'otherca']) {
        openssl('req', '-x509', ...key, '-keyout', `${name}.key`, '-out',
                `${name}.pem`, '-subj', `/CN=${name}`, '-days', '30');
    }

    const made = { ca: file('ca.pem') };

    const make = (name, ca, days, names) => {
        fs.writeFileSync(file('extensions'), `subjectAltName=${names}\n`);
        openssl('req', ...key, '-keyout', `${name}.key`, '-out',
                `${name}.csr`, '-subj', '/CN=Nango');
        openssl('x509', '-req', '-in', `${name}.csr`, '-CA', `${ca}.pem`,
                '-CAkey', `${ca}.key`, '-set_serial', '7', '-days', days,
                '-extfile', 'extensions', '-out', `${name}.pem`);

        made[name] = { key: fs.readFileSync(file(`${name}.key`)),
                       cert: fs.readFileSync(file(`${name}.pem`)) };
    };

    make('good', 'ca', '30', 'IP:127.0.0.1');
    make('host', 'ca', '30', 'DNS:nango.example.com,IP:127.0.0.2');
    make('expired', 'ca', '-1', 'IP:127.0.0.1');
    make('stranger', 'otherca', '30', 'IP:127.0.0.1');

    openssl('req', '-x509', ...key, '-keyout', 'self.key', '-out', 'self.pem',
            '-subj', '/CN=127.0.0.1', '-addext',
            'subjectAltName=IP:127.0.0.1', '-days', '30');
    made.self = { key: fs.readFileSync(file('self.key')),
                  cert: fs.readFileSync(file('self.pem')) };

    return made;
}


/* A server of bare connections, by accept(socket); its port. */
async function listening(t, accept) {
    const sockets = new Set();
    const server = net.createServer((socket) => {
        sockets.add(socket);
        socket.on('error', () => {});
        socket.on('close', () => sockets.delete(socket));
        accept(socket);
    });

    await new Promise((resolve) => { server.listen(0, '127.0.0.1', resolve); });

    t.after(() => {
        sockets.forEach((socket) => socket.destroy());
        server.close();
    });

    return server.address().port;
}


/* Between a client and that port; changed() sees what comes from there. */
function between(socket, port, changed) {
    const other = net.connect(port, '127.0.0.1');

    other.on('error', () => socket.destroy());
    other.on('close', () => socket.destroy());
    socket.on('close', () => other.destroy());
    socket.on('data', (data) => other.write(data));
    other.on('data', (data) => changed(data));
}


/*
 * libcurl reads for all transfers of which a timer is due when it is told of
 * one socket; what epoll has said of the others, in the same breath, is old.
 */
test('connections are kept that were read before their turn', {}, async (t) => {
    const held = [];
    const hold = (socket, { user }) => {
        held.push(() => socket.write(FRAMINGS.length(user)));
    };

    const peer = await peers.create(t, { hold });
    const nginx = await running(t, {
        main: `api http://127.0.0.1:${peer.port}; api_connect_timeout 1s;`,
    });

    for (let round = 0; round < 2; round++) {
        const users = Array.from({ length: 4 }, (_, n) => `hold-${round}${n}`);
        const all = Promise.all(users.map((user) => assertSession(nginx,
                                                                  user)));

        await until('Nango to be asked', () => held.length === users.length);

        nginx.kill(nginx.worker, 'SIGSTOP');

        try {
            held.splice(0).forEach((speak) => speak());
            await sleep(1500);

        } finally {
            nginx.kill(nginx.worker, 'SIGCONT');
        }

        await all;
        assert.strictEqual(peer.connections, users.length);
    }

    assert.strictEqual(await nginx.stop(), true);
    assertCalm(nginx);
});


test('TLS that is not as it should be', {}, async (t) => {
    const made = certificates(t);
    const trusted = `api_trusted_certificate ${made.ca};`;
    const peer = {};

    for (const name of ['good', 'host', 'expired', 'stranger', 'self']) {
        peer[name] = await peers.create(t, {}, made[name]);
    }

    peer.plain = await peers.create(t, {});
    peer.old = await peers.create(t, {}, { ...made.good,
        minVersion: 'TLSv1.1', maxVersion: 'TLSv1.1' });
    peer.client = await peers.create(t, {}, { ...made.good,
        requestCert: true, rejectUnauthorized: true });

    /* Cut after so many bytes of the server's side of the handshake. */

    const cuts = LONG ? Array.from({ length: 900 }, (_, n) => n)
                      : [0, 1, 4, 5, 6, 50, 127, 128, 200, 500, 700, 899];
    let cut = 0;

    const cutting = await listening(t, (socket) => {
        let left = cut;

        between(socket, peer.good.port, (data) => {
            if (data.length > left) {
                socket.end(data.subarray(0, left));
            } else {
                socket.write(data);
            }

            left -= data.length;
        });
    });

    const url = (name) => `api https://127.0.0.1:${peer[name].port};
                           api_connect_timeout 9s;`;
    const port = (accept) => listening(t, accept);

    /* environment: [lines, status, of the answer] */
    const cases = {
        good: [`${url('good')} ${trusted}`, 200],
        off: [`${url('self')} api_verify off;`, 200],
        offexpired: [`${url('expired')} api_verify off;`, 200],
        offhost: [`${url('host')} api_verify off;`, 200],
        host: [`${url('host')} ${trusted}`, 503],
        expired: [`${url('expired')} ${trusted}`, 503],
        stranger: [`${url('stranger')} ${trusted}`, 503],
        self: [`${url('self')} ${trusted}`, 503],
        system: [url('good'), 503],
        old: [`${url('old')} ${trusted}`, 503],
        client: [`${url('client')} ${trusted}`, 503],
        plain: [`api https://127.0.0.1:${await port((socket) => {
            socket.once('data', () => socket.end(reply(400, [], 'no TLS')));
        })}; api_connect_timeout 9s;`, 503],
        silent: [`api https://127.0.0.1:${peer.plain.port};
                  api_connect_timeout 1s;`, 504],
        unexpected: [`api http://127.0.0.1:${peer.good.port};`, [502, 503]],
        hang: [`api https://127.0.0.1:${await port(() => {})};
                api_connect_timeout 1s;`, 504],
        hanghello: [`api https://127.0.0.1:${await port((socket) => {
            between(socket, peer.good.port, (data) => {
                socket.write(data.subarray(0, 100));
            });
        })}; api_connect_timeout 1s; ${trusted}`, 504],
        closed: [`api https://127.0.0.1:${await port((socket) => {
            socket.once('data', () => socket.end());
        })}; api_connect_timeout 9s;`, 503],
        reset: [`api https://127.0.0.1:${await port((socket) => {
            socket.once('data', () => reset(socket));
        })}; api_connect_timeout 9s;`, 503],
        garbage: [`api https://127.0.0.1:${await port((socket) => {
            socket.once('data', () => socket.write(pad(5000)));
        })}; api_connect_timeout 9s;`, 503],
        alert: [`api https://127.0.0.1:${await port((socket) => {
            socket.once('data', () => socket.write('\x15\x03\x03\0\x02\x02\x28',
                                                   'latin1'));
        })}; api_connect_timeout 9s;`, 503],
    };

    const nginx = await running(t, {
        main: `${url('good')} ${trusted}`,
        cut: `api https://127.0.0.1:${cutting}; ${trusted}
              api_connect_timeout 5s;`,
        ...Object.fromEntries(Object.entries(cases).map(
            ([name, [text]]) => [name, text])),
    });

    await assertSession(nginx, 'first');

    const files = fds(nginx.worker);
    const others = probe(nginx, 'GET', '/plain', {}, '');

    for (let n = 0; n < (LONG ? 20 : 2); n++) {
        await Promise.all(Object.entries(cases).map(
            async ([name, [, expected]]) => {
                const user = `${name}-${n}`;

                /* What did not answer five times is asked now and then only. */
                const allowed = n < 5 || expected === 200 ? expected
                    : [expected, 503].flat();

                assertAnswer(await ask(nginx, user, name), allowed, user);
            }));
    }

    for (cut of cuts) {
        assertAnswer(await ask(nginx, `cut-${cut}`, 'cut'), 503,
                     `cut-${cut}`);
    }

    /* A last one may be complete without what TLS sends for later. */

    cut = Infinity;
    await assertSession(nginx, 'uncut', 'cut');

    assertQuick(t, 'bad TLS', await others());

    /* Who was not trusted saw neither key nor user. */

    for (const name of ['stranger', 'plain', 'old', 'client']) {
        assert.deepStrictEqual(peer[name].requests, [], name);
    }

    for (const name of ['host', 'expired', 'self']) {
        assert.strictEqual(peer[name].of(name).length, 0, name);
    }

    Object.values(peer).forEach((each) => each.drop());
    await assertReleased(nginx, peer.good, files);
    assert.strictEqual(await nginx.stop(), true);
    assertCalm(nginx);
});


/* The port of a server whose queue of connections is full. */
async function full(t) {
    const child = spawn(compile(t, 'backlog.c'), [],
                        { stdio: ['pipe', 'pipe', 'inherit'] });

    t.after(() => child.kill('SIGKILL'));

    return new Promise((resolve, reject) => {
        child.once('error', reject);
        child.once('exit', reject);
        child.stdout.once('data', (data) => resolve(Number(data)));
    });
}


test('addresses and names that lead nowhere', {}, async (t) => {
    const peer = await peers.create(t, {});
    const secure = await peers.create(t, {}, certificates(t).good);
    const queue = await full(t);
    const resolve = compile(t, 'resolve.c', '-shared', '-fPIC', '-ldl');
    const { port } = peer;

    const cases = {
        refused: ['api http://127.0.0.1:1;', 503],
        full: [`api http://127.0.0.1:${queue}; api_connect_timeout 1s;`, 504],
        fulltls: [`api https://127.0.0.1:${queue}; api_connect_timeout 1s;`,
                  504],
        total: [`api http://127.0.0.1:${queue}; api_timeout 1s;`, 504],
        fail: [`api http://fail.test:${port};`, 503],
        again: [`api http://again.test:${port};`, 503],
        two: [`api http://two.test:${port};`, 200],
        slowtwo: [`api http://slow-${queue}.test:${port};`, 200],
        slowboth: [`api http://slow-${queue}.test:1;`, [503, 504]],
        slowtls: [`api https://slow-${queue}.test:${secure.port};
                   api_verify off;`, 200],
        refusedname: ['api http://two.test:1;', 503],
        hang: [`api http://hang-4.test:${port}; api_connect_timeout 1s;`, 504],
        hangtotal: [`api http://hang-4.test:${port}; api_timeout 1s;`, 504],
    };

    const nginx = await running(t, {
        main: `api http://127.0.0.1:${port};`,
        ...Object.fromEntries(Object.entries(cases).map(
            ([name, [text]]) => [name, text])),
    }, { env: { LD_PRELOAD: resolve } });

    await assertSession(nginx, 'first');

    const files = fds(nginx.worker);
    const threads = status(nginx.worker, 'Threads');
    const others = probe(nginx, 'GET', '/plain', {}, '');
    let most = 0;

    await Promise.all(Object.entries(cases).map(
        async ([name, [, expected]]) => {
            for (let n = 0; n < (LONG ? 10 : 2); n++) {

                /* Once it is known, not each of them finds out by itself. */
                const allowed = n === 0 || expected === 200 ? expected
                    : [expected, 503].flat();

                await Promise.all(Array.from({ length: 10 }, async (_, i) => {
                    const user = `${name}-${n}-${i}`;

                    assertAnswer(await ask(nginx, user, name), allowed, user);
                }));

                most = Math.max(most, status(nginx.worker, 'Threads'));
            }
        }));

    assertQuick(t, 'addresses and names that lead nowhere', await others());

    await until('the resolver to end its threads',
                () => status(nginx.worker, 'Threads') <= threads, 15000);
    t.diagnostic(`${most - threads} threads of the resolver at most`);

    secure.drop();
    await assertReleased(nginx, peer, files);
    assert.strictEqual(await nginx.stop(), true);
    assertCalm(nginx);
});


test('a worker does not wait for names when it ends', {}, async (t) => {
    const resolve = compile(t, 'resolve.c', '-shared', '-fPIC', '-ldl');
    const environments = {
        hang: 'api http://hang-30.test:1; api_connect_timeout 500ms;',
        longer: 'api http://hang-30.test:1; api_connect_timeout 20s;',
    };

    const begin = async () => {
        const nginx = await running(t, environments,
                                    { env: { LD_PRELOAD: resolve } });

        return nginx;
    };
    const end = async (nginx, signal, what) => {
        const begun = Date.now();

        nginx.kill(nginx.master, signal);
        await until(`nginx to end (${what})`,
                    () => nginx.workers().length === 0, 6000);
        t.diagnostic(`${what}: ${Date.now() - begun} ms`);
        assertCalm(nginx);
    };

    /* The request is over, and the thread that resolves is not. */

    const [one, two, three] = await Promise.all([begin(), begin(), begin()]);

    assertAnswer(await ask(one, 'a', 'hang'), 504, 'a');
    await end(one, 'SIGQUIT', 'gracefully, after a lookup that hung');

    /* The request is under way. */

    const cut = assert.rejects(ask(two, 'b', 'longer'));

    await until('the lookup', () => status(two.worker, 'Threads') > 1);
    await end(two, 'SIGTERM', 'at once, during a lookup that hangs');
    await cut;

    const answer = ask(three, 'c', 'hang');

    await until('the lookup', () => status(three.worker, 'Threads') > 1);
    await end(three, 'SIGQUIT', 'gracefully, during a lookup that hangs');
    assertAnswer(await answer, 504, 'c');
});


/* A request that is sent in two parts, so that it holds its connection. */
class Half {
    constructor(nginx, head) {
        this.socket = net.connect(nginx.port, '127.0.0.1');
        this.text = '';
        this.closed = new Promise((resolve) => {
            this.socket.on('close', resolve);
        });
        this.socket.on('error', () => {});
        this.socket.on('data', (data) => { this.text += data; });
        this.socket.write(head);
    }

    async rest(text) {
        this.text = '';
        this.socket.write(text);

        await until('an answer', () => {
            const [, length] = /^content-length: (\d+)/im.exec(this.text)
                               || [];
            const end = this.text.indexOf('\r\n\r\n');

            return end >= 0 && this.text.length >= end + 4 + Number(length);
        });

        const [head, body] = this.text.split('\r\n\r\n');
        const headers = {};

        head.split('\r\n').slice(1).forEach((line) => {
            const [name, value] = line.split(': ');

            headers[name.toLowerCase()] = value;
        });

        const answer = { status: Number(head.split(' ')[1]), headers,
                         text: body };

        try {
            answer.json = JSON.parse(body);
        } catch (err) {
            /* it is none of ours */
        }

        return answer;
    }
}


/* All connections of a worker taken, or files: only sessions suffer. */
const SHORTAGES = {
    'connections of a worker': {
        options: { connections: 40 },
        said: /worker_connections are not enough/,
        ours: 'failed: worker_connections are not enough',
    },
    files: {
        options: { connections: 500, main: 'worker_rlimit_nofile 40;' },
        said: /Too many open files|worker_connections exceed open file/,
        ours: "failed: Couldn't connect to server",
    },
};

for (const [what, { options, said, ours }] of Object.entries(SHORTAGES)) {
    test(`no ${what} left`, {}, async (t) => {
        const peer = await peers.create(t, {
            late: (socket, { user }) => setTimeout(
                () => socket.write(FRAMINGS.length(user)), 300),
        });
        const nginx = await running(t, {
            main: `api http://127.0.0.1:${peer.port};`,
            name: `api http://localhost:${peer.port};`,
        }, options);

        const half = (name, user) => new Half(nginx,
            `POST /session/${name} HTTP/1.1\r\nHost: localhost\r\n`
            + `Content-Length: 0\r\nX-User: ${user}\r\n`);
        const fillers = [];

        /* Until somebody is turned away, or left waiting. */

        const fill = async () => {
            const alarms = () => nginx.lines('alert', 'crit').length;
            const before = alarms();

            for (let n = 0; n < 100; n++) {
                const filler = new Half(nginx, 'GET /plain HTTP/1.1\r\n');

                fillers.push(filler);

                await Promise.race([filler.closed, sleep(60)]);

                if (alarms() > before) {
                    return;
                }
            }

            throw new Error('there is always one left');
        };

        const asking = half('main', 'a');
        const other = half('name', 'b');

        await sleep(50);
        await fill();

        /* Whoever has begun with the next request is not idle. */

        for (const [client, user] of [[asking, 'a'], [other, 'b']]) {
            assertAnswer(await client.rest('\r\nGET /pl'), 503, user);
        }

        for (const client of [asking, other]) {
            assert.strictEqual(
                (await client.rest('ain HTTP/1.1\r\nHost: localhost\r\n'
                                   + '\r\n')).text,
                'plain');
        }

        assert.strictEqual(peer.requests.length, 0);
        assert.ok(nginx.log().includes(ours), nginx.log());

        fillers.forEach(({ socket }) => socket.destroy());
        fillers.length = 0;
        await sleep(what === 'files' ? 700 : 100);
        await assertSession(nginx, 'after');
        peer.drop();

        /* Some get one, and the others none. */

        await sleep(1100);

        const many = Array.from({ length: 12 },
                                (_, n) => [half('main', `late-${n}`),
                                           `late-${n}`]);

        await sleep(50);
        await fill();
        fillers.splice(0, 6).forEach(({ socket }) => socket.destroy());
        await sleep(what === 'files' ? 700 : 100);

        const answers = await Promise.all(many.map(async ([client, user]) => {
            const answer = await client.rest('\r\n');

            assertAnswer(answer, [200, 503], user);

            return answer.status;
        }));

        t.diagnostic(`of ${answers.length} sessions ${
            answers.filter((n) => n === 200).length} were issued`);
        assert.ok(answers.includes(200) && answers.includes(503),
                  answers.join());

        fillers.forEach(({ socket }) => socket.destroy());
        many.forEach(([{ socket }]) => socket.destroy());
        await sleep(what === 'files' ? 700 : 100);
        await assertSession(nginx, 'at-last');

        assert.strictEqual(await nginx.stop(), true);
        assertCalm(nginx, said);
    });
}


test('nothing is sent for which nobody waits', {}, async (t) => {
    const CLIENTS = 200;

    const peer = await peers.create(t, {
        silent: () => {},
        once: (socket, { user }) => setTimeout(
            () => socket.write(FRAMINGS.length(user)), 500),
    });

    /* TLS that takes its time. */

    const secure = await peers.create(t, {}, certificates(t).good);
    const slow = await listening(t, (socket) => {
        socket.pause();
        setTimeout(() => {
            between(socket, secure.port, (data) => socket.write(data));
            socket.resume();
        }, 500);
    });

    const nginx = await running(t, {
        main: `api http://127.0.0.1:${peer.port}; api_connections 8;
               api_timeout 1s;`,
        one: `api http://127.0.0.1:${peer.port}; api_connections 1;`,
        slow: `api https://127.0.0.1:${slow}; api_verify off;`,
    });

    /* The time of all runs out at once, and that of eight was used. */

    const clients = Array.from({ length: CLIENTS },
                               () => new Client(nginx.port));

    await Promise.all(clients.map((client) => client.request('GET', '/plain',
                                                             {})));

    nginx.kill(nginx.worker, 'SIGSTOP');

    const asked = clients.map((client, n) => client.request('POST',
        '/session/main', { 'X-User': `silent-${n}` }));

    await sleep(200);
    nginx.kill(nginx.worker, 'SIGCONT');

    (await Promise.all(asked)).forEach((answer, n) => {
        assertAnswer(answer, 504, `silent-${n}`);
    });

    await sleep(200);
    assert.strictEqual(peer.of('silent').length, 8);
    assert.ok(nginx.log().includes('all of them spent waiting for one of '
                                   + 'api_connections'));
    clients.forEach((client) => client.close());

    /* Those who wait for a turn leave. */

    const first = ask(nginx, 'once-0', 'one');

    await sleep(100);

    const leaving = Array.from({ length: 20 }, (_, n) => {
        const client = new Client(nginx.port);

        client.request('POST', '/session/one', { 'X-User': `once-${n + 1}` })
            .catch(() => {});

        return client;
    });

    const last = sleep(100).then(() => ask(nginx, 'once-last', 'one'));

    await sleep(200);
    leaving.forEach((client) => client.close());
    assertAnswer(await first, 200, 'once-0');
    assertAnswer(await last, 200, 'once-last');
    assert.deepStrictEqual(peer.of('once').map(({ user }) => user),
                           ['once-0', 'once-last']);

    /* One leaves while there is no connection yet. */

    const early = new Client(nginx.port);

    early.request('POST', '/session/slow', { 'X-User': 'early' })
        .catch(() => {});
    await sleep(150);
    early.close();
    await assertSession(nginx, 'patient', 'slow');
    await sleep(300);
    assert.deepStrictEqual(secure.requests.map(({ user }) => user),
                           ['patient']);

    assert.strictEqual(await nginx.stop(), true);
    assertCalm(nginx);
});


test('2,000 sessions while Nango hangs', {}, async (t) => {
    const SESSIONS = 2000;
    const WAITING = 1024;
    const CONNECTIONS = 32;
    const TIMEOUT = 4000;

    let hanging = false;

    const peer = await peers.create(t, {
        user(socket, { user }) {
            if (!hanging) {
                socket.write(FRAMINGS.length(user));
            }
        },
    });

    const nginx = await running(t, {
        main: `api http://127.0.0.1:${peer.port};
               api_timeout ${TIMEOUT}ms;
               webhook_signing_key data:${SIGNING_KEY};`,
    }, {
        connections: 4096,
        main: 'worker_rlimit_nofile 8192;',
        http: 'nango_store @STORE@;',
        server: `
            location = /webhook { nango_webhook main; }
            location = /connections {
                nango_owner       end_user_id 42;
                nango_connections main;
            }
        `,
    });

    const webhook = (n) => JSON.stringify({
        from: 'nango', type: 'auth', operation: 'creation', success: true,
        connectionId: `c-${n}-${hanging}`, providerConfigKey: 'github',
        provider: 'github', environment: 'prod', authMode: 'OAUTH2',
        tags: { end_user_id: `u-${n}` },
    });

    const others = () => {
        const probes = {
            plain: probe(nginx, 'GET', '/plain', {}, ''),
            webhooks: probe(nginx, 'POST', '/webhook', (text) => ({
                'Content-Type': 'application/json',
                'X-Nango-Hmac-Sha256': hmac(text, SIGNING_KEY),
            }), webhook),
            lists: probe(nginx, 'GET', '/connections', {}, ''),
        };

        return async () => Object.fromEntries(await Promise.all(
            Object.entries(probes).map(
                async ([name, stop]) => [name, await stop()])));
    };

    await until('the store', async () => (await once(nginx.port, 'GET',
        '/connections', {})).status === 200);
    await assertSession(nginx, 'user-first');

    const clients = Array.from({ length: SESSIONS },
                               () => new Client(nginx.port));

    await all(clients.map((client) => () => client.request('GET', '/plain',
                                                           {})), 100);

    const stopQuiet = others();

    await sleep(1500);

    const quiet = await stopQuiet();
    const before = status(nginx.worker, 'VmRSS');
    let peak = before;

    hanging = true;

    const stop = others();
    const watch = setInterval(() => {
        peak = Math.max(peak, status(nginx.worker, 'VmRSS'));
    }, 50).unref();

    const answers = await Promise.all(clients.map(async (client, n) => {
        const begun = Date.now();
        const answer = await client.request('POST', '/session/main',
                                            { 'X-User': `user-${n}` });

        assertAnswer(answer, [503, 504], `user-${n}`);

        return { status: answer.status, took: Date.now() - begun };
    }));

    const busy = await stop();

    clearInterval(watch);

    const timeouts = answers.filter((answer) => answer.status === 504);
    const refused = answers.length - timeouts.length;

    t.diagnostic(`${timeouts.length} timed out, ${refused} were refused; `
                 + `${((peak - before) / timeouts.length / 1024).toFixed(1)} `
                 + 'KB of memory for each that waited');

    assert.ok(timeouts.length >= CONNECTIONS + WAITING);
    assert.ok(refused > 0);
    assert.ok(peak - before < 64 * MB);
    assert.ok(nginx.log().includes('too many requests wait for it'));

    for (const { took } of timeouts) {
        assert.ok(took >= TIMEOUT - 1500 && took < TIMEOUT + 5000,
                  `504 after ${took} ms`);
    }

    for (const name of Object.keys(quiet)) {
        t.diagnostic(`${name}: 99th percentile ${busy[name].p99.toFixed(1)} `
                     + `ms, ${quiet[name].p99.toFixed(1)} ms when quiet: `
                     + `ratio ${(busy[name].p99 / quiet[name].p99)
                         .toFixed(1)}`);
        assert.ok(busy[name].p99 < 3000 + 3 * busy[name].lag,
                  `${name} waited ${busy[name].p99} ms`);
    }

    /* Nango is back, which one request finds; nothing old is sent to it. */

    /* What was sent in time may not have been read yet: by us, that is. */

    let sent = -1;

    while (sent !== peer.requests.length) {
        sent = peer.requests.length;
        await sleep(500);
    }

    hanging = false;

    assert.ok(sent <= 1 + timeouts.length);

    await assertBack(nginx, 'user-back-first', 'main');

    sent = peer.requests.length;

    await all(clients.slice(0, 200).map((client, n) => async () => {
        assertAnswer(await client.request('POST', '/session/main',
            { 'X-User': `user-back-${n}` }), 200, `user-back-${n}`);
    }), 50);

    assert.ok(peer.requests.slice(sent).every(
        ({ user }) => user.startsWith('user-back-')));
    assert.strictEqual(peer.requests.length, sent + 200);

    clients.forEach((client) => client.close());
    assert.strictEqual(await nginx.stop(), true);
    assertCalm(nginx);
});


test('workers end while sessions are under way', {}, async (t) => {
    const peer = await peers.create(t, {
        silent: () => {},
        late: (socket, { user }) => setTimeout(
            () => socket.write(FRAMINGS.length(user)), 800),
    });
    const environments = {
        main: `api http://127.0.0.1:${peer.port}; api_timeout 2s;`,
        one: `api http://127.0.0.1:${peer.port}; api_timeout 2s;
              api_connections 1;`,
    };

    const under = async (name) => {
        await until(`${name} to be asked for`,
                    () => peer.of(name).length > 0);
    };

    /* Gracefully: what is under way is answered, what waits as well. */

    let nginx = await running(t, environments, { level: 'debug' });
    const late = ['late-a', 'late-b'].map((user) => ask(nginx, user, 'one'));

    await under('late-a');

    const left = new Client(nginx.port);

    left.request('POST', '/session/main', { 'X-User': 'silent-left' })
        .catch(() => {});
    await under('silent-left');
    left.close();

    const stopped = nginx.stop(10000);

    assertAnswer(await late[0], 200, 'late-a');
    assertAnswer(await late[1], 200, 'late-b');
    assert.strictEqual(await stopped, true);
    assertCalm(nginx);

    /* At once: nobody is waited for. */

    nginx = await running(t, {
        one: environments.one.replace('2s', '30s'),
    });

    const cut = ['silent-c', 'silent-d', 'silent-e'].map(
        (user) => assert.rejects(ask(nginx, user, 'one')));

    await under('silent-c');

    const begun = Date.now();

    nginx.kill(nginx.master, 'SIGTERM');
    await Promise.all(cut);
    await until('nginx to end', () => nginx.workers().length === 0);
    assert.ok(Date.now() - begun < 20000, 'a session was waited for');
    assertCalm(nginx);

    /* A reload: the old worker goes when its sessions are over. */

    nginx = await running(t, environments);

    const old = nginx.worker;
    const timed = ask(nginx, 'silent-f');
    const done = ask(nginx, 'late-f');

    await under('silent-f');
    await under('late-f');
    nginx.kill(nginx.master, 'SIGHUP');
    await until('another worker',
                () => nginx.workers().some((pid) => pid !== old));
    await assertSession(nginx, 'meanwhile');
    assertAnswer(await done, 200, 'late-f');
    assertAnswer(await timed, 504, 'silent-f');
    await until('the old worker to end', () => !nginx.alive(old));
    assert.strictEqual(await nginx.stop(), true);
    assertCalm(nginx);
});


/* Only those whose clients have left are under way. */

test('who waits for a connection keeps a worker that exits', {}, async (t) => {
    const peer = await peers.create(t, { silent() {} });
    const nginx = await running(t, { main: `
        api             http://127.0.0.1:${peer.port};
        api_connections 1;
        api_timeout     3s;
    ` });
    const old = nginx.worker;
    const left = new Client(nginx.port);

    left.request('POST', '/session/main', { 'X-User': 'silent-left' })
        .catch(() => {});
    await until('the one to be asked for', () => peer.requests.length === 1);
    left.close();
    await until('it to be known', () => /client prematurely closed/.test(
        nginx.log()));

    const waits = ask(nginx, 'silent-waits');

    await sleep(200);
    nginx.kill(nginx.master, 'SIGHUP');
    await until('another worker',
                () => nginx.workers().some((pid) => pid !== old));

    assertAnswer(await waits, 504, 'silent-waits');
    await until('the old worker to end', () => !nginx.alive(old));
    assertCalm(nginx);
});


/* The one request that is to see whether Nango is back. */

test('who looks and ends with its worker keeps nobody away', {}, async (t) => {
    const answers = { silent() {} };
    const gone = await peers.create(t, answers);
    const { port } = gone;

    await gone.close();

    const nginx = await running(t, { main: `
        api         http://127.0.0.1:${port};
        api_timeout 1h;
    ` });
    const old = nginx.worker;

    await until('Nango to be left alone', async () => {
        assertAnswer(await ask(nginx, 'early'), 503, 'early');

        return /environment "main" does not answer/.test(nginx.log());
    });

    const peer = await peers.create(t, answers, undefined, port);
    const looks = new Client(nginx.port);

    await until('one to look', () => {
        if (!looks.pending) {
            looks.request('POST', '/session/main', { 'X-User': 'silent-one' })
                .catch(() => {});
        }

        return peer.requests.length === 1;
    });

    looks.close();
    nginx.kill(nginx.master, 'SIGHUP');
    await until('the old worker to end', () => !nginx.alive(old));

    await until('a session', async () =>
        (await ask(nginx, 'late')).status === 200);
    assertCalm(nginx);
});


/* A connection alone says nothing: a process that hangs has one made, too. */

test('who leaves before anything is sent has seen nobody', {}, async (t) => {
    const peer = await peers.create(t, { silent() {} });
    const slow = `slow-${await full(t)}.test`;
    const nginx = await running(t, { main: `
        api         http://${slow}:${peer.port};
        api_timeout 500ms;
    ` }, { env: {
        LD_PRELOAD: compile(t, 'resolve.c', '-shared', '-fPIC', '-ldl'),
    } });

    await Promise.all(Array.from({ length: 5 }, async (_, n) => {
        assertAnswer(await ask(nginx, `silent-${n}`), 504, n);
    }));
    await until('Nango to be left alone',
                () => nginx.log().includes('"main" does not answer'));

    /* Those that are let through to see leave while they are connecting. */

    await until('one to connect, and no more', async () => {
        const looks = new Client(nginx.port);
        const { connections, requests: { length } } = peer;

        looks.request('POST', '/session/main', { 'X-User': 'silent-one' })
            .catch(() => {});
        await sleep(30);
        looks.close();
        await sleep(300);

        return peer.connections > connections
               && peer.requests.length === length;
    });

    assert.ok(!nginx.log().includes('answers again'));
    assertCalm(nginx);
});
