/*
 * Events on two workers: pages that wait, event streams that are cut, slow or
 * many, and random owners against a plain model.
 */

'use strict';

const assert = require('node:assert');
const { execFileSync } = require('node:child_process');
const http = require('node:http');
const http2 = require('node:http2');
const nodeTest = require('node:test');

const { Client, hmac, ofWorkers, once } = require('./client');
const { startOnClock, SECOND } = require('./clock');
const { anonymous, hold, pipe } = require('./edge');
const { Follower } = require('./follow');
const { compile } = require('./model');
const { random } = require('./load');
const { create, freePort, sleep, until } = require('./nginx');

const KEY = 'signing-key-of-prod';

const HTTP = `
    keepalive_requests 1000000;
    nango_store @STORE@;
    nango_environment prod {
        webhook_signing_key data:${KEY};
    }
`;

const SERVER = `
    location = /webhook { nango_webhook; }
    location = /worker  { return 200 $pid; }
    location = /counts  { stub_status; }
    location = /events {
        nango_owner  end_user_id $http_x_user;
        nango_expose connection_id tags;
        nango_events;
    }
    location = /both {
        nango_owner organization_id $http_x_org;
        nango_owner end_user_id     $http_x_user;
        nango_events;
    }
    location = /all {
        allow 127.0.0.1;
        nango_events all;
    }
`;


/* None may hang: what waits for ever is a failure. */
function test(name, fn, ms) {
    return nodeTest(name, { timeout: ms || 60000 }, fn);
}


let made = 0;


/* None is a duplicate of another. */
function auth(connection, tags, operation) {
    return JSON.stringify({
        connectionId: connection, from: 'nango', made: made++,
        operation: operation || 'creation', provider: 'github',
        providerConfigKey: 'github', success: true, tags, type: 'auth',
    });
}


function forward(connection, number, pad) {
    return JSON.stringify({
        connectionId: connection, from: 'github', number, pad,
        providerConfigKey: 'github', payload: { number }, type: 'forward',
    });
}


async function running(t, options) {
    const nginx = await create(t, { http: HTTP, server: SERVER,
                                    connections: 2048, ...options });

    await nginx.start();
    await until('two workers', () => nginx.workers().length >= 2);

    return nginx;
}


async function reload(nginx) {
    const before = new Set(nginx.workers());

    nginx.kill(nginx.master, 'SIGHUP');

    await until('other workers', () =>
        nginx.workers().filter((pid) => !before.has(pid)).length >= 2);
}


async function webhook(nginx, body, client) {
    const headers = { 'Content-Type': 'application/json',
                      'X-Nango-Hmac-Sha256': hmac(body, KEY) };
    const answer = await (client
        ? client.request('POST', '/webhook', headers, body)
        : once(nginx.port, 'POST', '/webhook', headers, body));

    assert.strictEqual(answer.status, 200, answer.text);

    return answer.json.sequence;
}


function get(nginx, url, headers) {
    return once(nginx.port, 'GET', url, headers || {});
}


function follow(t, nginx, url, headers) {
    const follower = new Follower(nginx.port, url, headers);

    t.after(() => follower.close());

    return follower;
}


/* A stream that has begun: what comes from now on is its. */
async function begun(t, nginx, url, headers) {
    const follower = follow(t, nginx, url, headers);

    await until('the stream to begin', () => follower.id !== undefined);

    return follower;
}


/* A number that stub_status says. */
async function counted(nginx, what) {
    const { text } = await get(nginx, '/counts');

    return Number(new RegExp(`${what}: (\\d+)`).exec(text)[1]);
}


/* A request in progress: {done, answer} */
function poll(nginx, url, headers) {
    const one = { done: false };

    one.answer = get(nginx, url, headers).finally(() => { one.done = true; });
    one.answer.catch(() => {});

    return one;
}


function memory(nginx) {
    return nginx.workers().map(anonymous).reduce((a, b) => a + b, 0);
}


function numbers(from, to) {
    return Array.from({ length: to - from + 1 }, (_, i) => from + i);
}


function user(n) {
    return { 'X-User': `u${n}` };
}


