/*
 * nango_status against what was sent, over several workers and a reload; and
 * what an operator does about events that a subscriber is owed.
 */

'use strict';

const assert = require('node:assert');
const { execFileSync } = require('node:child_process');
const crypto = require('node:crypto');
const fs = require('node:fs');
const path = require('node:path');
const { test } = require('node:test');

const { creation, hold, running, settings, signed } = require('./edge');
const { compile } = require('./model');
const { sleep, until } = require('./nginx');
const { Wire, get, once, post } = require('./wire');

const ROOT = path.resolve(__dirname, '../..');
const KEY = 'signing-key-of-prod';

const SERVER = `
    location = /state  { nango_status; }
    location = /manage { nango_status manage; }
    location = /small  { nango_webhook prod max_body=1k; }
    location = /other  { nango_webhook prod; limit_except GET { deny all; } }
`;


async function start(t, more) {
    return running(t, settings(0, { server: SERVER, ...more }));
}


async function status(nginx, where) {
    const answer = await once(nginx.port, get(where || '/state'));

    assert.strictEqual(answer.status, 200, answer.text);

    return answer.json;
}


function send(nginx, url, body, headers) {
    return once(nginx.port, post(url, headers || signed(body, KEY), body));
}


function act(nginx, what) {
    return send(nginx, '/manage', Buffer.from(JSON.stringify(what)),
                { 'Content-Type': 'application/json' });
}


/* Prometheus' text, checked by the check of t/status.t, as {sample: value}. */
async function samples(nginx) {
    const answer = await once(nginx.port, get('/state?format=prometheus'));
    const said = execFileSync('perl', [`-I${ROOT}/t/lib`, '-MExposition', '-e',
        'local $/; binmode STDIN; print exposition(scalar <STDIN>)'],
        { input: answer.text, encoding: 'utf8' });

    assert.strictEqual(said, 'good');

    return Object.fromEntries(answer.text.split('\n')
        .filter((line) => line && !line.startsWith('#'))
        .map((line) => [line.slice(0, line.lastIndexOf(' ')),
                        Number(line.slice(line.lastIndexOf(' ') + 1))]));
}


/* The types of all members, and of the first element of each list. */
function shape(value) {
    if (Array.isArray(value)) {
        return value.length ? [shape(value[0])] : [];
    }

    if (value && typeof value === 'object') {
        return Object.fromEntries(Object.entries(value)
            .map(([name, member]) => [name, shape(member)]));
    }

    if (typeof value === 'string' && /^\d{4}-\d\d-\d\dT.*Z$/.test(value)) {
        return 'time';
    }

    return value === null ? 'null' : typeof value;
}


