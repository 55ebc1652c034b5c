/*
 * Disks that are full, fail, lie or are read-only; stores that somebody has
 * damaged, cut, deleted, restored or mixed up.  What was answered 200 stays,
 * what cannot be stored is answered 503, nobody's worker dies of it, one line
 * says so, and service resumes by itself.
 *
 * NANGO_LONG=1 damages stores for ten minutes; NANGO_SEED repeats a run.
 */

'use strict';

const assert = require('node:assert');
const { execFileSync, spawnSync } = require('node:child_process');
const fs = require('node:fs');
const path = require('node:path');
const nodeTest = require('node:test');

const { Backend } = require('./backend');
const { hmac, once } = require('./client');
const { settled } = require('./deliver');
const { Load, random } = require('./load');
const { assertFolded, assertKept, compile, reader } = require('./model');
const { create, MODULE, sleep, until } = require('./nginx');

const KEY = 'signing-key-of-prod';
const LARGE = 200 * 1024;
const ROOT = process.getuid() === 0;
const LONG = process.env.NANGO_LONG === '1';
const SEED = Number(process.env.NANGO_SEED || Date.now() % 1000000);

const EIO = 5, EACCES = 13, ENOSPC = 28, EROFS = 30;

const ENVIRONMENTS = [
    { name: 'prod', path: '/webhook', key: KEY, dedupes: true },
];

function http(options, more) {
    return `
    nango_store @STORE@ ${options || ''};
    nango_environment prod {
        reconcile           off;
        api                 http://127.0.0.1:1;
        api_public          https://nango.example.com;
        api_key             data:b3a1c0de-0000-4000-8000-00000000abcd;
        webhook_signing_key data:${KEY};
        ${more || ''}
    }
`;
}

const SERVER = `
    location = /webhook { nango_webhook prod; }
    location = /plain   { return 200 "plain\\n"; }
    location = /connections {
        nango_owner  end_user_id $http_x_user;
        nango_expose connection_id tags;
        nango_connections prod;
    }
`;


/* None may hang: what waits for ever is a failure. */
function test(name, options, fn) {
    return nodeTest(name, { timeout: 60000, ...options }, fn);
}


let unique = 0;

function creation(connection, size, tags) {
    const event = {
        connectionId: connection,
        from: 'nango',
        operation: 'creation',
        provider: 'github',
        providerConfigKey: 'github',
        success: true,
        tags: { end_user_id: '42', ...tags },
        type: 'auth',
        unique: unique++,
        padding: '',
    };
    const len = JSON.stringify(event).length;

    event.padding = 'x'.repeat(Math.max(0, (size || 0) - len));

    return JSON.stringify(event);
}


function send(nginx, body) {
    return once(nginx.port, 'POST', '/webhook', {
        'Content-Type': 'application/json',
        'X-Nango-Hmac-Sha256': hmac(body, KEY),
    }, body);
}


async function sent(nginx, body, status) {
    const answer = await send(nginx, body);

    assert.strictEqual(answer.status, status, answer.text);

    if (status === 503) {
        assert.strictEqual(answer.headers['x-nango-error'],
                           'store_unavailable');
    }

    return answer.json;
}


/* Until it is: whoever was in the middle of something is done then. */
async function resumes(nginx, name) {
    const body = creation(name);

    return until('service to resume', async () => {
        const answer = await send(nginx, body);

        assert.ok([200, 503].includes(answer.status), answer.text);

        return answer.status === 200 && answer.json;

    /* After several faults in a row the next attempt waits a minute. */

    }, 75000);
}


async function connections(nginx) {
    const answer = await once(nginx.port, 'GET', '/connections?limit=1000',
                              { 'X-User': '42' });

    assert.strictEqual(answer.status, 200, answer.text);

    return answer.json.connections.map((c) => c.connection_id).sort();
}


async function plain(nginx) {
    assert.strictEqual((await once(nginx.port, 'GET', '/plain')).status, 200);
}


async function folded(nginx, read) {
    await until('the fold', () => {
        const { meta } = read(nginx.store, 'meta');

        return meta.applied === meta.last;
    });
}


