/*
 * Events and counts over HTTP/2, whose streams end at every stage: one by one,
 * with their connection, or before they have begun.  The others of the same
 * connection get what is theirs, and nothing is left behind.  And clients of
 * HTTP/1 that leave while no thread has begun with what they ask for.
 */

'use strict';

const assert = require('node:assert');
const { execFileSync } = require('node:child_process');
const fs = require('node:fs');
const http2 = require('node:http2');
const net = require('node:net');
const path = require('node:path');
const nodeTest = require('node:test');

const { MEMORY, active, anonymous, answering, assertClosed, calm, creation,
        descriptors, hold, pools, resting, running, settings, signed }
    = require('./edge');
const { NEEDS, asked, connect, goaway, half, hello, reset, speaking, stream }
    = require('./h2');
const { compile } = require('./model');
const { sleep, until } = require('./nginx');
const { Wire, get, once, post } = require('./wire');

const LONG = Boolean(process.env.NANGO_LONG);

const ROUNDS = LONG ? 400 : 40;
const MEMORY_BOUND = 512 * 1024;

/* Octets of a stream that nobody reads; node takes 16 KB all the same. */
const NARROW = { settings: { initialWindowSize: 500 } };

const USER = { 'x-user': '42' };
const EVENTS = { accept: 'text/event-stream' };
const JSON_TYPE = { 'content-type': 'application/json' };
const ACT = '{"action":"resume","environment":"prod","subscriber":"away"}';
const LARGE = 61;


/* None may hang: what waits for ever is a failure. */
function test(name, options, fn) {
    return nodeTest(name, { timeout: LONG ? 600000 : 90000, ...options }, fn);
}


/*
 * One thread, so that tasks can be made to wait; so many subscribers that no
 * count is in one frame, and nothing on its way to any of them.
 */
function options() {
    const many = Array.from({ length: 80 }, (_, i) => `
    nango_environment e-${i} {
        webhook_signing_key data:key;
        deliver app http://127.0.0.1:1/ types=async_action;
    }`).join('');
    const all = settings(0, { server: `
        location = /events {
            nango_owner  end_user_id $http_x_user;
            nango_expose connection_id tags;
            nango_events prod;
        }
        location = /all {
            allow 127.0.0.1;
            nango_events prod all;
        }
        location = /state  { nango_status; }
        location = /manage { nango_status manage; }` });

    all.http = all.http.replace('nango_environment prod {',
        '$& deliver away http://127.0.0.1:1/ types=async_action;') + many;
    all.main += ' thread_pool default threads=1;';
    all.workers = 1;

    return all;
}


/* And with nginx's debug log. */
function logging() {
    const all = options();

    all.main += ' error_log @DIR@/debug.log debug;';

    return all;
}


/* Of 42, the last one of them as a file; the sequence of the last. */
async function filled(nginx) {
    for (let i = 1; i <= LARGE; i++) {
        await sent(nginx, i === LARGE ? 2 * MEMORY : 300);
    }

    await until('the events', async () => (await once(nginx.port,
        get(`/all?after=${LARGE - 1}`))).json.events.length === 1);

    return LARGE;
}


let number = 0;

async function sent(nginx, size) {
    const body = creation(`c-${number++}`, size);
    const { status, json } = await once(nginx.port,
                                        post('/webhook', signed(body), body));

    assert.strictEqual(status, 200);

    return json.sequence;
}


/* Places of readers in the log and in the state. */
function readers(t, nginx) {
    const { log, state } = JSON.parse(execFileSync(
        compile(t, 'readers.c', '-llmdb'), [nginx.store]));

    return [log, state];
}


/*
 * Once nobody is there: what nginx has now, with a log that tells of pools.
 * The function that is returned says whether it has that again.
 */
async function remember(t, nginx) {
    const log = path.join(nginx.dir, 'debug.log');
    const workers = nginx.workers();

    await until('nobody', async () => await active(nginx) === 0);

    const from = fs.statSync(log).size;
    const files = await resting(nginx);
    const places = readers(t, nginx);

    return async () => {
        await assertClosed(nginx, files);
        await until('readers to be gone', () => String(readers(t, nginx))
                                                === String(places));

        const left = pools(nginx, from);

        t.diagnostic(left ? `${left.length} blocks of pools are left`
                          : 'skipped for pools: this nginx has no debug log');
        assert.deepStrictEqual(left || [], []);
        calm(nginx, workers);
        assert.ok(await nginx.stop(), 'nginx does not end');
        calm(nginx);
    };
}


