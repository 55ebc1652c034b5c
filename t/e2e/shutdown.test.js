/*
 * worker_shutdown_timeout and what takes longer than it: deliveries to who
 * answers slowly, never, or does not even read; pages that wait, and streams.
 * The worker goes in its time, nothing is lost, and what was settled is not
 * done again.
 */

'use strict';

const assert = require('node:assert');
const net = require('node:net');
const nodeTest = require('node:test');

const { Backend } = require('./backend');
const { hmac } = require('./client');
const { assertDelivered, assertLedgers, config, creation, KEY, ledgers, post,
        settled, sync } = require('./deliver');
const { EVENTS, answering, pipe } = require('./edge');
const { Follower } = require('./follow');
const { reader } = require('./model');
const { create, freePort, until } = require('./nginx');
const { Wire, get, head, once } = require('./wire');

/* ms: of what takes two seconds at most. */
const END = 10000;

/* At once, of each subscriber. */
const CONCURRENCY = 16;

const STREAM = { Accept: 'text/event-stream' };


/* None may hang: what waits for ever is a failure. */
function test(name, fn) {
    return nodeTest(name, { timeout: 60000 }, fn);
}


/* A webhook of which the rest does not come, and that holds its worker. */
async function half(nginx) {
    const wire = new Wire(nginx.port);

    await wire.write(head('POST', '/webhook', {
        'Content-Type': 'application/json', 'Content-Length': 100,
        'X-Nango-Hmac-Sha256': hmac('', KEY) }));
    await wire.write('{');

    return wire;
}


/* It answers when it is told to: [{one, resolve}], in their order. */
function hold(backend) {
    const held = [];

    backend.answer = (one) => new Promise((resolve) => {
        held.push({ one, resolve });
    });

    return held;
}


/* Whoever is there at a port, and reads nothing. */
async function deaf(t, port) {
    const sockets = [];
    const server = net.createServer({ pauseOnConnect: true }, (socket) => {
        socket.on('error', () => {});
        sockets.push(socket);
    });

    await new Promise((resolve) => {
        server.listen(port, '127.0.0.1', resolve);
    });

    const close = () => {
        sockets.forEach((socket) => socket.destroy());

        return new Promise((resolve) => { server.close(resolve); });
    };

    t.after(close);

    return { sockets, close };
}


/* The old workers go in time, and there are others. */
async function end(nginx, how) {
    const old = nginx.workers();
    const { master } = nginx;

    nginx.kill(master, how === 'reload' ? 'SIGHUP' : 'SIGQUIT');

    const gone = until('the old workers to go',
                       () => !old.some((pid) => nginx.alive(pid)), END);

    return async () => {
        await gone;

        if (how === 'reload') {
            await until('new workers', () => nginx.workers().length === 2);
            return;
        }

        await until('the master to go', () => !nginx.alive(master));
        await nginx.killAll();
        await nginx.start();
    };
}


function calm(nginx) {
    assert.deepStrictEqual(nginx.lines('emerg', 'alert', 'crit'), []);
}


for (const [how, timeout] of [['reload', '1s'], ['quit', '1s'],
                              ['quit', '100ms']]) {
    test(`deliveries under way, ${how}, ${timeout}`, async (t) => {
        const read = reader(t);
        const [quick, slow, never, stuck] = await Promise.all(
            Array.from({ length: 4 }, () => Backend.create(t)));
        const nginx = await create(t, config(
            Object.entries({ quick, slow, never, stuck }).map(([name, one]) =>
                `deliver ${name} ${one.url} timeout=1h;`).join('\n'),
            { main: `worker_shutdown_timeout ${timeout};` }));

        /* What is settled, by everybody; then nothing is. */

        await nginx.start();

        for (let i = 0; i < 20; i++) {
            await post(nginx, sync(`c-${i % 7}`));
        }

        await until('all of it', () => [quick, slow, never, stuck].every(
            ({ accepted }) => accepted.length === 20));
        await settled(read, nginx);
        await stuck.down();

        const wall = await deaf(t, stuck.port);
        const held = hold(slow);
        const silent = hold(never);

        await post(nginx, sync('large', { padding: 'x'.repeat(12 << 20) }));

        for (let i = 0; i < 60; i++) {
            await post(nginx, sync(`c-${i % 40}`));
        }

        await until('all of it to hang', () => held.length === CONCURRENCY
            && silent.length === CONCURRENCY
            && wall.sockets.length === CONCURRENCY
            && quick.accepted.length === 81);

        held.splice(0, 6).forEach(({ resolve }) => resolve(200));

        await until('what was answered to be settled', () => {
            const all = ledgers(read, nginx);

            return all.quick.delivered === 81 && all.slow.delivered === 26
                   && held.length === CONCURRENCY;
        });

        const wire = await half(nginx);
        const over = await end(nginx, how);

        /* Whoever answers from now on is heard, or asked again. */

        const at = Date.now();

        held.splice(0, 4).forEach(({ resolve }) => resolve(200));
        await over();
        await wire.closed;
        assert.deepStrictEqual(wire.answers, []);

        slow.answer = () => 200;
        never.answer = () => 200;
        [...held, ...silent].forEach(({ resolve }) => resolve(200));
        await wall.close();
        await stuck.up();

        const { events } = read(nginx.store);

        assert.strictEqual(events.length, 81);
        assertLedgers(await settled(read, nginx, 20000), events);

        for (const [name, backend] of Object.entries({ quick, slow, never,
                                                       stuck })) {
            const again = assertDelivered(backend, events, (before, one) => {
                assert.ok(['slow', 'never'].includes(name)
                          && before.answered >= at,
                          `${one.sequence} comes to ${name} again`);
            });

            t.diagnostic(`${name}: ${again} of ${events.length} again`);
        }

        calm(nginx);
        assert.ok(await nginx.stop(END), 'nginx does not end');
        calm(nginx);
    });
}


