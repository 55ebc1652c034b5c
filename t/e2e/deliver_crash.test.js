/*
 * Deliveries while their senders die, stand still or are replaced: kill -9 of
 * workers, the leader and the master, SIGSTOP of the leader, reloads, upgrades
 * of the binary and back, under a load of webhooks, to a backend that takes
 * what it gets and to one that often does not.  Nothing is missing, the
 * ledgers close, and what comes twice has a reason.
 *
 * NANGO_SEED repeats the load and the kills of another run, though not its
 * moments; NANGO_KILLS asks for more of them, NANGO_LONG for a minute of
 * reloads.
 */

'use strict';

const assert = require('node:assert');
const fs = require('node:fs');
const { monitorEventLoopDelay } = require('node:perf_hooks');
const { test } = require('node:test');

const { Backend } = require('./backend');
const { assertDelivered, assertLedgers, config, KEY, post, settled, sync }
    = require('./deliver');
const { Load, random } = require('./load');
const { reader } = require('./model');
const { create, sleep, until } = require('./nginx');

const SEED = Number(process.env.NANGO_SEED || Date.now() % 1000000);
const KILLS = Number(process.env.NANGO_KILLS || 20);
const RELOADS = process.env.NANGO_LONG ? 60 : 15;

/* ms: what nginx waits for when it goes, and what a busy machine adds. */
const GRACE = 1000;

/* ms: so late we see what somebody has sent before he was killed. */
const LATE = 1000;


/*
 * Two subscribers: one takes all, one fails 30 % and hangs with 1 %, but no
 * event so often that its next attempt is far away.
 */
async function makePair(t, rnd) {
    const good = await Backend.create(t, {
        answer: () => ({ status: 204, delay: Math.floor(rnd() * 5) }) });
    const bad = await Backend.create(t, {
        answer: ({ attempt }) => {
            const dice = attempt < 4 ? rnd() : 1;

            return dice < 0.01 ? null : dice < 0.31 ? 500 : 200;
        },
    });

    return { good, bad };
}


function lines({ good, bad }) {
    return `deliver good ${good.url};
            deliver bad  ${bad.url} timeout=1s;`;
}


function makeLoad(nginx, again) {
    return new Load({
        port: nginx.port,
        seed: SEED,
        clients: 8,
        pause: 25,
        environments: [{ name: 'prod', path: '/webhook', key: KEY,
                         dedupes: false }],
        again,
    }).run();
}


async function strike(nginx, kind, rnd) {
    const workers = nginx.workers();

    if (kind === 'worker') {
        return nginx.kill(workers[Math.floor(rnd() * workers.length)],
                          'SIGKILL');
    }

    if (kind === 'leader') {
        const leader = nginx.leader();

        return leader !== undefined && nginx.kill(leader, 'SIGKILL');
    }

    await nginx.killMaster(nginx.master);

    /* Its workers go on without it for a while. */
    await sleep(rnd() * 200);
    await nginx.killAll();
    await nginx.start();

    return true;
}