function crits(nginx) {
    return nginx.lines('emerg', 'alert', 'crit')
        .filter((line) => /nango: /.test(line));
}


/* Nobody has died, and nothing else has been said. */
function assertAlive(nginx, workers) {
    assert.deepStrictEqual(nginx.lines('emerg', 'alert'), []);
    assert.doesNotMatch(nginx.log(), /exited on signal/);

    if (workers) {
        assert.deepStrictEqual(nginx.workers(), workers);
    }
}


async function started(nginx, env) {
    await nginx.killAll();
    await nginx.start(env);
    await until('two workers', () => nginx.workers().length === 2, 20000);

    return nginx.workers();
}


/* Either worker has said what is wrong; one may come late to its store. */
async function complained(nginx, before) {
    await until('both workers to complain', () =>
        crits(nginx).length - before >= 2, 20000);
}


/* Like chown(1) -R, where the workers are somebody else. */
function give(file) {
    if (!ROOT) {
        return;
    }

    const [, uid, gid] = /^nobody:[^:]*:(\d+):(\d+):/m.exec(
        fs.readFileSync('/etc/passwd', 'latin1'));

    fs.chownSync(file, Number(uid), Number(gid));

    if (fs.statSync(file).isDirectory()) {
        fs.readdirSync(file).forEach((name) => give(path.join(file, name)));
    }
}


function copy(from, to) {
    fs.rmSync(to, { recursive: true, force: true });
    fs.cpSync(from, to, { recursive: true });

    if (fs.statSync(to).isDirectory()) {
        fs.chmodSync(to, 0o700);
    }

    give(to);
}


/* A disk with rules: disk.fail('write /log/ 28'), disk.fail() */
function makeDisk(t, nginx) {
    const shim = compile(t, 'shim_disk.c', '-shared', '-fPIC', '-ldl',
                         '-pthread');
    const control = path.join(nginx.dir, 'disk');

    fs.writeFileSync(control, Buffer.alloc(4096));

    const fd = fs.openSync(control, 'r+');

    t.after(() => fs.closeSync(fd));

    return {
        env: { LD_PRELOAD: shim, NANGO_DISK: control },
        fail: (...rules) => fs.writeSync(
            fd, Buffer.concat([Buffer.from(rules.map(
                (rule) => `${rule}\n`).join('')), Buffer.alloc(4096)], 4096),
            0, 4096, 0),
    };
}


/*
 * A rule, and what is answered meanwhile to small webhooks, to large ones and
 * to who asks for a list.  Undefined: either of 200 and 503.
 */
const FAILURES = [
    [`write /log/ ${ENOSPC}`, 503, 503, 200],
    [`write /log/ ${EIO}`, 503, 503, 200],
    [`sync /log/ ${EIO}`, 503, 503, undefined],
    [`meta /log/ ${EIO}`, 503, 503, undefined],
    [`write /state/ ${ENOSPC}`, 200, 200, 200],
    [`sync /state/ ${EIO}`, 200, 200, 200],
    [`meta /state/ ${EIO}`, undefined, undefined, undefined],
    [`write /temp/ ${ENOSPC}`, 200, 503, 200],
    [`open /temp/ ${ENOSPC}`, 200, 503, 200],
    [`open /temp/ ${EACCES}`, 200, 503, 200],
    [`sync /temp/ ${EIO}`, 200, 503, 200],
    [`rename /bodies ${EIO}`, 200, 503, 200],
    [`sync /bodies ${EIO}`, 200, 503, 200],
    [`write /store/ ${EROFS}`, 503, 503, 200],
    [`read /log/ ${EIO}`, 200, 200, 200],
    [`bus /log/ 1`, undefined, undefined, undefined],
    [`bus /state/ 1`, undefined, undefined, undefined],
];