test('a page waits for an event of its caller', async (t) => {
    const nginx = await running(t);

    await webhook(nginx, auth('c1', { end_user_id: 'u1' }));
    await webhook(nginx, auth('c2', { end_user_id: 'u2' }));

    const mine = poll(nginx, '/events?after=2&wait=50', user(1));
    const typed = poll(nginx, '/events?after=2&wait=50&type=sync', user(1));
    const other = poll(nginx, '/events?after=2&wait=50', user(3));
    const all = poll(nginx, '/all?after=2&wait=50&type=forward');

    await sleep(100);
    await webhook(nginx, auth('c2', { end_user_id: 'u2' }, 'override'));
    assert.deepStrictEqual([mine, typed, other, all].map((one) => one.done),
                           [false, false, false, false]);

    await webhook(nginx, forward('c1', 1));

    const page = (await mine.answer).json;

    assert.deepStrictEqual(page.events.map((event) => event.sequence), [4]);
    assert.strictEqual(page.next, 4);
    assert.strictEqual((await all.answer).json.events[0].sequence, 4);

    await sleep(100);
    assert.deepStrictEqual([typed.done, other.done], [false, false]);

    /* One that waits answers what it has when its worker goes. */
    await reload(nginx);

    for (const one of [typed, other]) {
        const answer = await one.answer;

        assert.strictEqual(answer.status, 200);
        assert.deepStrictEqual(answer.json.events, []);
        assert.strictEqual(answer.json.next, 4);
    }
});


test('a wait ends after its time, with what is known by then', async (t) => {
    const nginx = await create(t, { http: HTTP, server: SERVER, workers: 1 });
    const clock = await startOnClock(t, nginx);

    await webhook(nginx, auth('c1', { end_user_id: 'u1' }));

    const one = poll(nginx, '/events?wait=50', user(2));
    const all = await begun(t, nginx, '/all');

    await webhook(nginx, auth('c1', { end_user_id: 'u1' }, 'override'));
    await until('the event', () => all.events.length === 1);
    clock.forward(51 * SECOND);

    const page = (await one.answer).json;

    assert.deepStrictEqual(page.events, []);
    assert.strictEqual(page.next, 2);
});


test('a page after what is not in the state yet is no other log\'s',
     async (t) => {
    const nginx = await running(t);

    await until('the store', async () =>
        (await get(nginx, '/all')).status === 200);

    const release = await hold(t, nginx, 'state');

    await webhook(nginx, auth('c1', { end_user_id: 'u1' }));

    const { status, json } = await get(nginx, '/all?after=1');

    assert.strictEqual(status, 200);
    assert.deepStrictEqual([json.events, json.next], [[], 1]);
    await release();
});


test('a stream has what comes after its beginning, whole and in order',
     async (t) => {
    const nginx = await running(t, { http: `gzip on; gzip_types *;
                                            gzip_min_length 1; ${HTTP}` });

    await webhook(nginx, auth('c1', { end_user_id: 'u1',
                                      organization_id: 'o' }));

    const mine = await begun(t, nginx, '/events',
                             { ...user(1), 'Accept-Encoding': 'gzip' });
    const hidden = await begun(t, nginx, '/both', { ...user(1),
                                                    'X-Org': 'o' });
    const sync = await begun(t, nginx, '/events?type=sync', user(1));
    const other = await begun(t, nginx, '/events', user(2));
    const all = await begun(t, nginx, '/all');

    const log = (await get(nginx, '/all')).json.log;

    assert.strictEqual(mine.id, `${log}:1`);
    assert.ok(mine.retry >= 1000 && mine.retry < 3000);
    assert.strictEqual(mine.fields['content-type'],
                       'text/event-stream; charset=utf-8');
    assert.strictEqual(mine.fields['cache-control'], 'no-store');
    assert.strictEqual(mine.fields['x-accel-buffering'], 'no');
    assert.strictEqual(mine.fields['content-encoding'], undefined);

    /* Line ends between tokens, of all kinds. */
    const body = `{\n  "connectionId": "c1",\r\n  "providerConfigKey":\r`
        + '"github", "type": "sync", "tags": [\n1\n]\n}';

    await webhook(nginx, body);
    await webhook(nginx, 'null');
    await webhook(nginx, forward('c1', 4));
    await until('events', () => all.events.length === 3
                && mine.events.length === 2 && sync.events.length
                && hidden.events.length === 2);

    const page = (await get(nginx, '/events?after=1', user(1))).json;

    assert.deepStrictEqual(mine.events[0], {
        id: `${log}:2`, event: 'sync', data: page.events[0],
    });
    assert.strictEqual(page.events[0].connection_id, 'c1');
    assert.deepStrictEqual(page.events[0].body, JSON.parse(body));
    assert.deepStrictEqual(mine.sequences(), [2, 4]);
    assert.deepStrictEqual(sync.sequences(), [2]);
    assert.deepStrictEqual(all.sequences(), [2, 3, 4]);
    assert.deepStrictEqual(all.events.map((one) => one.event),
                           ['sync', 'other', 'forward']);
    assert.deepStrictEqual(all.events.slice(0, 2).map(
        (one) => one.data.owner),
    [{ end_user_id: 'u1', organization_id: 'o' }, {}]);

    const seen = hidden.events[0].data;

    assert.strictEqual(seen.connection_id, undefined);
    assert.deepStrictEqual(seen.body, { providerConfigKey: 'github',
                                        type: 'sync' });
    assert.deepStrictEqual(seen.owner, { organization_id: 'o',
                                         end_user_id: 'u1' });
    assert.deepStrictEqual(other.events, []);
});