const LOCATIONS = `
    ${EVENTS}
    location = /status { stub_status; }
`;


function numbers(from, to) {
    return Array.from({ length: to - from + 1 }, (_, i) => from + i);
}


for (const how of ['reload', 'quit']) {
    test(`pages that wait and streams, ${how}`, async (t) => {
        const small = await freePort();
        const nginx = await create(t, config('', {
            main: 'worker_shutdown_timeout 1s;',
            locations: `${LOCATIONS} listen 127.0.0.1:${small} sndbuf=4k;`,
        }));
        const user = { 'X-User': 'ann' };
        const follow = (port, url) => {
            const one = new Follower(port, url, user);

            t.after(() => one.close());

            return one;
        };

        await nginx.start();
        await post(nginx, creation('c-1', 'ann'));

        for (let i = 0; i < 30; i++) {
            await post(nginx, sync('c-1', { padding: 'x'.repeat(100000) }));
        }

        /* Some have nothing to get, some more than they read. */

        const urls = ['/events', '/all', '/events', '/all'];
        const idle = urls.map((url) => follow(nginx.port, url));
        const slow = urls.map((url) => follow(small, `${url}?after=0`));

        slow.forEach((one) => one.pause());

        await until('the streams', () => idle.every((one) => one.id)
                                         && slow.every((one) => one.response));

        const pages = await Promise.all(urls.map(async (url) => {
            const wire = new Wire(nginx.port);

            await wire.write(get(`${url}?after=31&wait=50`, user));

            return wire;
        }));

        await answering(nginx, 12);

        const whole = idle.map(({ response }) => new Promise((resolve) => {
            response.once('close', () => resolve(response.complete));
        }));
        const over = await end(nginx, how);

        /* Who can be told is told, and who does not read is cut. */

        for (const page of pages) {
            const { status, json } = await page.answer();

            assert.deepStrictEqual([status, json.events, json.next],
                                   [200, [], 31]);
        }

        assert.ok((await Promise.all(whole)).every((complete) => complete));
        await over();

        slow.forEach((one) => one.resume());

        for (let i = 0; i < 5; i++) {
            await post(nginx, sync('c-1'));
        }

        await until('all events', () => idle.every(
            ({ events }) => events.length >= 5) && slow.every(
            ({ events }) => events.length >= 36), 20000);

        idle.forEach((one) => {
            assert.deepStrictEqual(one.sequences(), numbers(32, 36));
        });
        slow.forEach((one) => {
            assert.deepStrictEqual(one.sequences(), numbers(1, 36));
        });

        calm(nginx);
        assert.ok(await nginx.stop(END), 'nginx does not end');
        calm(nginx);
    });


    test(`pages and streams while the only thread reads, ${how}`,
         async (t) =>
    {
        const nginx = await create(t, config('', {
            main: `worker_shutdown_timeout 500ms;
                   thread_pool default threads=1;`,
            workers: 1, locations: LOCATIONS,
        }));
        const user = { 'X-User': 'ann' };

        await nginx.start();
        await post(nginx, creation('c-1', 'ann'));
        await post(nginx, sync('c-1', { padding: 'x'.repeat(200000) }));
        await until('the events', async () => (await once(nginx.port,
            get('/all?after=0'))).json.events.length === 2);

        const body = pipe(nginx);
        const wires = [];

        for (const [url, headers] of [
            ['/all?body=2', {}],
            ['/all?after=0', {}],
            ['/events?after=0&wait=50', user],
            ['/events?after=0', { ...STREAM, ...user }],
        ]) {
            const wire = new Wire(nginx.port);

            await wire.write(get(url, headers));
            wires.push(wire);
        }

        await answering(nginx, wires.length);

        const [old] = nginx.workers();
        const { master } = nginx;
        const other = await half(nginx);

        nginx.kill(master, how === 'reload' ? 'SIGHUP' : 'SIGQUIT');
        await other.closed;

        if (how === 'reload') {
            const page = await until('another worker', () => once(nginx.port,
                get('/all?after=0')).catch(() => undefined));

            assert.strictEqual(page.json.events.length, 2);
        }

        /* A thread cannot be cut, and its request lives as long. */

        assert.ok(nginx.alive(old));
        body.release();

        await Promise.all(wires.map((wire) => wire.closed));
        assert.deepStrictEqual(wires.flatMap(({ answers }) => answers), []);
        await until('the old worker to go', () => !nginx.alive(old), END);

        if (how === 'quit') {
            await until('the master to go', () => !nginx.alive(master));
        }

        assert.ok(await nginx.stop(END), 'nginx does not end');
        assert.ok(nginx.lines('emerg', 'alert', 'crit').every(
            (line) => / is not as long as the body /.test(line)));
    });
}