async function fails(nginx, disk, [rule, small, large, list], i) {
    const among = (seen, expected) => assert.ok(
        expected === undefined ? [200, 503].includes(seen)
                               : seen === expected,
        `${rule}: ${seen} instead of ${expected}`);

    disk.fail(rule);

    /* What was in the middle of it may go either way. */

    await sleep(150);

    for (let n = 0; n < (LONG ? 10 : 3); n++) {
        among((await send(nginx, creation(`s-${i}-${n}`))).status, small);
        among((await send(nginx, creation(`l-${i}-${n}`, LARGE))).status,
              large);
        among((await once(nginx.port, 'GET', '/connections',
                          { 'X-User': '42' })).status, list);
        await plain(nginx);
        await sleep(60);
    }

    disk.fail();

    /*
     * Each worker tries to open what it has closed once a second, or after
     * faults that opening does not explain within a minute.
     */

    for (let n = 0; n < (/^(meta|bus|read)/.test(rule) ? 12 : 3); n++) {
        await until(`${rule} to be over`, async () => {
            const { status } = await send(nginx, creation(`r-${i}-${n}`));

            n = status === 200 ? n : 0;

            return status === 200;
        }, /^bus/.test(rule) ? 75000 : 15000);

        await sleep(100);
    }
}


test('a disk that fails in every way, under load', { timeout: 240000 },
     async (t) =>
{
    const read = reader(t);
    const backend = await Backend.create(t, {
        answer: ({ attempt }) => (attempt === 1 && Math.random() < 0.1 ? 500
                                                                      : 200),
    });
    const nginx = await create(t, {
        http: http('', `deliver app ${backend.url};`), server: SERVER });
    const disk = makeDisk(t, nginx);
    const workers = await started(nginx, disk.env);
    const own = [];

    t.diagnostic(`seed ${SEED}`);

    const load = new Load({
        port: nginx.port,
        seed: SEED,
        clients: 6,
        pause: 25,
        large: 0.05,
        environments: ENVIRONMENTS,
        again: (error, answer, attempt) => {
            if (error || answer.status !== 503) {
                throw error || new Error(`${answer.status}: ${answer.text}`);
            }

            if (attempt === 900) {
                throw new Error('a webhook is not answered any more');
            }

            return 100;
        },
    }).run();

    t.after(() => load.stop().catch(() => {}));

    await sleep(500);

    for (let i = 0; i < FAILURES.length; i++) {
        const before = crits(nginx).length;

        await fails(nginx, disk, FAILURES[i], i);

        const told = crits(nginx).slice(before);

        /* A line for each worker and kind of error, not for each request. */

        own.push(`${FAILURES[i][0]}: ${told.length}`);

        assert.ok(told.filter((line) => !/ of a body |"[^"]*bodies"/.test(line))
            .length <= 10, told.join('\n'));
    }

    await sleep(300);
    await load.stop();
    await folded(nginx, read);

    t.diagnostic(`${load.webhooks.length} webhooks, ${load.unavailable} told `
                 + `to come again; crits: ${own.join(', ')}`);

    assert.ok(load.unavailable > 50);

    /* The load's own, among those of this test. */

    const mine = new Set(load.webhooks.map((one) => one.hmac));
    const dump = read(nginx.store);

    assertKeptAmong(dump, load.webhooks, mine);
    assertAlive(nginx, workers);

    assert.match(nginx.log(), /\[notice\].*(stored again|open again)/);

    /* What was settled while it failed was not for nothing. */

    const { app } = await settled(read, nginx, 75000);
    const taken = new Set(backend.accepted);

    assert.strictEqual(app.delivered, app.stored);
    assert.deepStrictEqual(dump.events.filter(
        ({ sequence }) => !taken.has(sequence)), []);
    t.diagnostic(`${backend.accepted.length - taken.size} of ${
        taken.size} came again`);
    assert.ok(await nginx.stop(), 'nginx does not end');
});


/* What was answered is in the log, once, under the sequence answered. */
function assertKeptAmong(dump, webhooks, mine) {
    const events = new Map();

    dump.events.forEach((event) => {
        assert.ok(!events.has(event.hmac), `${event.sequence} is there twice`);
        events.set(event.hmac, event.sequence);
    });

    for (const webhook of webhooks) {
        assert.ok(mine.has(webhook.hmac));

        for (const answer of webhook.answers) {
            assert.strictEqual(events.get(webhook.hmac), answer.sequence);
        }
    }

    dump.events.reduce((previous, event) => {
        assert.strictEqual(event.sequence, previous + 1);
        return event.sequence;
    }, 0);
}