/* One worker, so that both look at the same events as they come. */

test('streams of two environments, and the same owner in both', async (t) => {
    const names = ['prod', 'twin'];
    const nginx = await create(t, {
        workers: 1,
        http: 'nango_store @STORE@;' + names.map((name) => `
    nango_environment ${name} { webhook_signing_key data:${KEY}; }`).join(''),
        server: names.map((name) => `
    location = /${name}/webhook { nango_webhook ${name}; }
    location = /${name}/events {
        nango_owner  end_user_id $http_x_user;
        nango_events ${name};
    }
    location = /${name}/all {
        allow 127.0.0.1;
        nango_events ${name} all;
    }`).join(''),
    });
    const send = async (name) => {
        const body = auth('c1', { end_user_id: 'u1' }, 'override');
        const { status, json } = await once(nginx.port, 'POST',
            `/${name}/webhook`, { 'Content-Type': 'application/json',
                                  'X-Nango-Hmac-Sha256': hmac(body, KEY) },
            body);

        assert.strictEqual(status, 200);

        return json.sequence;
    };

    await nginx.start();

    const streams = [];

    for (const name of names) {
        streams.push(await begun(t, nginx, `/${name}/events`, user(1)),
                     await begun(t, nginx, `/${name}/all`));
    }

    /* Many at once, so that there is more than one to look at. */

    const sent = await Promise.all(Array.from({ length: 200 }, (_, i) =>
        send(names[i % 2])));

    await until('all of it', () => streams.every(
        (stream) => stream.events.length >= 100));

    streams.forEach(({ events }, i) => assert.deepStrictEqual(
        events.map(({ data }) => data.sequence),
        sent.filter((_, k) => k % 2 === i >> 1).sort((x, y) => x - y)));
});


/* Who is cut off there has seen nothing yet. */

test('a stream begins with where it was told to', async (t) => {
    const nginx = await running(t);

    for (let i = 0; i < 3; i++) {
        await webhook(nginx, auth(`c${i}`, { end_user_id: 'u1' }));
    }

    await get(nginx, '/events', user(1));

    const text = await new Promise((resolve, reject) => {
        let seen = '';
        const request = http.get({ host: '127.0.0.1', port: nginx.port,
            path: '/events?after=1', agent: false,
            headers: { Accept: 'text/event-stream', ...user(1) } }, (res) => {
            res.setEncoding('utf8');
            res.on('error', () => {});
            res.on('data', (data) => {
                seen += data;

                if (seen.includes('\n\n')) {
                    request.destroy();
                    resolve(seen);
                }
            });
        });

        request.on('error', reject);
    });

    assert.match(text, /^id: [0-9a-f]{32}:1\nretry: \d+\n\n/);
});


test('who comes again with an id misses nothing, whatever it has seen',
     async (t) => {
    const nginx = await running(t);

    await webhook(nginx, auth('c1', { end_user_id: 'u1' }));

    const one = await begun(t, nginx, '/events', user(1));

    one.close();

    await webhook(nginx, forward('c1', 2));
    await webhook(nginx, forward('c2', 3));
    await webhook(nginx, forward('c1', 4));

    for (const id of [one.id, '1', one.id.replace(/:.*/, ':1')]) {
        const two = follow(t, nginx, '/events',
                           { ...user(1), 'Last-Event-ID': id });

        await until('two events', () => two.events.length === 2);
        assert.deepStrictEqual(two.sequences(), [2, 4]);
        two.close();
    }

    /* It counts more than what the address says. */
    const three = follow(t, nginx, '/events?after=0',
                         { ...user(1), 'Last-Event-ID': '3' });

    await until('an event', () => three.events.length === 1);
    assert.deepStrictEqual(three.sequences(), [4]);
});


test('an owner that changes', async (t) => {
    const nginx = await running(t);

    const one = await begun(t, nginx, '/events', user(1));
    const two = await begun(t, nginx, '/events', user(2));
    const all = await begun(t, nginx, '/all');

    /* Each is seen before the next comes: whose it is follows from the time. */
    const steps = [
        [auth('c', { end_user_id: 'u1' }), 1],
        [forward('c', 2), 1],
        [auth('c', { end_user_id: 'u2' }, 'override'), 2],
        [forward('c', 4), 2],
        [auth('c', {}, 'deletion'), 2],
        [forward('c', 6), 2],
    ];

    for (const [i, [body]] of steps.entries()) {
        await webhook(nginx, body);
        await until('an event', () => all.events.length > i);
    }

    await until('events', () => one.events.length >= 2
                && two.events.length >= 4);

    assert.deepStrictEqual(one.sequences(), [1, 2]);
    assert.deepStrictEqual(two.sequences(), [3, 4, 5, 6]);
});