/* Requests, of a client that knows the last event. */
function asks(url, headers) {
    return (client, last) => stream(client, 'GET', url.replace('LAST', last),
                                    { ...USER, ...headers });
}


function acts(body, whole) {
    return (client) => {
        const one = stream(client, 'POST', '/manage', JSON_TYPE);

        one.write(body);

        return whole ? one.end() : one;
    };
}


/* What those get who stay. */
async function isAnswered(one) {
    const { status, code, text } = await one.done;

    assert.deepStrictEqual([status, code], [200, 0]);
    assert.ok(text.length > 500);
}


async function isDone(one) {
    assert.strictEqual((await one.done).json.success, true);
}


async function hasPage(one, last) {
    const { status, json } = await one.done;

    assert.strictEqual(status, 200);
    assert.strictEqual(json.events.at(-1).sequence, last);
    assert.strictEqual(json.next, last);
}


async function hasEvent(one, last) {
    await until('the event', () =>
        new RegExp(`^id: \\w+:${last}$`, 'm').test(one.so()));
}


async function hasBody(one) {
    const { status, text } = await one.done;

    assert.strictEqual(status, 200);
    assert.strictEqual(text.length, 2 * MEMORY);
    assert.ok(JSON.parse(text).padding);
}


/*
 * When a stream ends: what it has asked for by then, and what becomes of the
 * others.  busy: the only thread is, so that nobody has begun; event: there is
 * one afterwards; narrow: there is no room for the answer.
 */
const STAGES = {
    'while its page waits': {
        send: asks('/events?after=LAST&wait=50'), event: true, good: hasPage,
    },
    'while its page of all waits': {
        send: asks('/all?after=LAST&wait=50'), event: true, good: hasPage,
    },
    'before its page is read': {
        send: asks('/events?after=0'), busy: true, good: hasPage,
    },
    'before it is known that its page waits': {
        send: asks('/all?after=LAST&wait=50'), busy: true, event: true,
        good: hasPage,
    },
    'in a page': {
        send: asks('/all?after=0'), narrow: true, good: hasPage,
    },
    'while its events are to come': {
        send: asks('/events', EVENTS), event: true, good: hasEvent,
    },
    'before its events are read': {
        send: asks('/all?after=0', EVENTS), busy: true, event: true,
        good: hasEvent,
    },
    'in its events': {
        send: asks('/events?after=0', EVENTS), narrow: true, event: true,
        good: hasEvent,
    },
    'before its body is opened': {
        send: asks(`/all?body=${LARGE}`), busy: true, good: hasBody,
    },
    'in a body': {
        send: asks(`/all?body=${LARGE}`), narrow: true, good: hasBody,
    },
    'in counts': {
        send: asks('/state'), narrow: true, good: isAnswered,
    },
    'in counts for Prometheus': {
        send: asks('/state?format=prometheus'), narrow: true,
        good: isAnswered,
    },
    'in the page of operators': {
        send: asks('/manage?format=html'), narrow: true, good: isAnswered,
    },
    'in what an operator wants': {
        send: acts(ACT.slice(0, 9), false), rest: ACT.slice(9), good: isDone,
    },
    'before what an operator wants is done': {
        send: acts(ACT, true), busy: true, good: isDone,
    },
};


/* The only thread waits for the state's lock, until it is released. */
async function occupy(t, nginx) {
    const release = await hold(t, nginx, 'state');
    const wire = new Wire(nginx.port);

    await wire.write(post('/manage', JSON_TYPE, ACT));
    await answering(nginx, 1);

    return async () => {
        await release();
        assert.strictEqual((await wire.answer()).status, 200);
        wire.close();
    };
}