test('trouble that lasts is one line a worker, and its end another', {},
     async (t) =>
{
    const nginx = await create(t, { http: http(), server: SERVER });
    const disk = makeDisk(t, nginx);
    const workers = await started(nginx, disk.env);

    await resumes(nginx, 'first');

    disk.fail(`sync /log/ ${EIO}`, `meta /log/ ${EIO}`,
              `sync /state/ ${EIO}`);

    for (let i = 0; i < 80; i++) {
        await sent(nginx, creation(`c-${i}`), 503);
        await sleep(40);
    }

    const lines = crits(nginx);

    assert.ok(lines.length >= 1 && lines.length <= 4, lines.join('\n'));

    disk.fail();

    await until('it to be told', async () => {
        await Promise.all(Array.from({ length: 8 },
                                     (_, i) => resumes(nginx, `r-${i}`)));

        return nginx.lines('notice').filter(
            (line) => /nango: .*again/.test(line)).length >= 1;
    });

    assert.deepStrictEqual(crits(nginx), lines);
    assertAlive(nginx, workers);
});


/* A file system of its own below a directory; or why there is none. */
function mount(t, dir, size) {
    fs.mkdirSync(dir, { recursive: true });

    const made = ROOT && spawnSync('mount', ['-t', 'tmpfs', '-o',
        `size=${size},mode=0755`, 'tmpfs', dir], { encoding: 'utf8' });

    if (!made || made.error || made.status !== 0) {
        return ROOT ? String(made.error || made.stderr).trim()
                    : 'only root may mount';
    }

    return undefined;
}


test('a file system that is full, and one that is read-only', {},
     async (t) =>
{
    const read = reader(t);
    const nginx = await create(t, { http: http(), server: SERVER });
    const why = mount(t, nginx.store, '24m');
    const ballast = path.join(nginx.store, 'ballast');

    if (why) {
        t.skip(`no file system can be mounted: ${why}; `
               + 'the preloaded shim is what fails then');
        return;
    }

    try {
        await fills(t, nginx, read, ballast);
    } finally {
        await nginx.killAll();
        execFileSync('umount', ['-l', nginx.store]);
    }
});


async function fills(t, nginx, read, ballast) {
    give(nginx.store);

    const workers = await started(nginx);
    const acknowledged = [];
    const refused = [];
    const post = async (size) => {
        const body = creation(`c-${acknowledged.length}`, size);
        const answer = await send(nginx, body);

        assert.ok([200, 503].includes(answer.status), answer.text);
        (answer.status === 200 ? acknowledged : refused).push(
            hmac(body, KEY));

        return answer.status;
    };

    assert.strictEqual(await post(), 200);
    assert.strictEqual(await post(LARGE), 200);
    await connections(nginx);

    /* Whatever was left, then what the files had been given ahead. */

    const fill = () => {
        try {
            const fd = fs.openSync(ballast, 'a');
            const piece = Buffer.alloc(64 * 1024);

            try {
                for (;;) {
                    fs.writeSync(fd, piece);
                }
            } finally {
                fs.closeSync(fd);
            }
        } catch (err) {
            assert.strictEqual(err.code, 'ENOSPC');
        }
    };

    fill();

    await until('the log to be full', async () => {
        fill();

        return await post(100000) === 503;
    });

    fill();

    for (let i = 0; i < 10; i++) {
        assert.strictEqual(await post(100000), 503);
        assert.strictEqual(await post(LARGE), 503);
        await plain(nginx);
    }

    assert.ok((await connections(nginx)).length >= 1);

    fs.unlinkSync(ballast);
    await until('space to be used', async () => await post() === 200);
    assert.strictEqual(await post(LARGE), 200);

    /* The same for one that may not be written to. */

    if (spawnSync('mount', ['-o', 'remount,ro', nginx.store]).status === 0) {
        assert.strictEqual(await post(), 503);
        assert.strictEqual(await post(LARGE), 503);
        assert.ok((await connections(nginx)).length >= 1);

        execFileSync('mount', ['-o', 'remount,rw', nginx.store]);
        await until('it to be written again',
                    async () => await post() === 200);
    } else {
        t.diagnostic('a file system in use could not be made read-only');
    }

    await folded(nginx, read);

    const stored = new Set(read(nginx.store).events.map((one) => one.hmac));

    acknowledged.forEach((one) => assert.ok(stored.has(one)));
    refused.forEach((one) => assert.ok(!stored.has(one)));

    t.diagnostic(`${acknowledged.length} stored, ${refused.length} refused`);

    assert.ok(crits(nginx).filter((line) => !/body|bodies/.test(line)).length
              <= 8, crits(nginx).join('\n'));
    assertAlive(nginx, workers);
    assert.ok(await nginx.stop(), 'nginx does not end');
}