test('each event once and in order, through cuts and reloads', async (t) => {
    const OWNERS = 6;
    const nginx = await running(t);
    const next = random(7);

    for (let i = 0; i < OWNERS; i++) {
        await webhook(nginx, auth(`c${i}`, { end_user_id: `u${i}` }));
    }

    const mine = await Promise.all(Array.from({ length: 3 * OWNERS },
        (_, i) => begun(t, nginx, '/events', user(i % OWNERS))));
    const all = await Promise.all(Array.from({ length: 4 },
        () => begun(t, nginx, '/all')));
    const expected = Array.from({ length: OWNERS }, () => []);

    let stop = false;

    const sending = Promise.all(numbers(1, 4).map(async (n) => {
        const client = new Client(nginx.port);

        for (let i = 0; !stop || i < 100; i++) {
            const owner = Math.floor(next() * OWNERS);
            const body = forward(`c${owner}`, `${n}-${i}`, 'x'.repeat(
                next() < 0.05 ? 20000 : 10));
            const sequence = await webhook(nginx, body, client).catch(
                () => webhook(nginx, body));

            expected[owner].push(sequence);
            await sleep(2);
        }

        client.close();
    }));

    for (let i = 0; i < 4; i++) {
        await sleep(400);
        [...mine, ...all].filter(() => next() < 0.4)
            .forEach((one) => one.cut());
        await sleep(200);
        await reload(nginx);
    }

    stop = true;
    await sending;

    expected.forEach((list) => list.sort((a, b) => a - b));

    const every = expected.flat().sort((a, b) => a - b);

    await until('all events', () => all.every(
        (one) => one.events.length >= every.length)
        && mine.every((one, i) =>
            one.events.length >= expected[i % OWNERS].length), 20000);

    await sleep(100);

    mine.forEach((one, i) => {
        assert.deepStrictEqual(one.sequences(), expected[i % OWNERS]);
    });
    all.forEach((one) => {
        assert.deepStrictEqual(one.sequences(), every);
        assert.ok(one.statuses.length > 2);
    });

    assert.deepStrictEqual(nginx.lines('alert', 'crit', 'emerg'), []);
}, 120000);


test('a client that does not read costs a chunk, and gets everything',
     async (t) => {
    const COUNT = 300;
    const nginx = await running(t, { http: `${HTTP} send_timeout 60s;` });

    await webhook(nginx, auth('c1', { end_user_id: 'u1' }));

    const slow = await Promise.all(numbers(1, 8).map(
        (i) => begun(t, nginx, (i % 2 ? '/all' : '/events')
                               + (i % 3 ? '' : '?after=1'), user(1))));
    const fast = await begun(t, nginx, '/all');

    slow.forEach((one) => one.pause());

    const client = new Client(nginx.port);

    t.after(() => client.close());

    for (let i = 0; i < 20; i++) {
        await webhook(nginx, forward('c1', i, 'x'.repeat(100000)), client);
    }

    const before = memory(nginx);

    for (let i = 20; i < COUNT; i++) {
        await webhook(nginx, forward('c1', i, 'x'.repeat(100000)), client);
    }

    await until('the other one to have all', () =>
        fast.events.length === COUNT, 20000);

    const growth = memory(nginx) - before;

    t.diagnostic(`${slow.length} clients that do not read ${COUNT / 10} MB: `
                 + `${(growth / 1048576).toFixed(1)} MB`);

    /* Two rings with what is rendered, and a chunk each. */
    assert.ok(growth < 24 * 1048576, `${growth} bytes`);

    slow.forEach((one) => one.resume());
    await until('all events', () =>
        slow.every((one) => one.events.length >= COUNT), 30000);

    slow.forEach((one) => {
        assert.deepStrictEqual(one.sequences(), numbers(2, COUNT + 1));
        assert.deepStrictEqual(one.statuses, [200]);
    });
}, 120000);


test('one that does not read for too long is cut off, and misses nothing',
     async (t) => {
    const COUNT = 300;
    const nginx = await running(t, {
        http: `${HTTP} send_timeout 1s;`,
        server: `${SERVER} error_log @DIR@/error.log info;`,
    });
    const one = await begun(t, nginx, '/all');
    const client = new Client(nginx.port);

    t.after(() => client.close());
    one.pause();

    for (let i = 0; i < COUNT; i++) {
        await webhook(nginx, forward('c1', i, 'x'.repeat(100000)), client);
    }

    await until('its end', () => /client timed out/.test(nginx.log()));

    one.resume();
    await until('all events', () => one.events.length >= COUNT, 30000);

    assert.deepStrictEqual(one.sequences(), numbers(1, COUNT));
    assert.ok(one.statuses.length > 1);
});


/* The first time has been over for longer than send_timeout. */