test('nothing is missing after kill -9', { timeout: 120000 }, async (t) => {
    const read = reader(t);
    const rnd = random(SEED);
    const pair = await makePair(t, rnd);
    const nginx = await create(t, config(lines(pair)));
    const kills = [];

    t.diagnostic(`seed ${SEED}`);
    await nginx.start();

    const load = makeLoad(nginx, (error, answer, attempt) => {
        if (error && !error.cut || answer && answer.status !== 503
            || attempt === 200)
        {
            throw error || new Error(`${answer.status}: ${answer.text}`);
        }

        return 100;
    });

    t.after(() => load.stop().catch(() => {}));

    for (let i = 0; i < KILLS; i++) {
        const kind = ['leader', 'worker', 'leader', 'master'][
            Math.floor(rnd() * 4)];

        await Promise.race([sleep(300 + rnd() * 500), load.running]);
        await until(`the ${kind}`, async () => {
            const at = Date.now();
            const done = await strike(nginx, kind, rnd);

            if (done) {
                kills.push([at, Date.now()]);
            }

            return done;
        }, 3000);
    }

    await load.stop();

    const all = await settled(read, nginx, 60000);
    const { events } = read(nginx.store);
    const again = {};

    assertLedgers(all, events);

    for (const name of ['good', 'bad']) {
        again[name] = assertDelivered(pair[name], events, (before, one) => {
            assert.ok(kills.some(([from, to]) => before.at <= to + LATE
                                                 && one.at >= from),
                      `${one.sequence} comes to ${name} again`);
        });
    }

    t.diagnostic(`${events.length} events, ${pair.good.got.length} and `
                 + `${pair.bad.got.length} deliveries, of them again `
                 + `${again.good} and ${again.bad}`);

    /* Who saw nothing has proven nothing. */

    assert.ok(events.length > 20 * KILLS);
    assert.ok(pair.bad.got.length > events.length * 1.2);

    assert.deepStrictEqual(nginx.lines('emerg', 'alert', 'crit').filter(
        (line) => !/exited on signal 9/.test(line)), []);
    assert.ok(await nginx.stop(), 'nginx does not end');
});


test('reloads lose nothing', { timeout: 60000 + 3000 * RELOADS },
     async (t) =>
{
    const read = reader(t);
    const rnd = random(SEED);
    const pair = await makePair(t, rnd);
    const nginx = await create(t, config(lines(pair)));
    const delay = monitorEventLoopDelay();

    t.diagnostic(`seed ${SEED}`);
    await nginx.start();
    delay.enable();

    /*
     * An idle connection may be closed while a request is on its way to it.
     * That one is sent again, once, and then has to succeed.
     */

    const load = makeLoad(nginx, (error, answer, attempt) => {
        if (!error || !error.cut || error.received || attempt > 1) {
            throw error || new Error(`${answer.status}: ${answer.text}`);
        }

        return 0;
    });

    t.after(() => load.stop().catch(() => {}));

    for (let i = 0; i < RELOADS; i++) {
        await Promise.race([sleep(1000), load.running]);
        nginx.kill(nginx.master, 'SIGHUP');
    }

    await load.stop();

    const all = await settled(read, nginx, 60000);
    const { events } = read(nginx.store);

    assertLedgers(all, events);

    /* What took us long to see, or to answer, was given up for lost. */

    const lag = Math.round(delay.max / 1e6);
    const again = ['good', 'bad'].map((name) => assertDelivered(
        pair[name], events, (before, one) => {
            assert.ok(before.answered - before.at + lag > GRACE / 2,
                      `${one.sequence} comes to ${name} again after `
                      + `${before.answered - before.at} ms`);
        }));

    t.diagnostic(`${events.length} events, again ${again}, `
                 + `${load.cuts} cut, up to ${lag} ms late`);

    assert.ok(events.length > 20 * RELOADS);
    assert.deepStrictEqual(nginx.lines('emerg', 'alert', 'crit'), []);
    assert.ok(await nginx.stop(), 'nginx does not end');
    assert.deepStrictEqual(nginx.lines('emerg', 'alert', 'crit'), []);
});