test('a log that has reached its size: 503, and reading goes on', {},
     async (t) =>
{
    const read = reader(t);

    /* What nobody is owed would be pruned. */

    const away = 'deliver away http://127.0.0.1:1/;';
    const nginx = await create(t, { http: http('size=16m', away),
                                    server: SERVER });
    const workers = await started(nginx);
    let stored = 0;

    await until('the log to be full', async () => {
        const answer = await send(nginx, creation(`c-${stored}`, 120000));

        stored += answer.status === 200 ? 1 : 0;

        return answer.status === 503;
    });

    assert.ok(stored > 100 && stored < 200, `${stored} were stored`);

    for (let i = 0; i < 30; i++) {
        await sent(nginx, creation(`d-${i}`, 120000), 503);
        await sleep(20);
    }

    assert.strictEqual((await connections(nginx)).length, stored);

    const lines = crits(nginx);

    assert.ok(lines.length >= 1 && lines.length <= 2, lines.join('\n'));
    assert.ok(lines.every((line) => /has reached its size/.test(line)));

    /* It may grow. */

    nginx.configure({ http: http('size=32m', away) });
    nginx.kill(nginx.master, 'SIGHUP');
    await until('workers that know', () => !workers.some(
        (pid) => nginx.alive(pid)));

    await resumes(nginx, 'more');
    await folded(nginx, read);
    assert.strictEqual(read(nginx.store).events.length, stored + 1);
    assertAlive(nginx);
});


test('a state whose map is full: webhooks are stored, and folded later', {},
     async (t) =>
{
    const read = reader(t);
    const nginx = await create(t, { http: http(), server: SERVER });
    const disk = makeDisk(t, nginx);

    disk.fail(`size /state ${1024 * 1024 + 65536}`);

    const workers = await started(nginx, disk.env);
    const tags = Object.fromEntries(Array.from({ length: 9 },
        (_, i) => [`tag_${i}`, 'x'.repeat(250)]));

    for (let i = 0; i < 300; i += 10) {
        await Promise.all(Array.from({ length: 10 }, (_, k) => sent(
            nginx, creation(`c-${i + k}`, 0, { ...tags, n: `${i + k}` }),
            200)));
    }

    await until('the state to be full', () => /MDB_MAP_FULL/.test(nginx.log()));
    await sleep(2500);
    await sent(nginx, creation('c-last'), 200);

    const seen = (await connections(nginx)).length;
    const lines = crits(nginx);

    assert.ok(seen < 300, `${seen} were folded`);
    assert.strictEqual(lines.length, 1, lines.join('\n'));
    assertAlive(nginx, workers);

    disk.fail();
    await nginx.stop();
    await started(nginx);
    await folded(nginx, read);

    assert.strictEqual((await connections(nginx)).length, 301);
    assertAlive(nginx);
});


/*
 * A store as it was yesterday, with ten connections, and as it is today, with
 * twenty; another one; and an nginx for them.
 */
