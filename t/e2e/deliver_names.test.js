/*
 * Subscribers whose names do not resolve: no answer at all, or that there is
 * no such name.  Whoever else is there notices nothing of it, a worker ends
 * without waiting for names, and nothing is lost until there is an answer.
 */

'use strict';

const assert = require('node:assert');
const fs = require('node:fs');
const path = require('node:path');
const { test } = require('node:test');

const { Backend } = require('./backend');
const { once } = require('./client');
const { assertOrder, config, creation, ledgers, post, settled, sync }
    = require('./deliver');
const { compile, reader } = require('./model');
const { create, until } = require('./nginx');

/* At once, of each subscriber; and how many attempts there may be besides. */
const CONCURRENCY = 16;
const PROBES = 10;


function threads(pid) {
    return Number(/^Threads:\s+(\d+)/m.exec(
        fs.readFileSync(`/proc/${pid}/status`, 'latin1'))[1]);
}


/*
 * The resolver answers when all else has been seen: whoever waits for it does
 * so until the test's time is over.
 */
test('a name that does not resolve holds up nobody', { timeout: 90000 },
     async (t) =>
{
    const read = reader(t);
    const [held, long, absent, works] = await Promise.all(
        Array.from({ length: 4 }, () => Backend.create(t)));
    const nginx = await create(t, config(`
        deliver held   http://held.test:${held.port}/ connect_timeout=500ms;
        deliver long   http://held.test:${long.port}/ connect_timeout=1h
                       timeout=1h;
        deliver absent http://absent.test:${absent.port}/;
        deliver works  ${works.url};`, { workers: 1 }));
    const names = path.join(nginx.dir, 'names');
    const env = { NANGO_NAMES: names,
                  LD_PRELOAD: compile(t, 'resolve.c', '-shared', '-fPIC',
                                      '-ldl') };
    const sent = [];
    const list = () => once(nginx.port, 'GET', '/connections',
                            { 'X-User': 'ann' });

    /* Each is answered, is in the list, and arrives where it can. */

    const burst = async () => {
        for (let i = 0; i < 40; i++) {
            sent.push(await post(nginx, i % 4
                ? sync(`c-${i % 20}`, i % 15 ? {}
                       : { padding: 'x'.repeat(200000) })
                : creation(`c-${i % 20}`, 'ann')));
        }

        assert.strictEqual((await list()).json.connections.length, 5);
        await until('the other one',
                    () => works.accepted.length === sent.length);
    };
    const down = (n) => until('them to be down', () => ['held', 'absent']
        .every((name) => nginx.lines('error').filter((line) => line.includes(
            `"${name}" of environment "prod" does not take`)).length === n),
    20000);

    await nginx.start(env);
    await until('the store', async () => nginx.leader() && (await list())
        .status === 200);

    /* All that a worker has, whoever is looked up. */

    const before = threads(nginx.workers()[0]);

    await burst();
    await down(1);
    await burst();

    /* The old worker has lookups under way, and ends without them. */

    const [old] = nginx.workers();

    assert.ok(threads(old) > before, 'nothing is being looked up');
    nginx.kill(nginx.master, 'SIGHUP');
    await burst();
    await until('the old worker to go', () => !nginx.alive(old));
    await down(2);
    await burst();

    assert.ok(threads(nginx.workers()[0]) > before);
    assert.ok(await nginx.stop(), 'nginx does not end');
    await nginx.start(env);
    await burst();
    await down(3);

    /* Who is down is looked for by one lookup at a time. */

    const most = threads(nginx.workers()[0]) - before;

    assert.ok(most <= 2 * CONCURRENCY + PROBES, `${most} threads`);

    const { held: owed, long: waits } = ledgers(read, nginx);

    assert.deepStrictEqual([owed.waiting, waits.waiting],
                           [sent.length, sent.length]);
    assert.strictEqual(held.got.length + long.got.length + absent.got.length,
                       0);

    fs.writeFileSync(names, '');

    for (const one of Object.values(await settled(read, nginx, 60000))) {
        assert.strictEqual(one.delivered, sent.length, one.name);
    }

    for (const backend of [held, long, absent, works]) {
        assert.deepStrictEqual(backend.got.map(({ sequence }) => sequence)
            .sort((a, b) => a - b), sent);
        assertOrder(backend.got);
    }

    await until('the resolver to end its threads',
                () => threads(nginx.workers()[0]) <= before);
    assert.deepStrictEqual(nginx.lines('emerg', 'alert', 'crit'), []);
    assert.ok(await nginx.stop(), 'nginx does not end');
    assert.deepStrictEqual(nginx.lines('emerg', 'alert', 'crit'), []);
});