test('one that has been slow before is not cut off for it', async (t) => {
    const COUNT = 150;
    const nginx = await create(t, { http: HTTP, server: SERVER });
    const clock = await startOnClock(t, nginx);
    const one = await begun(t, nginx, '/all');
    const client = new Client(nginx.port);

    t.after(() => client.close());

    for (const n of [1, 2]) {
        one.pause();

        for (let i = 0; i < COUNT; i++) {
            await webhook(nginx, forward('c', `${n}-${i}`, 'x'.repeat(100000)),
                          client);
        }

        one.resume();
        await until('all events', () => one.events.length >= n * COUNT, 30000);

        const { comments } = one;

        clock.forward(61 * SECOND);
        await until('a ping', () => one.comments > comments);
    }

    assert.deepStrictEqual(one.sequences(), numbers(1, 2 * COUNT));
    assert.deepStrictEqual(one.statuses, [200]);
}, 120000);


test('thousands of streams, and each has what is its own', async (t) => {
    const COUNT = 2000;
    const nginx = await running(t, { connections: 4096,
                                     main: 'worker_rlimit_nofile 8192;' });
    const client = new Client(nginx.port);

    t.after(() => client.close());

    await webhook(nginx, auth('c0', { end_user_id: 'u0' }), client);

    const idle = memory(nginx);
    const streams = [];

    for (let i = 0; i < COUNT; i += 100) {
        streams.push(...await Promise.all(numbers(i, i + 99).map(
            (n) => begun(t, nginx, '/events', user(n)))));
    }

    const growth = memory(nginx) - idle;

    t.diagnostic(`a stream that is idle: ${Math.round(growth / COUNT)} bytes`);
    assert.ok(growth / COUNT < 32768, `${growth} bytes`);

    for (let i = 0; i < COUNT; i += 5) {
        await webhook(nginx, auth(`c${i}`, { end_user_id: `u${i}` },
                                  'override'), client);
    }

    await until('all events', () => streams.every(
        (one, i) => one.events.length === (i % 5 ? 0 : 1)), 20000);

    streams.forEach((one, i) => {
        assert.deepStrictEqual(
            one.events.map((event) => event.data.connection_id),
            i % 5 ? [] : [`c${i}`]);
    });

    /* Those that are gone leave nothing behind. */
    streams.forEach((one) => one.close());
    await sleep(500);

    const again = await Promise.all(numbers(1, 50).map(
        (n) => begun(t, nginx, '/events', user(5 * n))));

    await webhook(nginx, forward('c5', 1), client);
    await until('the event', () => again[0].events.length === 1);
    assert.ok(memory(nginx) - idle < growth + 4 * 1048576);
}, 120000);


test('pages and streams of random owners are what a plain model says',
     async (t) => {
    const nginx = await running(t);
    const client = new Client(nginx.port);
    const next = random(Number(process.env.NANGO_SEED || 11));
    const below = (n) => Math.floor(next() * n);
    const owners = new Map();
    const events = [];

    t.after(() => client.close());

    for (let i = 0; i < 400; i++) {
        const id = `c${below(12)}`;
        const tags = { end_user_id: `u${below(4)}`,
                       organization_id: `o${below(2)}` };
        const known = owners.get(id);
        const kind = below(4);
        let body;

        if (kind === 0 && !known) {
            body = auth(id, tags);
            owners.set(id, tags);
        } else if (kind === 1 && known) {
            body = auth(id, tags, 'override');
            owners.set(id, tags);
        } else if (kind === 2 && below(2)) {
            body = JSON.stringify({ raw: i });
        } else {
            body = forward(id, i);
        }

        const sequence = await webhook(nginx, body, client);
        const parsed = JSON.parse(body);

        events.push({ sequence, id: parsed.connectionId,
                      type: parsed.type || 'other',
                      then: owners.get(parsed.connectionId) });
    }

    const owns = (tags, what) => tags && tags.end_user_id === what.user
        && (what.org === undefined || tags.organization_id === what.org);

    const expected = (what, after) => events.filter((event) =>
        event.sequence > after
        && (what.type === undefined || event.type === what.type)
        && (what.all || (owns(event.then, what)
                         && owns(owners.get(event.id), what)))
    ).map((event) => event.sequence);

    for (let i = 0; i < 60; i++) {
        const what = { all: below(4) === 0, user: `u${below(5)}`,
                       org: below(2) ? `o${below(2)}` : undefined,
                       type: [undefined, 'auth', 'forward', 'other'][
                           below(4)] };
        const url = what.all ? '/all' : what.org ? '/both' : '/events';
        const headers = { 'X-User': what.user, 'X-Org': what.org || '' };
        const start = below(410) % 401;
        const type = what.type ? `&type=${what.type}` : '';
        const seen = [];
        let after = start;

        for (;;) {
            const limit = 1 + below(60);
            const page = (await get(nginx,
                `${url}?after=${after}&limit=${limit}${type}`,
                headers)).json;

            assert.ok(page.events.length <= limit);
            assert.ok(page.next >= after);
            seen.push(...page.events.map((event) => event.sequence));
            after = page.next;

            if (!page.more) {
                break;
            }
        }

        assert.strictEqual(after, 400);
        assert.deepStrictEqual(seen, expected(what, start),
                               JSON.stringify(what));

        if (i % 4 === 0 && seen.length) {
            const one = follow(t, nginx, `${url}?after=${start}${type}`,
                               headers);

            await until('the stream', () => one.events.length >= seen.length);
            assert.deepStrictEqual(one.sequences(), seen);
            one.close();
        }
    }
});