async function history(t) {
    const read = reader(t);
    const nginx = await create(t, { http: http(), server: SERVER });
    const saved = (name) => path.join(nginx.dir, name);
    const post = async (from, to) => {
        for (let i = from; i < to; i++) {
            await sent(nginx, creation(`c-${i}`, i % 5 ? 0 : 5000), 200);
        }
    };

    await started(nginx);
    await post(0, 3);
    await folded(nginx, read);
    await nginx.stop();
    fs.renameSync(nginx.store, saved('foreign'));

    await started(nginx);
    await post(0, 10);
    await folded(nginx, read);
    await nginx.stop();
    copy(nginx.store, saved('yesterday'));

    await started(nginx);
    await post(10, 20);
    await folded(nginx, read);
    await nginx.stop();
    copy(nginx.store, saved('today'));

    return { nginx, read, saved };
}


function schema(file, from, to) {
    const data = fs.readFileSync(file);
    const of = (n) => Buffer.from(`schema${String.fromCharCode(n)}\0\0\0`);
    let found = 0;

    for (let at = data.indexOf(of(from)); at !== -1;
         at = data.indexOf(of(from), at))
    {
        of(to).copy(data, at);
        found++;
    }

    assert.ok(found, `${file} has no schema`);
    fs.writeFileSync(file, data);
    give(file);
}


async function stopped({ nginx, read, saved }) {
    /* What is done, the next sequence, and how many connections remain. */

    const cases = {
        'the log is deleted': [
            () => fs.rmSync(`${nginx.store}/log`, { recursive: true }),
            21, 20],
        'the state is deleted': [
            () => fs.rmSync(`${nginx.store}/state`, { recursive: true }),
            21, 20],
        'the log is yesterday\'s': [
            () => copy(saved('yesterday/log'), `${nginx.store}/log`), 21, 20],
        'the state is yesterday\'s': [
            () => copy(saved('yesterday/state'), `${nginx.store}/state`),
            21, 20],
        'both are yesterday\'s': [
            () => copy(saved('yesterday'), nginx.store), 11, 10],
        'the lock files are deleted': [
            () => ['log', 'state'].forEach((name) => fs.unlinkSync(
                `${nginx.store}/${name}/lock.mdb`)), 21, 20],
    };

    for (const [name, [change, next, left]] of Object.entries(cases)) {
        copy(saved('today'), nginx.store);
        change();

        const from = nginx.log().length;

        await started(nginx);

        const { sequence } = await sent(nginx, creation('new'), 200);

        assert.strictEqual(sequence, next, name);
        await folded(nginx, read);
        assert.strictEqual((await connections(nginx)).length, left + 1, name);
        await nginx.stop();

        assert.doesNotMatch(nginx.log().slice(from), /\[(crit|alert|emerg)\]/,
                            name);
    }

    assertAlive(nginx);
}


async function refused({ nginx, saved }) {
    const cases = {
        'belong to different stores': [
            () => copy(saved('foreign/log'), `${nginx.store}/log`),
            () => copy(saved('today/log'), `${nginx.store}/log`)],
        'written by a newer version.*log|log.*written by a newer version': [
            () => schema(`${nginx.store}/log/data.mdb`, 1, 2),
            () => schema(`${nginx.store}/log/data.mdb`, 2, 1)],
        'state" was written by a newer version': [
            () => schema(`${nginx.store}/state/data.mdb`, 1, 2),
            () => schema(`${nginx.store}/state/data.mdb`, 2, 1)],
    };

    for (const [pattern, [spoil, mend]] of Object.entries(cases)) {
        const before = crits(nginx).length;

        copy(saved('today'), nginx.store);
        spoil();

        const workers = await started(nginx);

        await complained(nginx, before);

        for (let i = 0; i < 15; i++) {
            await sent(nginx, creation(`x-${i}`, i % 5 ? 0 : LARGE), 503);
            await plain(nginx);
            await sleep(80);
        }

        const told = crits(nginx).slice(before);

        assert.strictEqual(told.length, 2, told.join('\n'));
        told.forEach((line) => assert.match(line, new RegExp(pattern)));

        await nginx.still(mend);

        assert.strictEqual((await resumes(nginx, 'mended')).sequence, 21);
        assertAlive(nginx, workers);
        await nginx.stop();
    }

    /* nginx -t looks at none of it. */

    copy(saved('today'), nginx.store);
    fs.writeFileSync(`${nginx.store}/log/data.mdb`, 'garbage');
    fs.unlinkSync(`${nginx.store}/log/lock.mdb`);
    execFileSync(process.env.NANGO_NGINX || '/usr/sbin/nginx', ['-t', '-p', nginx.dir,
        '-c', `${nginx.dir}/nginx.conf`], { stdio: 'pipe' });
    assert.ok(!fs.existsSync(`${nginx.store}/log/lock.mdb`));
}