test('counts are what was sent, whoever answers, and after a reload',
     { timeout: 60000 }, async (t) =>
{
    const nginx = await start(t);
    const sent = { stored: 0, duplicate: 0, forged: 0, unsigned: 0,
                   too_large: 0, lost: 0, unreadable: 0 };
    const jobs = [];

    for (let i = 0; i < 240; i++) {
        const body = creation(`c-${i}`);
        const large = creation(`l-${i}`, 2000);

        jobs.push(async () => {
            for (let n = 0; n < 2; n++) {
                const { json } = await send(nginx, '/webhook', body);

                assert.strictEqual(json.ack, true);
                sent[json.duplicate ? 'duplicate' : 'stored']++;
            }
        });

        const refuse = (kind, code, url, bytes, headers) => {
            jobs.push(async () => {
                const answer = await send(nginx, url, bytes, headers);

                assert.strictEqual(answer.status, code, answer.text);
                sent[kind]++;
            });
        };

        if (i % 3 === 0) {
            refuse('forged', 401, '/webhook', body, signed(body, 'another'));
        }

        if (i % 5 === 0) {
            refuse('unsigned', 401, '/webhook', body, { 'X-None': '1' });
            refuse('too_large', 413, '/small', large);
        }

        if (i % 7 === 0) {
            refuse('lost', 403, '/other', body);
        }

        if (i % 11 === 0) {
            jobs.push(async () => {
                const wire = new Wire(nginx.port);

                await wire.write('POST /webhook HTTP/1.1\r\nHost: a\r\n'
                    + 'Transfer-Encoding: chunked\r\n'
                    + `X-Nango-Hmac-Sha256: ${'0'.repeat(64)}\r\n\r\nxyz\r\n`);
                assert.strictEqual((await wire.answer()).status, 400);
                wire.socket.destroy();
                sent.unreadable++;
            });
        }
    }

    /* Half of them while the workers change. */

    const half = jobs.length >> 1;
    const old = nginx.workers();
    let next = 0;

    const run = async (end) => {
        while (next < end) {
            await jobs[next++]();
        }
    };

    await Promise.all(Array.from({ length: 16 }, () => run(half)));

    nginx.kill(nginx.master, 'SIGHUP');

    await Promise.all(Array.from({ length: 16 }, () => run(jobs.length)));
    await until('the old workers to go', () => !nginx.workers()
        .some((pid) => old.includes(pid)));

    const refused = sent.forged + sent.unsigned + sent.too_large + sent.lost
                    + sent.unreadable;

    assert.ok(Object.values(sent).every((n) => n > 0), 'not of every kind');
    assert.strictEqual(sent.stored, 240);

    await until('the fold', async () => (await status(nginx)).store.lag === 0);

    const answers = await Promise.all(Array.from({ length: 24 },
                                                 () => status(nginx)));

    for (const answer of answers) {
        assert.deepStrictEqual(answer, answers[0]);
    }

    const [told] = answers;
    const { unavailable, ...others } = told.refused;

    assert.deepStrictEqual(told.webhooks, {
        received: sent.stored + sent.duplicate + refused,
        stored: sent.stored, duplicate: sent.duplicate, refused });
    assert.strictEqual(unavailable, 0);
    assert.deepStrictEqual({ stored: sent.stored, duplicate: sent.duplicate,
                             ...others }, sent);
    assert.strictEqual(told.generation, 2);
    assert.ok(told.loaded_at > told.started_at);
    assert.strictEqual(told.store.last, 240);
    assert.strictEqual(told.store.events, 240);
    assert.deepStrictEqual(told.connections, { valid: 240, invalid: 0,
                                               deleted: 0 });
    assert.deepStrictEqual(told.environments.map((env) => [
        env.name, env.configured, env.stored, env.pruned]),
        [['prod', true, 240, 0], ['twin', true, 0, 0]]);

    const metrics = await samples(nginx);

    for (const [kind, n] of Object.entries(sent)) {
        assert.strictEqual(metrics[`nango_webhooks_total{result="${kind}"}`],
                           n, kind);
    }

    assert.strictEqual(metrics['nango_connections{status="valid"}'], 240);
    assert.strictEqual(
        metrics['nango_environment_events_total{environment="prod"}'], 240);

    /* Of a start anew nothing is left but the store's. */

    await nginx.stop();
    await nginx.start();
    await until('the store', async () => (await status(nginx)).store.open);

    const again = await status(nginx);

    assert.strictEqual(again.webhooks.received, 0);
    assert.strictEqual(again.store.events, 240);
    assert.strictEqual(again.store.log, told.store.log);
});