test('what is not kept any more is gone, for pages and streams',
     async (t) => {
    const nginx = await running(t);

    for (let i = 0; i < 10; i++) {
        await webhook(nginx, forward('c', i));
    }

    await until('events', async () =>
        (await get(nginx, '/all')).json.events.length === 10);

    execFileSync(compile(t, 'forget.c', '-llmdb'), [nginx.store, '4']);

    const page = (await get(nginx, '/all')).json;

    assert.deepStrictEqual(page.events.map((event) => event.sequence),
                           numbers(5, 10));
    assert.strictEqual((await get(nginx, '/all?after=4')).json.events.length,
                       6);

    for (const after of [0, 3]) {
        const answer = await get(nginx, `/all?after=${after}`);

        assert.strictEqual(answer.status, 410);
        assert.strictEqual(answer.headers['x-nango-error'],
                           'sequence_expired');

        const stream = await get(nginx, '/all', {
            Accept: 'text/event-stream', 'Last-Event-ID': `${after}`,
        });

        assert.strictEqual(stream.status, 410);
    }

    assert.strictEqual((await get(nginx, '/all?body=4')).status, 410);
    assert.strictEqual((await get(nginx, '/all?body=5')).status, 200);
});


/* Of a worker that has been held up for longer than events are kept. */

test('a stream is not led past what it has not seen', async (t) => {
    const nginx = await running(t, { server: `${SERVER}
    location = /mine {
        allow 127.0.0.1;
        add_header X-Worker $pid;
        nango_events all;
    }
` });

    await webhook(nginx, forward('c', 0));

    const leader = await until('a leader', () => nginx.leader());
    const clients = await ofWorkers(t, nginx.port);
    const pids = await Promise.all(clients.map(async (each) =>
        Number((await each.request('GET', '/worker', {})).text)));
    const one = clients[pids.indexOf(leader)];
    const followers = [];

    while (!followers.some((each) => each.worker !== leader)
           || !followers.some((each) => each.worker === leader))
    {
        const follower = await begun(t, nginx, '/mine');

        follower.worker = Number(follower.fields['x-worker']);
        followers.push(follower);
    }

    const other = nginx.workers().find((pid) => pid !== leader);

    nginx.kill(other, 'SIGSTOP');

    try {
        for (let i = 1; i <= 10; i++) {
            await webhook(nginx, forward('c', i), one);
        }

        const page = await one.request('GET', '/all?after=1', {});

        assert.strictEqual(page.json.events.length, 10);
        execFileSync(compile(t, 'forget.c', '-llmdb'), [nginx.store, '5']);
    } finally {
        nginx.kill(other, 'SIGCONT');
    }

    for (const follower of followers) {
        if (follower.worker === leader) {
            await until('all', () => follower.events.length === 10);
            assert.deepStrictEqual(follower.sequences(), numbers(2, 11));

        } else {
            await until('its end', () => follower.statuses.includes(410));
            assert.deepStrictEqual(follower.sequences(), []);
        }
    }
});


test('few events in a log of many, page by page', async (t) => {
    const nginx = await running(t);

    await webhook(nginx, auth('c1', { end_user_id: 'u1' }));
    await webhook(nginx, forward('c2', 1));

    execFileSync(compile(t, 'fill.c', '-llmdb'), [nginx.store, '150000']);

    await webhook(nginx, forward('c1', 2));
    await until('the fold', async () =>
        (await get(nginx, '/all?after=150002')).json.events.length === 1,
    60000);

    const seen = [];
    let pages = 0;

    for (let after = 0, more = true; more; pages++) {
        const page = (await get(nginx, `/events?after=${after}`,
                                user(1))).json;

        assert.ok(!page.more || page.next > after);
        seen.push(...page.events.map((event) => event.sequence));
        after = page.next;
        more = page.more;
    }

    assert.deepStrictEqual(seen, [1, 150003]);
    assert.ok(pages > 1);

    const one = follow(t, nginx, '/events?after=1', user(1));

    await until('the event', () => one.events.length === 1);
    assert.deepStrictEqual(one.sequences(), [150003]);
}, 120000);