async function vanishing({ nginx, read, saved }) {
    const away = (name) => fs.renameSync(`${nginx.store}/${name}`,
        fs.mkdtempSync(path.join(nginx.dir, 'away-')) + `/${name}`);

    /* What is done; what mends it, if it does not mend itself. */

    const cases = {
        'the log is removed': [() => away('log')],
        'the state is removed': [() => away('state')],
        'the log and the state are removed': [() => {
            away('log');
            away('state');
        }],
        'the bodies are removed': [() => away('bodies')],
        'the log is replaced': [() => {
            away('log');
            copy(saved('yesterday/log'), `${nginx.store}/next`);
            fs.renameSync(`${nginx.store}/next`, `${nginx.store}/log`);
        }],
        'a lock file is removed': [
            () => fs.unlinkSync(`${nginx.store}/log/lock.mdb`)],
        'the log is cut': [
            () => fs.truncateSync(`${nginx.store}/log/data.mdb`, 8192),
            () => copy(saved('today/log'), `${nginx.store}/log`)],
        'the state is cut': [
            () => fs.truncateSync(`${nginx.store}/state/data.mdb`, 12288),
            () => fs.rmSync(`${nginx.store}/state`, { recursive: true })],
        'the log is empty': [
            () => fs.truncateSync(`${nginx.store}/log/data.mdb`, 0),
            () => copy(saved('today/log'), `${nginx.store}/log`)],
        'noise is written over the state': [() => {
            const file = `${nginx.store}/state/data.mdb`;
            const fd = fs.openSync(file, 'r+');

            for (let page = 2; page < 24; page++) {
                fs.writeSync(fd, Buffer.alloc(4096, 0xa5), 0, 4096,
                             page * 4096);
            }

            fs.closeSync(fd);
        }, () => fs.rmSync(`${nginx.store}/state`, { recursive: true })],
    };

    for (const [name, [change, mend]] of Object.entries(cases)) {
        copy(saved('today'), nginx.store);

        const before = crits(nginx).length;
        const workers = await started(nginx);
        const given = await sent(nginx, creation('before'), 200);

        await folded(nginx, read);
        await connections(nginx);
        await nginx.still(change);

        for (let i = 0; i < 10; i++) {
            const [stored, list] = await Promise.all([
                send(nginx, creation(`w-${i}`, i % 5 ? 0 : LARGE)),
                once(nginx.port, 'GET', '/connections', { 'X-User': '42' }),
            ]);

            assert.ok([200, 503].includes(stored.status), name);
            assert.ok([200, 503].includes(list.status), name);
            await plain(nginx);
            await sleep(30);
        }

        if (mend) {
            await nginx.still(mend);
        }

        const { sequence } = await resumes(nginx, 'after');

        /* Whatever is lost: no number is given twice. */

        assert.ok(sequence > given.sequence, `${name}: ${sequence}`);

        await until('the list', async () => (await once(nginx.port, 'GET',
            '/connections', { 'X-User': '42' })).status === 200);

        const told = crits(nginx).slice(before);

        /* Two threads in each of two workers, and three kinds of trouble. */

        assert.ok(told.length <= 12, `${name}:\n${told.join('\n')}`);
        assert.deepStrictEqual(nginx.workers(), workers, name);
        assert.doesNotMatch(nginx.log(), /exited on signal/, name);
        assert.ok(await nginx.stop(), `${name}: nginx does not end`);
    }

    assertAlive(nginx);
}


