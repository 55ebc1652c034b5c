/*
 * Hours and days of a backend's absence, on clocks that are put forward: the
 * schedule of attempts, what becomes of events that are too old, and that all
 * others arrive when it is back, as they came.
 */

'use strict';

const assert = require('node:assert');
const nodeTest = require('node:test');

const { Nango } = require('@nangohq/node');
const { Backend } = require('./backend');
const { startOnClock, SECOND, MINUTE, HOUR } = require('./clock');
const { assertOrder, config, KEY, laneOf, ledgers, post, settled, sync }
    = require('./deliver');
const { reader } = require('./model');
const { create, sleep, until } = require('./nginx');


/* None may hang: what waits for ever is a failure. */
function test(name, fn) {
    return nodeTest(name, { timeout: 120000 }, fn);
}


/* nginx with a clock. */
async function started(t, options, how) {
    const nginx = await create(t, options);

    return [nginx, await startOnClock(t, nginx, how)];
}


function assertAlive(nginx) {
    assert.deepStrictEqual(nginx.lines('emerg', 'alert', 'crit'), []);
    assert.doesNotMatch(nginx.log(), /exited on signal/);
}


test('attempts come ever later, until it is too late', async (t) => {
    const read = reader(t);
    const times = [];
    let clock;
    const backend = await Backend.create(t, {
        answer: (one) => {
            if (laneOf(one) !== 'bad' || one.sequence !== 1) {
                return 200;
            }

            times.push(clock.now());

            return 500;
        },
    });
    const [nginx, made] = await started(t, config(
        `deliver app ${backend.url} max_age=10h;`));

    clock = made;

    await post(nginx, sync('bad'));
    await post(nginx, sync('bad'));
    await until('the first', () => times.length === 1);

    const begun = clock.now();
    let step = 0;

    const dead = () => ledgers(read, nginx).app.dead !== 0;

    while (!dead()) {

        /* Steps are as fine as attempts can be, and none is left behind. */

        step = Math.min(10 * MINUTE, (clock.now() - begun) / 4);
        clock.forward(Math.floor(step));
        await until('what is due to be tried', () => dead()
            || read(nginx.store, 'ledgers').due.some(({ at }) =>
                at > clock.now()), 20000);
    }

    const late = clock.now() - begun;

    await until('the next', () => backend.accepted.length === 1);
    await settled(read, nginx);

    assert.ok(late > 10 * HOUR - 10 * MINUTE && late < 11 * HOUR, `${late}`);

    /* Numbered, and none later than the longest that it may take. */

    const attempts = backend.got.filter((one) => one.sequence === 1)
        .map((one) => one.attempt);

    assert.deepStrictEqual(attempts, attempts.map((_, i) => i + 1));
    assert.ok(attempts.length >= 15, `${attempts.length}`);

    times.forEach((time, i) => {
        const most = Math.min(HOUR, SECOND * 2 ** (i - 1));
        const before = times[i - 1] || time;

        assert.ok(time - before <= most + (time - begun) / 3 + 5 * SECOND,
                  `attempt ${i + 1} after ${time - before} ms`);
    });

    /* And they do get rarer: by minutes they would be six hundred. */

    assert.ok(attempts.length < 120, `${attempts.length}`);

    const { app } = ledgers(read, nginx);

    t.diagnostic(`${attempts.length} attempts in ten hours`);
    assert.strictEqual(app.dead, 1);
    assert.strictEqual(app.delivered, 1);
    assertAlive(nginx);
    assert.ok(await nginx.stop());
});


test('a clock that ran ahead holds up nothing once it is put right',
    async (t) => {
        const read = reader(t);
        let answer = 500;
        const backend = await Backend.create(t, { answer: () => answer });
        const [nginx, clock] = await started(t, config(
            `deliver app ${backend.url};`), { wall: true, ahead: 24 * HOUR });

        await post(nginx, sync('a'));
        await until('attempts', () => backend.got.length > 3);

        /* Mostly, what came of the last one is in the state by then. */

        await sleep(200);

        answer = 200;
        clock.forward(-24 * HOUR);
        await settled(read, nginx);

        assert.strictEqual(backend.accepted.length, 1);
        assertAlive(nginx);
    });