test('a stream that is idle says where it is', async (t) => {
    const nginx = await running(t);
    const one = await begun(t, nginx, '/events', user(1));
    const { id } = one;

    await webhook(nginx, forward('c2', 1));

    await until('a comment', () => one.comments === 1, 25000);
    assert.strictEqual(one.id, id.replace(/:0$/, ':1'));
    assert.deepStrictEqual(one.events, []);
    assert.deepStrictEqual(one.statuses, [200]);
});


/* Its status, however long that takes. */
function held(nginx, url) {
    return new Promise((resolve, reject) => {
        http.get({ host: '127.0.0.1', port: nginx.port, path: url,
                   agent: false }, (res) => {
            res.resume();
            resolve(res.statusCode);
        }).on('error', reject);
    });
}


/* The only thread is kept until somebody else has had a ping. */
test('a stream that looks for its events says how far it is', async (t) => {
    const nginx = await create(t, { http: HTTP, server: SERVER, workers: 1,
                                    main: 'thread_pool default threads=1;' });

    await nginx.start();
    await webhook(nginx, forward('c2', 1, 'x'.repeat(200000)));
    await webhook(nginx, forward('c2', 2));

    execFileSync(compile(t, 'fill.c', '-llmdb'), [nginx.store, '400000']);

    await until('the fold', async () =>
        (await get(nginx, '/all?after=400001')).json.events.length === 1,
    60000);

    const body = pipe(nginx);
    const one = follow(t, nginx, '/events?after=1', user(1));

    await until('the beginning', () => one.id);

    const answer = held(nginx, '/all?body=1');
    const other = follow(t, nginx, '/all');

    await until('a ping', () => other.comments === 1, 30000);
    assert.strictEqual(one.comments, 0);

    body.release();
    assert.strictEqual(await answer, 503);
    await until('a comment', () => one.comments === 1);

    const position = Number(one.id.split(':')[1]);

    assert.ok(position > 1 && position < 400002, `${position}`);
}, 120000);


/* There is no thread for it, and the ring has gone on long ago. */
test('a stream that is idle does not read again what was not for it',
     async (t) => {
    const nginx = await create(t, { http: HTTP, server: SERVER, workers: 1,
                                    main: 'thread_pool default threads=1;' });

    await nginx.start();
    await webhook(nginx, forward('c2', 1, 'x'.repeat(200000)));

    const body = pipe(nginx);
    const one = follow(t, nginx, '/events', user(1));
    const all = follow(t, nginx, '/all');
    const client = new Client(nginx.port);

    t.after(() => client.close());

    await until('both', () => one.id && all.id);

    for (let i = 0; i < 1200; i++) {
        await webhook(nginx, forward('c2', i), client);
    }

    await until('all of them', () => all.events.length === 1200);

    const answer = held(nginx, '/all?body=1');

    await until('a ping', () => one.comments > 0, 30000);
    await webhook(nginx, auth('c1', { end_user_id: 'u1' }), client);
    await until('the event', () => one.events.length === 1);

    body.release();
    assert.strictEqual(await answer, 503);
}, 120000);


/* One page waits for the only thread, which reads a body until its release. */
async function queued(t) {
    const nginx = await create(t, {
        http: HTTP, workers: 1, main: 'thread_pool default threads=1;',
        server: `${SERVER}
            error_log @DIR@/error.log info;`,
    });
    const clock = await startOnClock(t, nginx);

    await webhook(nginx, forward('c', 1, 'x'.repeat(200000)));
    await until('the event', async () =>
        (await get(nginx, '/all')).json.events.length === 1);

    const body = pipe(nginx);
    const answer = held(nginx, '/all?body=1');

    await until('the body', async () =>
        await counted(nginx, 'Writing') === 2);

    const client = new Client(nginx.port);
    const page = { done: false };

    t.after(() => client.close());
    page.answer = client.request('GET', '/all?after=1&wait=50')
        .finally(() => { page.done = true; });
    page.answer.catch(() => {});
    await until('the page', async () =>
        await counted(nginx, 'Writing') === 3);

    return { nginx, clock, client, page, release: async () => {
        body.release();
        assert.strictEqual(await answer, 503);
    } };
}


test('a page that is to be read when its client leaves', async (t) => {
    const { nginx, client, release } = await queued(t);

    client.close();
    await until('nginx knows that', () =>
        /prematurely closed connection/.test(nginx.log()));
    await release();
    await until('its end', async () =>
        await counted(nginx, 'Active connections') === 1);
});


test('a page that is to be read when its time is over', async (t) => {
    const { nginx, clock, page, release } = await queued(t);
    const one = await begun(t, nginx, '/all');

    clock.forward(51 * SECOND);
    await until('a ping', () => one.comments > 0);
    assert.strictEqual(page.done, false);
    await release();

    const { status, json } = await page.answer;

    assert.strictEqual(status, 200);
    assert.deepStrictEqual([json.events, json.next], [[], 1]);
});