test('what the configuration has no more is told after what it has',
     { timeout: 30000 }, async (t) =>
{
    const options = settings(0, { server: `${SERVER}
        location = /twin { nango_webhook twin; }` });
    const http = options.http.replace(/nango_environment \w+ \{/g,
        (line) => `${line} deliver app http://127.0.0.1:1/;`);
    const nginx = await running(t, { ...options, http });

    await until('subscribers', async () => (await status(nginx)).subscribers
        .every((one) => one.known));
    await send(nginx, '/webhook', creation('c-1'));
    await send(nginx, '/webhook', creation('c-2'));
    await send(nginx, '/twin', creation('c-3'));

    const old = nginx.workers();

    nginx.configure({
        http: http.replace(/nango_environment prod \{.*?\}/s, ''),
        server: 'location = /state { nango_status; }',
    });
    nginx.kill(nginx.master, 'SIGHUP');
    await until('the old workers to go', () => !nginx.workers()
        .some((pid) => old.includes(pid)));

    await until('the fold', async () => (await status(nginx)).store.lag === 0);

    const { environments, subscribers } = await status(nginx);

    assert.deepStrictEqual(environments.map((env) => [
        env.name, env.configured, env.stored, env.pruned]),
        [['twin', true, 1, 0], ['prod', false, 2, 0]]);
    assert.deepStrictEqual(subscribers.map((one) => [
        one.environment, one.name, one.configured, one.known, one.stored]),
        [['twin', 'app', true, true, 1], ['prod', 'app', false, true, 2]]);
});


test('its shape is what is documented', { timeout: 30000 }, async (t) => {
    const nginx = await start(t, { http: `
        nango_environment more {
            webhook_signing_key data:k;
            deliver app http://127.0.0.1:1/;
        }` });

    await send(nginx, '/webhook', creation('c-1'));
    await until('the fold', async () =>
        (await status(nginx)).connections.valid === 1);

    const number = 'number';
    const told = await status(nginx);

    /* As long as nothing was delivered, or the store does not know it. */

    for (const name of Object.keys(told.subscribers[0])) {
        if (told.subscribers[0][name] === null) {
            delete told.subscribers[0][name];
        }
    }

    const { environment, name, configured, known, in_flight: flying, attempts,
            failed, down } = shape(told.subscribers[0]);

    assert.deepStrictEqual([environment, name, configured, known, flying,
                            attempts, failed, down],
                           ['string', 'string', 'boolean', 'boolean', number,
                            number, number, 'boolean']);

    delete told.subscribers;

    assert.deepStrictEqual(shape(told), {
        version: 'string', started_at: 'time', loaded_at: 'time',
        generation: number,
        store: { log: 'string', trouble: 'null', open: 'boolean',
                 troubled: 'boolean', first: number, last: number,
                 applied: number, lag: number, events: number, bytes: number,
                 size: number, state_bytes: number },
        webhooks: { received: number, stored: number, duplicate: number,
                    refused: number },
        refused: { unsigned: number, forged: number, unavailable: number,
                   lost: number, too_large: number, unreadable: number },
        sessions: { issued: number, reused: number, failed: number },
        repairs: { missing: number, vanished: number, status: number,
                   tags: number },
        deliveries: { attempts: number, delivered: number, failed: number },
        events: { folded: number, effective: number, ignored: number,
                  not_understood: number, missing: number },
        connections: { valid: number, invalid: number, deleted: number },
        environments: [{ name: 'string', configured: 'boolean',
                         stored: number, pruned: number,
                         account_blocked: number, account_low: 'boolean',
                         circuit_open: 'boolean', reconcile: number,
                         reconciled_at: 'null' }],
    });

    assert.ok(told.store.bytes > 0 && told.store.bytes < told.store.size);
    assert.ok(told.store.state_bytes
        <= fs.statSync(path.join(nginx.store, 'state/data.mdb')).size);
});


test('a webhook whose sender has left counts', { timeout: 30000 },
     async (t) =>
{
    const nginx = await start(t);
    const body = creation('c-1');

    await until('the store', async () => (await status(nginx)).store.open);

    const release = await hold(t, nginx, 'log');
    const wire = new Wire(nginx.port);

    await wire.write(post('/webhook', signed(body, KEY), body));
    await sleep(200);
    wire.socket.destroy();
    await sleep(200);

    assert.strictEqual((await status(nginx)).webhooks.received, 0);

    await release();

    await until('it to be counted', async () =>
        (await status(nginx)).webhooks.stored === 1);
});


test('a log that is full, and made larger', { timeout: 60000 }, async (t) => {
    const nginx = await start(t, { http: '' });
    let refused = 0;

    /* What nobody is owed would be pruned. */

    const http = nginx.options.http.replace(/nango_environment \w+ \{/,
        (line) => `${line} deliver away http://127.0.0.1:1/;`);

    nginx.configure({ http: http.replace('@STORE@;', '@STORE@ size=16m;') });
    await nginx.stop();
    await nginx.start();

    for (let i = 0; i < 200; i++) {
        const body = crypto.randomBytes(60000).toString('hex');
        const answer = await send(nginx, '/webhook', Buffer.from(body));

        if (answer.status === 503) {
            refused++;
        }
    }

    assert.ok(refused > 10 && refused < 190);

    let told;

    /* Each worker says what it has met itself. */

    await until('a worker that has met it', async () => {
        told = await status(nginx);
        return told.store.troubled;
    });

    assert.deepStrictEqual(told.store.trouble, { code: 'full' });
    assert.strictEqual(told.store.open, true);
    assert.ok(told.store.bytes > 0.99 * told.store.size);
    assert.strictEqual(told.refused.unavailable, refused);
    assert.strictEqual(told.webhooks.received, 200);
    assert.strictEqual(told.webhooks.stored, 200 - refused);

    nginx.configure({ http: http.replace('@STORE@;', '@STORE@ size=32m;') });
    nginx.kill(nginx.master, 'SIGHUP');

    await until('room', async () => {
        told = await status(nginx);
        return told.store.size === 32 << 20 && !told.store.troubled;
    });
});


/* Twelve dead events or so many, five that wait, eight that are delivered. */
async function owing(t, more, dead = 12) {
    const nginx = await start(t);
    const count = dead + 13;

    for (let i = 0; i < count; i += 25) {
        await Promise.all(Array.from({ length: 25 }, (_, k) => i + k < count
            && send(nginx, '/webhook', creation(`c-${i + k}`))));
    }

    await until('the fold', async () => (await status(nginx)).store.applied
                                        === count);
    await nginx.stop();

    const sources = ['core', 'store'].flatMap((room) =>
        fs.readdirSync(`${ROOT}/src/${room}`)
            .filter((name) => name.endsWith('.c'))
            .map((name) => `${ROOT}/src/${room}/${name}`));
    const owe = compile(t, 'owe.c', `-I${ROOT}/src/core`,
                        `-I${ROOT}/src/store`, ...sources, '-llmdb',
                        '-ljansson', '-lcrypto', '-lpthread');

    execFileSync(owe, [nginx.store, 'prod', 'gone', `${dead}`, '5',
                       ...more || []]);

    await nginx.start();
    await until('the store', async () => (await status(nginx)).store.open);

    return nginx;
}


async function gone(nginx) {
    const { subscribers } = await status(nginx);
    const found = subscribers.find((one) => one.name === 'gone');

    if (found) {
        assert.strictEqual(found.stored, found.delivered + found.skipped
                           + found.dead + found.waiting + found.lost);
    }

    return found;
}


function told(nginx) {
    return nginx.lines('warn').filter((line) =>
        line.includes('subscriber "gone" of environment "prod" is no longer '
                      + 'in the configuration; 17 events for it are kept'));
}


test('dead events are listed, delivered again, and forgotten',
     { timeout: 60000 }, async (t) =>
{
    const nginx = await owing(t);
    const one = { action: 'redeliver', environment: 'prod',
                  subscriber: 'gone', sequence: 7 };

    /* One that is no longer configured: told once, by one worker. */

    await until('the line', () => told(nginx).length > 0);
    await sleep(1500);
    assert.strictEqual(told(nginx).length, 1);

    let found = await gone(nginx);

    assert.deepStrictEqual(
        [found.configured, found.stored, found.delivered, found.dead,
         found.waiting, found.rows, found.redelivered],
        [false, 25, 8, 12, 5, 5, 0]);

    const metrics = await samples(nginx);
    const labels = '{environment="prod",subscriber="gone"}';

    assert.strictEqual(metrics[`nango_subscriber_dead${labels}`], 12);
    assert.strictEqual(metrics[`nango_subscriber_configured${labels}`], 0);
    assert.strictEqual(metrics[`nango_subscriber_stored_total${labels}`], 25);

    /* In pages. */

    const seen = [];
    const pages = [];
    let after = 0;

    do {
        const { status: code, json } = await once(nginx.port, get(
            `/manage?dead=1&environment=prod&subscriber=gone&limit=5`
            + `&after=${after}`));

        assert.strictEqual(code, 200);
        seen.push(...json.dead);
        pages.push(json.dead.length);
        after = json.next;
    } while (after);

    assert.deepStrictEqual(pages, [5, 5, 2]);

    assert.deepStrictEqual(seen.map((row) => row.sequence),
                           Array.from({ length: 12 }, (_, i) => i + 1));
    assert.deepStrictEqual(seen.map(({ attempts, status: code }) =>
        [attempts, code]), Array(12).fill([7, 500]));

    const waiting = await once(nginx.port, get(
        '/manage?waiting=1&environment=prod&subscriber=gone'));

    assert.deepStrictEqual(waiting.json.waiting.map((row) => row.sequence),
                           [13, 14, 15, 16, 17]);
    assert.ok(Date.parse(waiting.json.waiting[0].next_at) > Date.now());

    /* Of which environment is to be said. */

    assert.strictEqual((await act(nginx, { ...one, environment: undefined }))
        .status, 404);

    /* One, not twice, then all. */

    const first = await act(nginx, one);
    const second = await act(nginx, one);

    assert.deepStrictEqual([first.status, first.json],
        [200, { success: true, count: 1, more: false }]);
    assert.deepStrictEqual([second.status, second.json.error.code],
                           [404, 'event_not_found']);

    const all = await act(nginx, { ...one, sequence: undefined });

    assert.deepStrictEqual([all.status, all.json],
        [200, { success: true, count: 11, more: false }]);

    const none = await act(nginx, { ...one, sequence: undefined });

    assert.deepStrictEqual([none.status, none.json.count], [200, 0]);

    found = await gone(nginx);

    assert.deepStrictEqual([found.dead, found.waiting, found.rows,
                            found.redelivered], [0, 17, 17, 12]);

    /* The next generation says it again; and then it is forgotten. */

    nginx.kill(nginx.master, 'SIGHUP');
    await until('another line', () => told(nginx).length > 1);

    const forgot = await act(nginx, { action: 'forget', environment: 'prod',
                                      subscriber: 'gone' });

    assert.strictEqual(forgot.status, 200, forgot.text);
    assert.strictEqual(forgot.json.more, false);
    assert.strictEqual(await gone(nginx), undefined);

    const again = await act(nginx, { action: 'forget', environment: 'prod',
                                     subscriber: 'gone' });

    assert.strictEqual(again.status, 404);

    assert.deepStrictEqual(nginx.lines('notice')
        .map((line) => /nango: (\w+ of subscriber .*?), client/.exec(line))
        .filter((found) => found).map((found) => found[1]),
        ['redeliver of subscriber "gone" of environment "prod": 1',
         'redeliver of subscriber "gone" of environment "prod": 11',
         'redeliver of subscriber "gone" of environment "prod": 0',
         `forget of subscriber "gone" of environment "prod": ${
             forgot.json.count}`]);

    await sleep(1000);
    assert.strictEqual(told(nginx).length, 2);
    assert.deepStrictEqual(nginx.lines('emerg', 'alert', 'crit', 'error'), []);
});


/* A portion is a thousand. */

test('an act on thousands is done as a whole', { timeout: 60000 },
     async (t) =>
{
    const nginx = await owing(t, [], 2100);
    const answers = [];

    for (const action of ['redeliver', 'forget']) {
        const { status: code, json } = await act(nginx, { action,
            environment: 'prod', subscriber: 'gone' });

        answers.push([code, json]);
    }

    assert.deepStrictEqual(answers, [
        [200, { success: true, count: 2100, more: false }],
        [200, { success: true, count: 2105, more: false }]]);
    assert.strictEqual(await gone(nginx), undefined);
});


test('a parked subscriber is resumed', { timeout: 60000 }, async (t) => {
    const nginx = await owing(t, ['park']);

    assert.ok((await gone(nginx)).parked);

    const answer = await act(nginx, { action: 'resume', environment: 'prod',
                                      subscriber: 'gone' });

    assert.deepStrictEqual([answer.status, answer.json],
        [200, { success: true, count: 1, more: false }]);

    const found = await gone(nginx);

    assert.deepStrictEqual([found.parked, found.parked_at], [false, null]);

    const { json } = await once(nginx.port, get(
        '/manage?waiting=1&environment=prod&subscriber=gone'));

    assert.ok(json.waiting.every((row) =>
        row.next_at === null || Date.parse(row.next_at) <= Date.now()));
});


test('an act that waits for the disk holds up nobody, and is done',
     { timeout: 60000 }, async (t) =>
{
    const nginx = await owing(t);
    const body = Buffer.from('{"action":"redeliver","environment":"prod",'
                             + '"subscriber":"gone"}');
    const headers = { 'Content-Type': 'application/json' };

    /* The client of one stays, that of the other leaves; and nginx quits. */

    const release = await hold(t, nginx, 'state');
    const stays = new Wire(nginx.port);
    const leaves = new Wire(nginx.port);

    await stays.write(post('/manage', headers, body));
    await leaves.write(post('/manage', headers, body));
    await sleep(300);
    leaves.socket.destroy();

    for (let i = 0; i < 20; i++) {
        assert.strictEqual((await gone(nginx)).dead, 12);
    }

    nginx.kill(nginx.master, 'SIGHUP');
    await sleep(300);
    await release();

    const answer = await stays.answer();

    assert.strictEqual(answer.status, 200, answer.text);

    await until('all', async () => (await gone(nginx)).dead === 0);
    assert.strictEqual((await gone(nginx)).redelivered, 12);
    assert.deepStrictEqual(nginx.lines('emerg', 'alert', 'crit'), []);
});


test('a connection that nginx cuts while its act is under way',
     { timeout: 60000 }, async (t) =>
{
    const nginx = await owing(t);

    await nginx.stop();
    nginx.configure({ main: 'worker_shutdown_timeout 1s;' });
    await nginx.start();
    await until('the store', async () => (await status(nginx)).store.open);

    const release = await hold(t, nginx, 'state');
    const old = nginx.workers();
    const cut = act(nginx, { action: 'redeliver', environment: 'prod',
                             subscriber: 'gone' });

    await sleep(300);
    nginx.kill(nginx.master, 'SIGHUP');
    await assert.rejects(cut);
    await release();

    await until('the old workers to go', () => !nginx.workers()
        .some((pid) => old.includes(pid)));
    await until('all', async () => (await gone(nginx)).dead === 0);
    assert.deepStrictEqual(nginx.lines('emerg', 'alert', 'crit'), []);
});


test('no room in the pool of threads', { timeout: 60000 }, async (t) => {
    const nginx = await owing(t);
    const resume = { action: 'resume', environment: 'prod',
                     subscriber: 'gone' };

    await nginx.stop();
    nginx.configure({ workers: 1,
                      main: 'thread_pool default threads=1 max_queue=0;' });
    await nginx.start();
    await until('the store', async () => (await status(nginx)).store.open);

    const release = await hold(t, nginx, 'state');
    const first = act(nginx, resume);

    await sleep(300);

    const second = await act(nginx, resume);

    assert.deepStrictEqual([second.status, second.json.error.code],
                           [503, 'store_unavailable']);
    await release();
    assert.strictEqual((await first).status, 200);
});