test('HTTP/2: streams of events and counts that end at every stage', NEEDS,
     async (t) =>
{
    const nginx = await speaking(t, logging());
    let last = await filled(nginx);
    const assertNothingLeft = await remember(t, nginx);

    for (const [what, stage] of Object.entries(STAGES)) {
        for (const url of nginx.urls) {
            const release = stage.busy ? await occupy(t, nginx) : undefined;
            const clients = Array.from({ length: 4 }, () => connect(t, url,
                stage.narrow ? NARROW : {}));
            const begin = (client, n) => Array.from({ length: n }, () => {
                const one = stage.send(client, last);

                if (stage.narrow) {
                    one.pause();
                }

                return one;
            });
            const [resets, leaves, ends, breaks] = clients;
            const ones = begin(resets, 6);
            const stay = [...ones.slice(3), ...begin(leaves, 2)];
            const gone = [...begin(ends, 2), ...begin(breaks, 2)];
            const others = release ? 1 : 0;

            await answering(nginx, 12 + others, what);

            ones.slice(0, 3).forEach((one) => one.close(
                http2.constants.NGHTTP2_CANCEL));
            leaves.goaway();
            ends.destroy();
            breaks.cut();

            /* Who waits for a thread does so after he has left. */

            await (stage.busy ? sleep(50) : answering(nginx, 5, what));

            assert.strictEqual((await stream(resets, 'GET', '/plain').done)
                .text, 'plain\n', what);

            if (release) {
                await release();
            }

            if (stage.rest) {
                stay.forEach((one) => one.end(stage.rest));
            }

            if (stage.event) {
                last = await sent(nginx);
            }

            for (const one of stay) {
                one.resume();
                await stage.good(one, last);
            }

            await Promise.all(gone.map((one) => one.done));

            clients.forEach((client) => client.destroy());
            await until(`${what}: its connections to be closed`,
                        async () => await active(nginx) === 0);
        }
    }

    await assertNothingLeft();
});


/* Frame by frame: bytes are sent at once, and read until there is "plain". */
async function spoken(url, bytes) {
    const socket = net.connect(new URL(url).port, '127.0.0.1');
    const seen = [];

    socket.on('error', () => {});
    socket.on('data', (data) => seen.push(data));
    socket.write(bytes);

    return {
        socket,
        plain: () => until('an answer', () =>
            Buffer.concat(seen).includes('plain\n')),
    };
}


/* Of a client that knows the last event. */
const ENDPOINTS = (last) => [
    [`/events?after=${last}&wait=50`, USER],
    ['/events?after=0', USER],
    ['/events', { ...USER, ...EVENTS }],
    ['/all?after=0', EVENTS],
    [`/all?body=${LARGE}`, {}],
    ['/state', {}],
    ['/state?format=prometheus', {}],
    ['/manage?format=html', {}],
    ['/manage?waiting=away', {}],
];


test('HTTP/2: streams that end before they have begun', NEEDS, async (t) => {
    const nginx = await speaking(t, logging());
    const last = await filled(nginx);
    const assertNothingLeft = await remember(t, nginx);
    const [url] = nginx.urls;
    const idle = (id) => asked(id, 'GET', `/events?after=${last}&wait=50`,
                               USER);
    const plain = (id) => asked(id, 'GET', '/plain', {});

    for (const [target, headers] of ENDPOINTS(last)) {

        /* Before its headers are complete, beside one that waits. */

        for (const [how, more] of [
            ['FIN', []], ['RST', []], ['reset', [reset(5)]],
            ['GOAWAY', [goaway()]],
        ]) {
            const { socket, plain: seen } = await spoken(url, Buffer.concat([
                hello(), idle(1), plain(3)]));

            await seen();
            socket.write(Buffer.concat([half(5, 'GET', target, headers),
                                        ...more]));

            /* Nothing but the rest of them may follow: nginx goes. */

            if (more.length) {
                await new Promise((resolve) => {
                    socket.once('close', resolve);
                });

            } else if (how === 'RST') {
                socket.resetAndDestroy();

            } else {
                socket.destroy();
            }

            await until(`${target}, ${how}`,
                        async () => await active(nginx) === 0);
        }

        /* With its headers; one of them is another, and stays. */

        const frames = Array.from({ length: 60 }, (_, i) => [
            asked(2 * i + 1, 'GET', target, headers),
            reset(2 * i + 1),
        ]).flat();
        const { socket, plain: seen } = await spoken(url, Buffer.concat([
            hello(), ...frames.slice(0, 60), plain(61), ...frames.slice(62),
        ]));

        await seen();
        socket.destroy();
        await until(target, async () => await active(nginx) === 0);

        /* And all of them with their connection. */

        const { socket: other } = await spoken(url, Buffer.concat([
            hello(), ...frames.filter((_, i) => i % 2 === 0), goaway()]));

        other.end();
        await until(`${target}, GOAWAY`,
                    async () => await active(nginx) === 0);
    }

    await assertNothingLeft();
});