test('upgrades of the binary, and back, lose nothing', { timeout: 120000 },
     async (t) =>
{
    const read = reader(t);
    const rnd = random(SEED);
    const pair = await makePair(t, rnd);
    const nginx = await create(t, { ...config(lines(pair)), daemon: true });
    const leads = (master) => until('its leader', () =>
        nginx.workersOf(master).includes(nginx.leader()), 10000);
    const changes = [];

    t.diagnostic(`seed ${SEED}`);
    await nginx.start();

    const old = nginx.master;
    const load = makeLoad(nginx, (error, answer, attempt) => {
        if (!error || !error.cut || error.received || attempt > 2) {
            throw error || new Error(`${answer.status}: ${answer.text}`);
        }

        return 0;
    });

    t.after(() => load.stop().catch(() => {}));

    const change = async (step) => {
        const from = Date.now();

        await Promise.race([step(), load.running]);
        changes.push([from, Date.now()]);
        await Promise.race([sleep(500), load.running]);
    };

    let fresh;

    await sleep(700);
    await change(async () => {
        fresh = await nginx.upgrade();
        await until('new workers', () => nginx.workersOf(fresh).length === 2);
        nginx.kill(old, 'SIGWINCH');
        await until('the old ones to go',
                    () => nginx.workersOf(old).length === 0, 20000);
        await leads(fresh);
    });

    await change(async () => {
        nginx.kill(old, 'SIGHUP');
        await until('old workers', () => nginx.workersOf(old).length === 2);
        nginx.kill(fresh, 'SIGQUIT');
        await until('the new ones to go', () => !nginx.alive(fresh)
                    && nginx.workers().length === 2, 20000);
        await leads(old);
    });

    await change(async () => {
        const last = await nginx.upgrade();

        await until('new workers', () => nginx.workersOf(last).length === 2);
        nginx.kill(old, 'SIGQUIT');
        await until('the old ones to go', () => !nginx.alive(old)
                    && nginx.workers().length === 2, 20000);
        await leads(last);
        nginx.follow(last);
    });

    await load.stop();

    const all = await settled(read, nginx, 60000);
    const { events } = read(nginx.store);

    assertLedgers(all, events);

    for (const name of ['good', 'bad']) {
        const again = assertDelivered(pair[name], events, (before, one) => {
            assert.ok(changes.some(([from, to]) => before.at <= to + LATE
                                                   && one.at >= from),
                      `${one.sequence} comes to ${name} again`);
        });

        t.diagnostic(`${events.length} events, again ${again} to ${name}`);
    }

    assert.ok(events.length > 100);
    assert.ok(pair.bad.got.length > events.length);
    assert.deepStrictEqual(nginx.lines('emerg', 'alert', 'crit'), []);
    assert.ok(await nginx.stop(), 'nginx does not end');
});


for (const end of ['goes on', 'is killed']) {
    test(`a leader that stands still with deliveries under way, and ${end}`,
         { timeout: 90000 }, async (t) =>
    {
        const read = reader(t);
        let slow = true;
        const backend = await Backend.create(t, {
            answer: () => ({ status: 200, delay: slow ? 300 : 0 }) });
        const nginx = await create(t, config(`deliver app ${backend.url};`));

        await nginx.start();
        await until('two workers', () => nginx.workers().length === 2);

        const leader = await until('a leader', () => nginx.leader());

        for (let i = 0; i < 40; i++) {
            await post(nginx, sync(`c-${i}`));
        }

        await until('some under way', () => backend.flight > 2);
        nginx.kill(leader, 'SIGSTOP');
        await until('it to stop', () => / T /.test(fs.readFileSync(
            `/proc/${leader}/stat`, 'latin1')));

        /* What the backend says meanwhile, nobody hears; and all is stored. */

        await until('them to be answered', () => backend.flight === 0);

        const { length } = backend.got;

        slow = false;

        for (let i = 0; i < 40; i++) {
            await post(nginx, sync(`c-${i}`));
        }

        assert.strictEqual(nginx.leader(), leader);
        assert.strictEqual(backend.got.length, length);

        nginx.kill(leader, end === 'goes on' ? 'SIGCONT' : 'SIGKILL');

        const { app } = await settled(read, nginx, 30000);
        const { events } = read(nginx.store);
        const again = assertDelivered(backend, events, () => {});

        /* Who goes on has heard it; of who is killed, all under way again. */

        assert.strictEqual(app.delivered, 80);
        assert.ok(again <= (end === 'goes on' ? 0 : length), `${again}`);
        assert.deepStrictEqual(nginx.lines('emerg', 'alert', 'crit').filter(
            (line) => !/exited on signal 9/.test(line)), []);
        assert.ok(await nginx.stop(), 'nginx does not end');
    });
}