/* Pages of noise, of zeros, of others; bytes; an end that is missing. */
function damage(file, rnd) {
    const data = fs.readFileSync(file);
    const used = Math.min(data.length / 4096, 64);
    const page = () => Math.floor(rnd() * used) * 4096;
    const kind = Math.floor(rnd() * 5);
    const at = page();

    if (kind === 0) {
        for (let i = 0; i < 4096; i++) {
            data[at + i] = rnd() * 256;
        }
    } else if (kind === 1) {
        data.fill(0, at, at + 4096);
    } else if (kind === 2) {
        data.copy(data, at, page(), page() + 4096);
    } else if (kind === 3) {
        for (let i = 0; i < 4; i++) {
            data[at + Math.floor(rnd() * 64)] = rnd() * 256;
        }
    } else {
        fs.truncateSync(file, Math.floor(rnd() * data.length));
        return;
    }

    fs.writeFileSync(file, data);
}


async function damaged({ nginx, saved }, t) {
    const rnd = random(SEED);
    const end = Date.now() + (LONG ? 600000 : 5000);
    const seen = { stored: 0, refused: 0 };

    t.diagnostic(`seed ${SEED}`);

    /* Most damage refuses nothing: on until some has. */

    for (let round = 0; Date.now() < end || round < 4
                        || (round < 200 && !(seen.stored && seen.refused));
         round++)
    {
        copy(saved('today'), nginx.store);
        damage(`${nginx.store}/${rnd() < 0.5 ? 'log' : 'state'}/data.mdb`,
               rnd);

        const before = crits(nginx).length;
        const workers = await started(nginx);

        for (let i = 0; i < 10; i++) {
            const answers = await Promise.all([
                send(nginx, creation(`r-${i}`, i % 5 ? 0 : LARGE)),
                once(nginx.port, 'GET', '/connections', { 'X-User': '42' }),
            ]);

            assert.ok(answers.every(({ status }) => [200, 503].includes(
                status)), `round ${round}: ${answers.map((a) => a.text)}`);
            seen[answers[0].status === 200 ? 'stored' : 'refused']++;
            await plain(nginx);
        }

        assert.ok(crits(nginx).length - before <= 6);
        assertAlive(nginx, workers);
        await nginx.stop();
        seen.rounds = round + 1;
    }

    t.diagnostic(JSON.stringify(seen));
    assert.ok(seen.stored && seen.refused);
}


async function foreign({ nginx, saved }) {
    for (const name of ['log/data.mdb', 'state/lock.mdb', 'bodies']) {
        copy(saved('today'), nginx.store);
        fs.chownSync(`${nginx.store}/${name}`, 0, 0);
        fs.chmodSync(`${nginx.store}/${name}`, 0o600);

        const before = crits(nginx).length;
        const workers = await started(nginx);

        await complained(nginx, before);

        for (let i = 0; i < 10; i++) {
            await sent(nginx, creation(`x-${i}`, i % 5 ? 0 : LARGE), 503);
            await plain(nginx);
        }

        assert.strictEqual(crits(nginx).length - before, 2);

        fs.chmodSync(`${nginx.store}/${name}`, 0o700);
        give(`${nginx.store}/${name}`);
        await resumes(nginx, 'mended');
        assertAlive(nginx, workers);
        await nginx.stop();
    }
}


test('a store that somebody has been at', { timeout: LONG ? 900000 : 120000 },
     async (t) =>
{
    const made = await history(t);
    const skip = ROOT ? false : 'only root has any';

    await t.test('parts were deleted or restored while nginx was stopped',
                 () => stopped(made));
    await t.test('what does not belong together, or is newer, is refused',
                 () => refused(made));
    await t.test('parts vanish, are cut or replaced while nginx runs',
                 () => vanishing(made));
    await t.test('files of somebody else', { skip }, () => foreign(made));
    await t.test('damage at random takes nobody else down',
                 (sub) => damaged(made, sub));
});