test('away for hours, and then everything arrives', async (t) => {
    const read = reader(t);
    const backend = await Backend.create(t);
    const [nginx, clock] = await started(t, config(
        `deliver app ${backend.url};`));
    const nango = new Nango({ host: 'http://127.0.0.1:1', apiKey: 'x',
                              webhookSigningKey: KEY });

    await post(nginx, sync('c-0'));
    await until('the first', () => backend.accepted.length === 1);
    await backend.down();

    for (let i = 0; i < 600; i++) {
        await post(nginx, sync(`c-${i % 30}`, i % 100 ? {}
            : { padding: 'x'.repeat(200000) }));

        if (i % 10 === 0) {
            clock.forward(6 * MINUTE);
            await sleep(20);
        }
    }

    await until('it to be noticed', () => nginx.lines('error').some(
        (line) => /does not take events/.test(line)));

    /* The one that is tried now and then, and nothing else, has a pause. */

    backend.answer = () => ({ status: 200, delay: 5 });
    await backend.up();
    clock.forward(MINUTE);

    const { app } = await settled(read, nginx, 30000);

    assert.strictEqual(app.delivered, 601);
    assert.strictEqual(backend.accepted.length, 601);
    assert.strictEqual(new Set(backend.accepted).size, 601);
    assert.ok(backend.most > 1 && backend.most <= 16, `${backend.most}`);
    assertOrder(backend.got);

    for (const one of backend.got) {
        assert.ok(nango.verifyIncomingWebhookRequest(one.body.toString(),
                                                     one.headers));
    }

    assertAlive(nginx);
    assert.ok(await nginx.stop());
});


test('who is away for too long does not get all', async (t) => {
    const read = reader(t);
    const backend = await Backend.create(t);
    const [nginx, clock] = await started(t, config(
        `deliver app ${backend.url} max_age=1h;`));
    const count = 2500;
    const posts = async (n) => {
        for (let i = n; i < count; i += 8) {
            await post(nginx, sync(`c-${i % 100}`));
        }
    };

    await backend.down();

    /* More than are in memory. */

    await Promise.all([0, 1, 2, 3, 4, 5, 6, 7].map(posts));
    await until('it to be noticed', () => nginx.lines('error').some(
        (line) => /does not take events/.test(line)));

    clock.forward(61 * MINUTE);

    await until('them to be dead', async () => {
        clock.forward(10 * SECOND);
        await sleep(100);

        return ledgers(read, nginx).app?.dead === count;
    }, 60000);

    const latest = await post(nginx, sync('c-1'));

    await backend.up();
    clock.forward(MINUTE);
    await until('the latest', () => backend.accepted.length === 1);
    assert.deepStrictEqual(backend.accepted, [latest]);
    assertAlive(nginx);
    assert.ok(await nginx.stop());
});


for (const how of ['parked', 'down']) {
    test(`what has failed before dies too for who is ${how}`, async (t) => {
        const read = reader(t);
        const backend = await Backend.create(t, {
            answer: ({ body }) => (/"gone"/.test(body) ? 410 : 500) });
        const [nginx, clock] = await started(t, config(
            `deliver app ${backend.url} max_age=1h;`));

        for (let i = 0; i < 5; i++) {
            await post(nginx, sync(`c-${i}`));
        }

        await until('rows', () => ledgers(read, nginx).app?.rows === 5);

        if (how === 'down') {
            await backend.down();
        }

        await post(nginx, sync('gone'));
        await until('it to be noticed', () => (how === 'parked'
            ? ledgers(read, nginx).app?.parked
            : nginx.lines('error').some(
                (line) => /does not take events/.test(line))));

        clock.forward(61 * MINUTE);

        /* What is young keeps it from asking for rows. */

        await until('them to be dead', async () => {
            await post(nginx, sync('young'));
            clock.forward(10 * SECOND);
            await sleep(100);

            const { app } = ledgers(read, nginx);

            return app.dead >= 6 && app.rows === 0;
        }, 30000);

        assertAlive(nginx);
        assert.ok(await nginx.stop());
    });
}


test('one request at a time to who fails everything', async (t) => {
    const read = reader(t);
    let down = false;
    let most = 0;
    const backend = await Backend.create(t, {
        answer: async () => {
            most = down ? Math.max(most, backend.flight) : most;
            await sleep(20);

            return down ? 500 : 200;
        },
    });
    const [nginx, clock] = await started(t, config(
        `deliver app ${backend.url};`));

    down = true;

    for (let i = 0; i < 100; i++) {
        await post(nginx, sync(`c-${i}`));
    }

    await until('it to be noticed', () => nginx.lines('error').some(
        (line) => /does not take events/.test(line)));
    await until('the last of those before', () => backend.flight === 0);
    most = 0;

    const before = backend.got.length;

    for (let i = 0; i < 60; i++) {
        clock.forward(10 * SECOND);
        await sleep(100);
    }

    /* In ten minutes: each half a minute, and a few in the beginning. */

    const probes = backend.got.length - before;

    assert.ok(probes >= 10 && probes <= 60, `${probes}`);
    assert.strictEqual(most, 1);

    down = false;
    clock.forward(HOUR);
    await settled(read, nginx, 30000);
    assert.strictEqual(backend.accepted.length, 100);
    assert.ok(backend.most > 1);
    assertAlive(nginx);
    assert.ok(await nginx.stop());
});