test('HTTP/2: thousands of streams that end cost nothing', NEEDS,
     async (t) =>
{
    const nginx = await speaking(t, options());
    const workers = nginx.workers();
    const last = await filled(nginx);
    const samples = [];

    for (let i = 0; i < ROUNDS; i++) {
        const client = connect(t, nginx.urls[0], i % 2 ? NARROW : {});
        const ones = Array.from({ length: 6 }, () => ENDPOINTS(last)).flat()
            .map(([url, headers]) => stream(client, 'GET', url, headers));

        /* Some before, some while and some after they are answered. */

        await (i % 4 < 2 ? stream(client, 'GET', '/plain').done : sleep(i % 8));

        ones.filter((_, n) => n % 3 === 0).forEach((one) => one.close(
            http2.constants.NGHTTP2_CANCEL));
        await stream(client, 'GET', '/plain').done;
        client.destroy();
        await until('nobody', async () => await active(nginx) === 0);

        samples.push({ memory: anonymous(workers[0]),
                       files: descriptors(nginx), places: readers(t, nginx) });
    }

    /*
     * The first half is for what grows to its size and stays there.  Now and
     * then libc gives a megabyte back for a while.
     */

    const middle = (name, from, to) => samples
        .slice(from * ROUNDS, to * ROUNDS).map((one) => one[name])
        .sort((a, b) => a - b)[ROUNDS / 8];
    const growth = (name) => middle(name, 0.75, 1) - middle(name, 0.25, 0.5);
    const more = growth('memory');

    t.diagnostic(`${ROUNDS} times 54 streams: ${samples.map(({ memory }) =>
        memory >> 10).filter((_, i) => i % (ROUNDS / 8) === 0).join(' ')
        } KB, ${more >> 10} KB more`);
    assert.ok(more < MEMORY_BOUND, `${more} bytes`);
    assert.ok(growth('files') < 1, `${growth('files')} descriptors`);
    assert.deepStrictEqual(samples.at(-1).places,
                           samples[ROUNDS / 4].places);
    calm(nginx, workers);
});


test('HTTP/2: a reload lets streams come to their end', NEEDS, async (t) => {
    const nginx = await speaking(t, options());
    const [old] = nginx.workers();
    const last = await filled(nginx);
    const begun = Object.values(STAGES).filter(({ busy }) => !busy)
        .map((stage, i) => {
            const client = connect(t, nginx.urls[i % 2],
                                   stage.narrow ? NARROW : {});
            const one = stage.send(client, last);

            if (stage.narrow) {
                one.pause();
            }

            return { stage, one };
        });

    await answering(nginx, begun.length);
    nginx.kill(nginx.master, 'SIGHUP');
    await until('another worker',
                () => nginx.workers().some((pid) => pid !== old));

    for (const { stage, one } of begun) {
        one.resume();

        if (stage.rest) {
            one.end(stage.rest);
        }

        if (!stage.event) {
            await stage.good(one, last);
            continue;
        }

        /* Nothing has come for it, or not all of it: it is to come again. */

        const { status, code, text } = await one.done;

        assert.deepStrictEqual([status, code], [200, 0]);
        assert.match(text, /^\{"events":\[\],|\n\n$/);
    }

    await until('the old worker to go', () => !nginx.alive(old));
    calm(nginx);
    assert.ok(await nginx.stop(), 'nginx does not end');
    calm(nginx);
});


/* The same over HTTP/1. */
test('clients that leave before a thread has begun', {}, async (t) => {
    const nginx = await running(t, logging());
    const last = await filled(nginx);
    const assertNothingLeft = await remember(t, nginx);

    for (const bytes of [
        get('/events?after=0', USER),
        get(`/events?after=${last}&wait=50`, USER),
        get('/all?after=0', EVENTS),
        get('/events?after=0', { ...USER, ...EVENTS }),
        get(`/all?body=${LARGE}`),
        post('/manage', JSON_TYPE, ACT),
    ]) {
        const release = await occupy(t, nginx);
        const wires = Array.from({ length: 4 }, () => new Wire(nginx.port));
        const stays = new Wire(nginx.port);

        await Promise.all(wires.map((wire) => wire.write(bytes)));
        await stays.write(get('/all?after=0'));
        await answering(nginx, 6);

        wires.forEach((wire, i) => wire.close(i % 2 === 0));
        await sleep(50);
        await release();

        assert.strictEqual((await stays.answer()).json.next, last);
        stays.close();
        await until('nobody', async () => await active(nginx) === 0);
    }

    await assertNothingLeft();
});
