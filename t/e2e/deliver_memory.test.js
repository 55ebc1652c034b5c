/*
 * No memory while events are delivered: each allocation fails in turn, of the
 * event loop, which sends them, of the leader's thread, which reads and
 * settles, and of the pool, which reads bodies that are files.  Nobody dies,
 * nothing is left behind, all that was acknowledged arrives, and the ledgers
 * say so.
 */

'use strict';

const assert = require('node:assert');
const fs = require('node:fs');
const nodeTest = require('node:test');

const { Backend } = require('./backend');
const { hmac, once } = require('./client');
const { config, KEY, settled, sync } = require('./deliver');
const { random } = require('./load');
const { reader } = require('./model');
const { create, sleep, until } = require('./nginx');
const { Starve } = require('./starve');

const LONG = Boolean(process.env.NANGO_LONG);
const LARGE = 200 * 1024;

/* Many: who had no memory is left alone for a second. */
const NAMES = Array.from({ length: 8 }, (_, i) => `s${i}`);


/* None may hang: what waits for ever is a failure. */
function test(name, fn) {
    return nodeTest(name, { timeout: LONG ? 1800000 : 120000 }, fn);
}


/* The sequence, or nothing. */
async function post(nginx, body) {
    try {
        const { status, json } = await once(nginx.port, 'POST', '/webhook', {
            'Content-Type': 'application/json',
            'X-Nango-Hmac-Sha256': hmac(body, KEY),
        }, body);

        return status === 200 ? json.sequence : undefined;

    } catch (err) {
        if (!err.cut) {
            throw err;
        }

        return undefined;
    }
}


/* Others write to the state as well: whoever delivers has to look again. */
async function resume(nginx) {
    try {
        await once(nginx.port, 'POST', '/manage',
                   { 'Content-Type': 'application/json' },
                   '{"action":"resume","environment":"prod",'
                   + '"subscriber":"s0"}');
    } catch (err) {
        if (!err.cut) {
            throw err;
        }
    }
}


/* But for connections that it keeps to the backend. */
function descriptors(pid, backend) {
    return fs.readdirSync(`/proc/${pid}/fd`).length - backend.sockets.size;
}


test('allocations fail while events are delivered', async (t) => {
    const read = reader(t);
    const starve = new Starve(t);
    const rnd = random(LONG ? Date.now() : 1);

    /* One of five fails at first, and so has a row. */

    const backend = await Backend.create(t, {
        answer: ({ sequence, attempt }) => (sequence % 5 === 0 && attempt === 1
                                            ? 500 : 200),
    });
    const nginx = await create(t, config(NAMES.map(
        (name) => `deliver ${name} ${backend.url}&${name}=;`).join('\n'), {
        workers: 1,
        main: 'worker_rlimit_core 0; thread_pool default threads=1;',
        locations: `location = /manage { nango_status manage; }
            connection_pool_size 112; request_pool_size 112;`,
    }));
    const acknowledged = [];
    const live = [];
    let refused = 0;

    await nginx.start(starve.env);
    await until('the worker', () => nginx.workers().length === 1);

    const [worker] = nginx.workers();

    starve.of(worker);

    const send = async (n) => {
        const sequence = await post(nginx, sync(`c-${n % 40}`, n % 8 ? {}
            : { padding: 'x'.repeat(LARGE) }));

        if (sequence) {
            acknowledged.push(sequence);
        }

        return sequence;
    };

    const quiet = async () => {
        await settled(read, nginx, 60000);
        await sleep(700);
        live.push(starve.live);
    };

    await until('the store', () => send(1));

    for (let n = 0; n < 20; n++) {
        assert.ok(await send(n));
    }

    await quiet();

    const fds = descriptors(worker, backend);

    for (let round = 0; round < (LONG ? 20 : 1); round++) {
        for (let n = 0; n < (LONG ? 150 : 80); n++) {

            /* Of the webhook itself, and of all that follows it. */

            starve.arm(Math.floor(rnd() * (n % 3 ? 1000 : 100)),
                       { on: LONG && round % 4 === 3 });
            await send(n);

            if (n % 10 === 0) {
                await resume(nginx);
            }

            for (let i = 0; i < 20 && !starve.get(2); i++) {
                await sleep(2);
            }

            refused += starve.feed();
            assert.deepStrictEqual(nginx.workers(), [worker], `${n}`);
        }

        await quiet();
    }

    const all = await settled(read, nginx, 60000);

    t.diagnostic(`${refused} refused, ${acknowledged.length} acknowledged, `
                 + `${backend.got.length} attempts, blocks: ${live}`);

    /* Nothing has come to where it was not to go. */

    assert.ok(backend.got.every(({ url }) => /&s\d=$/.test(url)));

    for (const name of NAMES) {
        const taken = new Set(backend.got.filter((one) => one.status === 200
            && one.url.includes(`&${name}=`)).map((one) => one.sequence));

        assert.strictEqual(all[name].delivered, all[name].stored, name);
        assert.deepStrictEqual(acknowledged.filter((one) => !taken.has(one)),
                               [], name);
    }

    assert.ok(refused > 20, `${refused}`);
    /* Once all have had as many connections as they may keep. */

    if (LONG) {
        assert.ok(live.at(-1) - live.at(2) < 1500, `${live} blocks`);
    }

    await until('descriptors to be closed',
                () => descriptors(worker, backend) <= fds);
    assert.doesNotMatch(nginx.log(), /exited (on signal|with)/);
    assert.ok(await nginx.stop());
});