test('a page that is to be read when its worker ends', async (t) => {
    const { nginx, page, release } = await queued(t);
    const [old] = nginx.workers();

    nginx.kill(nginx.master, 'SIGHUP');
    await until('another worker', () =>
        nginx.workers().some((pid) => pid !== old));
    await release();

    const { status, json } = await page.answer;

    assert.strictEqual(status, 200);
    assert.deepStrictEqual([json.events, json.next], [[], 1]);
});


test('no thread to read the log: it is said, and streams come again',
     async (t) => {
    const COUNT = 300;
    const nginx = await create(t, { http: HTTP, server: SERVER, workers: 1,
        main: 'thread_pool default threads=1 max_queue=0;' });

    await nginx.start();
    await webhook(nginx, forward('c', 0, 'x'.repeat(200000)));

    const body = pipe(nginx);
    const one = await begun(t, nginx, '/all');
    const client = new Client(nginx.port);

    t.after(() => client.close());
    one.pause();

    for (let i = 0; i < COUNT; i++) {
        await webhook(nginx, forward('c', i, 'x'.repeat(100000)), client);
    }

    const answer = held(nginx, '/all?body=1');

    await until('no thread', async () =>
        (await get(nginx, '/all?after=1')).status === 503);
    assert.strictEqual((await get(nginx, '/all?body=2')).status, 503);
    assert.strictEqual((await get(nginx, '/all?after=1', {
        Accept: 'text/event-stream' })).status, 503);

    /* It is too far behind for what is in memory. */

    one.resume();
    await until('its end', () => one.statuses.length > 1);
    assert.ok(one.events.length < COUNT);
    assert.strictEqual(one.statuses[1], 503);

    body.release();
    assert.strictEqual(await answer, 503);
    await until('all events', () => one.events.length >= COUNT, 30000);
    assert.deepStrictEqual(one.sequences(), numbers(2, COUNT + 1));
}, 120000);


/* Its file is one that waits for its other end; nginx is told of the first. */
test('a client that leaves while a second subrequest reads', async (t) => {
    const nginx = await running(t, { server: `${SERVER}
        error_log @DIR@/error.log info;
        location = /page {
            ssi on;
            default_type text/html;
            return 200 '<!--# include virtual="/all?after=1&wait=50" -->
                        <!--# include virtual="/all?body=1" -->';
        }` });

    await webhook(nginx, forward('c', 1, 'x'.repeat(200000)));
    await until('the event', async () =>
        (await get(nginx, '/all')).json.events.length === 1);

    const body = pipe(nginx);
    const request = http.get({ host: '127.0.0.1', port: nginx.port,
                               path: '/page', agent: false });

    request.on('error', () => {});

    await until('the page', async () =>
        await counted(nginx, 'Writing') === 2);
    request.destroy();
    await until('nginx knows that', () =>
        /prematurely closed connection/.test(nginx.log()));

    body.release();
    await until('its end', async () =>
        await counted(nginx, 'Active connections') === 1);
});


test('over HTTP/2', async (t) => {
    const port = await freePort();
    const nginx = await running(t, {
        server: `${SERVER} listen 127.0.0.1:${port} http2;`,
    });

    await webhook(nginx, auth('c1', { end_user_id: 'u1' }));

    const client = http2.connect(`http://127.0.0.1:${port}`);

    client.on('error', () => {});
    t.after(() => client.destroy());

    const streams = numbers(1, 20).map((n) => {
        const one = client.request({ ':path': n % 2 ? '/events' : '/all',
                                     accept: 'text/event-stream',
                                     'x-user': 'u1' });

        one.text = '';
        one.setEncoding('utf8');
        one.on('data', (data) => { one.text += data; });
        one.on('error', () => {});
        one.on('close', () => { one.over = true; });

        return one;
    });

    await until('streams', () => streams.every((one) => one.text));

    streams.slice(0, 5).forEach((one) => one.close(
        http2.constants.NGHTTP2_CANCEL));

    for (let i = 0; i < 40; i++) {
        await webhook(nginx, forward('c1', i, 'x'.repeat(30000)));
    }

    const rest = streams.slice(5);
    const ids = (one) => [...one.text.matchAll(/^id: \w+:(\d+)$/gm)]
        .map((match) => Number(match[1]));

    await until('all events', () => rest.every(
        (one) => one.text.endsWith('\n\n') && ids(one).length === 41), 20000);

    rest.forEach((one) => {
        assert.deepStrictEqual(ids(one), numbers(1, 41));
    });

    await reload(nginx);
    await until('the streams to end', () => rest.every((one) => one.over));
});
