/*
 * Processes that come, go and stand still: upgrades of the binary and back, a
 * leader and a committer that are stopped as a debugger or a frozen container
 * stops them, and nginx that ends with work under way.
 */

'use strict';

const assert = require('node:assert');
const { execFileSync, spawn } = require('node:child_process');
const fs = require('node:fs');
const net = require('node:net');
const path = require('node:path');
const nodeTest = require('node:test');

const { Client, hmac, once } = require('./client');
const { Load } = require('./load');
const { assertFolded, assertKept, compile, reader } = require('./model');
const { create, sleep, until, ROOT, MODULE } = require('./nginx');
const { Traffic } = require('./traffic');
const { createNango, API_KEY } = require('../sim/nango');

const SEED = Number(process.env.NANGO_SEED || Date.now() % 1000000);

const KEY = 'signing-key-of-prod';
const MEMORY = 128 * 1024;

/* As long as it takes a busy machine; what is blocked is so for ever. */
const SOON = 5000;

const ENVIRONMENTS = [
    { name: 'prod', path: '/webhook', key: KEY, dedupes: true },
];

/* Secrets that have to be handed on from master to master. */
const SECRETS = { NANGO_TEST_API: API_KEY, NANGO_TEST_SIGNING: KEY };

const SERVER = `
    location = /webhook { nango_webhook; }
    location = /plain   { return 200 "plain\\n"; }
    location = /worker  { return 200 $pid; }
    location = /session {
        nango_owner         end_user_id $http_x_user;
        nango_session_reuse off;
        nango_session;
    }
    location = /connections {
        nango_owner  end_user_id $http_x_user;
        nango_expose connection_id;
        nango_connections;
    }
`;


function http(sim) {
    return `
    nango_store @STORE@;
    nango_environment prod {
        reconcile           off;
        api                 ${sim ? sim.url : 'http://127.0.0.1:1'};
        api_public          https://nango.example.com;
        api_key             env:NANGO_TEST_API;
        webhook_signing_key env:NANGO_TEST_SIGNING;
    }
    `;
}


/* None may hang: what waits for ever is a failure. */
function test(name, fn) {
    return nodeTest(name, { timeout: 60000 }, fn);
}


function delaySessions(sim, delay) {
    return sim.control('POST', 'faults', {
        add: { path: '/connect/sessions', delay_ms: delay },
    });
}


/* A Nango that takes its time for sessions. */
async function slowNango(t, delay) {
    const sim = await createNango({
        settings: { rate_limit: 100000 },
    }).listen();

    t.after(() => sim.close());

    if (delay) {
        await delaySessions(sim, delay);
    }

    return sim;
}


function creation(connection, size) {
    const event = {
        connectionId: connection,
        from: 'nango',
        operation: 'creation',
        provider: 'github',
        providerConfigKey: 'github',
        success: true,
        tags: { end_user_id: '42' },
        type: 'auth',
        padding: '',
    };
    const len = JSON.stringify(event).length;

    event.padding = 'x'.repeat(Math.max(0, (size || 0) - len));

    return JSON.stringify(event);
}


function signed(body) {
    return { 'Content-Type': 'application/json',
             'X-Nango-Hmac-Sha256': hmac(body, KEY) };
}


function send(nginx, body) {
    return once(nginx.port, 'POST', '/webhook', signed(body), body);
}


/*
 * On a connection of its own.  outcome is what came of it: undefined while
 * nothing has, else an answer or an error.
 */
function begin(nginx, method, url, headers, body) {
    const client = new Client(nginx.port);
    const one = { body, client, outcome: undefined };

    one.answer = client.request(method, url, headers, body);
    one.answer.then((answer) => { one.outcome = answer; },
                    (err) => { one.outcome = err; });

    return one;
}


function beginWebhook(nginx, body) {
    return begin(nginx, 'POST', '/webhook', signed(body), body);
}


async function list(nginx) {
    const answer = await once(nginx.port, 'GET', '/connections',
                              { 'X-User': '42' });

    assert.strictEqual(answer.status, 200, answer.text);

    return { names: answer.json.connections.map((c) => c.connection_id).sort(),
             sequence: answer.json.sequence };
}


/* How long it takes to be answered by who has nothing to do with us. */
async function plain(nginx) {
    const start = performance.now();

    assert.strictEqual((await once(nginx.port, 'GET', '/plain')).status, 200);

    return performance.now() - start;
}


/* A process's state as ps shows it, "T" if it is stopped. */
function state(pid) {
    const text = fs.readFileSync(`/proc/${pid}/stat`, 'latin1');

    return text.slice(text.lastIndexOf(')') + 2)[0];
}


function assertCalm(nginx) {
    assert.deepStrictEqual(nginx.lines('emerg', 'alert', 'crit'), []);
}


async function folded(nginx, read) {
    await until('the fold', () => {
        const { meta } = read(nginx.store, 'meta');

        return meta.applied === meta.last;
    });
}


/* Nothing that was answered is lost, and the state is the log's. */
async function assertAll(nginx, read, load) {
    await folded(nginx, read);

    const dump = read(nginx.store);

    assertKept(dump, load.webhooks);
    assertFolded(dump, new Map(load.webhooks.map(
        (one) => [one.hmac, one.event])));
}


async function running(t, options, env) {
    const nginx = await create(t, { http: http(), server: SERVER,
                                    ...options });

    await nginx.start({ ...SECRETS, ...env });

    if (!nginx.options.single) {
        await until('two workers', () => nginx.workers().length === 2);
    }

    return nginx;
}


/* The writer lock of the log, or of the state, until released. */
async function hold(t, nginx, name) {
    const child = spawn(compile(t, 'hold.c', '-llmdb'),
                        [nginx.store, name || 'log'],
                        { stdio: ['pipe', 'pipe', 'inherit'] });
    const ended = new Promise((resolve) => { child.once('exit', resolve); });

    t.after(() => child.kill('SIGKILL'));

    await new Promise((resolve, reject) => {
        child.once('error', reject);
        child.once('exit', reject);
        child.stdout.once('data', resolve);
    });

    return () => {
        child.stdin.end();
        return ended;
    };
}


/*
 * Another build of the module, where there is one. Those of t/sanitize/run do
 * not load without its nginx, and may be under way.
 */
function otherModule() {
    const build = path.join(ROOT, 'build');
    const names = fs.readdirSync(build).sort().map((name) => path.join(build,
        name, 'objs/ngx_http_nango_module.so'));

    return names.find((file) => file !== MODULE
                      && !/-(sanitize|thread|memcheck)\//.test(file)
                      && fs.existsSync(file)) || MODULE;
}


/* As "install" does: whoever has the old file open keeps it. */
function install(nginx, module) {
    const file = path.join(nginx.dir, 'module.so');

    fs.copyFileSync(module, `${file}.new`);
    fs.renameSync(`${file}.new`, file);
}


async function upgradable(t) {
    const sim = await slowNango(t, 300);
    const nginx = await create(t, {
        http: http(sim), daemon: true, module: '@DIR@/module.so',
        server: `listen unix:@DIR@/socket;\n${SERVER}`,
    });

    install(nginx, MODULE);
    t.diagnostic(`seed ${SEED}`);

    await nginx.start(SECRETS);
    await until('two workers', () => nginx.workers().length === 2);

    return nginx;
}


/* Through the socket that is a file. */
function unixStatus(nginx) {
    return new Promise((resolve, reject) => {
        const socket = net.connect(path.join(nginx.dir, 'socket'));
        let text = '';

        socket.on('error', reject);
        socket.on('data', (data) => { text += data; });
        socket.on('end', () => resolve(Number(text.split(' ')[1])));
        socket.write('GET /connections HTTP/1.0\r\nX-User: 42\r\n\r\n');
    });
}


test('an upgrade of the binary, under load', async (t) => {
    const read = reader(t);
    const nginx = await upgradable(t);
    const old = nginx.master;
    const other = otherModule();
    const traffic = new Traffic(nginx.port, {
        seed: SEED, environments: ENVIRONMENTS,
    }).run();

    t.after(() => traffic.stop().catch(() => {}));
    t.diagnostic(`to ${path.relative(ROOT, other)}`);

    await traffic.goOn(700);

    /* One that does not even load costs nothing. */

    fs.writeFileSync(path.join(nginx.dir, 'module.so.new'), 'garbage');
    fs.renameSync(path.join(nginx.dir, 'module.so.new'),
                  path.join(nginx.dir, 'module.so'));
    nginx.kill(old, 'SIGUSR2');
    await until('the refusal', () => nginx.lines('emerg').length);
    await until('the old one to notice', () => nginx.pid() === old);

    const refusals = nginx.lines('emerg', 'alert', 'crit');

    assert.ok(refusals.every((line) => /dlopen/.test(line)),
              refusals.join('\n'));
    await traffic.goOn(300);

    install(nginx, other);
    traffic.generation++;

    const fresh = await nginx.upgrade();

    await until('new workers', () => nginx.workersOf(fresh).length === 2);
    assert.strictEqual(nginx.workersOf(old).length, 2);
    await traffic.goOn(700);

    /* Both write one store, and one of the old ones leads. */

    assert.ok(nginx.workersOf(old).includes(nginx.leader()));
    assert.strictEqual(await unixStatus(nginx), 200);

    nginx.kill(old, 'SIGWINCH');
    traffic.generation++;
    await until('the old workers to go',
                () => nginx.workersOf(old).length === 0);
    await until('a new leader', () => nginx.workersOf(fresh)
        .includes(nginx.leader()), 3000);
    await traffic.goOn(500);

    nginx.kill(old, 'SIGQUIT');
    await until('the old master to go', () => !nginx.alive(old));
    await traffic.goOn(500);

    assert.strictEqual(nginx.pid(), fresh);
    assert.strictEqual(await unixStatus(nginx), 200);
    assert.strictEqual(nginx.workers().length, 2);

    nginx.follow(fresh);
    await traffic.stop();
    t.diagnostic(String(traffic));

    assert.ok(traffic.spanned >= 2);
    await assertAll(nginx, read, traffic.load);

    assert.deepStrictEqual(nginx.lines('emerg', 'alert', 'crit'), refusals);
    assert.ok(await nginx.stop(), 'nginx does not end');
    assert.deepStrictEqual(nginx.lines('emerg', 'alert', 'crit'), refusals);
});


test('an upgrade that is taken back, under load', async (t) => {
    const read = reader(t);
    const nginx = await upgradable(t);
    const old = nginx.master;
    const traffic = new Traffic(nginx.port, {
        seed: SEED + 1, environments: ENVIRONMENTS,
    }).run();

    t.after(() => traffic.stop().catch(() => {}));

    await traffic.goOn(500);
    install(nginx, otherModule());
    traffic.generation++;

    const fresh = await nginx.upgrade();

    await until('new workers', () => nginx.workersOf(fresh).length === 2);
    nginx.kill(old, 'SIGWINCH');
    await until('the old workers to go',
                () => nginx.workersOf(old).length === 0);
    await until('a new leader', () => nginx.workersOf(fresh)
        .includes(nginx.leader()), 3000);
    await traffic.goOn(700);

    traffic.generation++;
    nginx.kill(old, 'SIGHUP');
    await until('the old master\'s workers',
                () => nginx.workersOf(old).length === 2);
    await traffic.goOn(500);

    nginx.kill(fresh, 'SIGQUIT');
    await until('the new master to go', () => !nginx.alive(fresh)
                && nginx.workers().length === 2);
    await until('an old leader', () => nginx.workersOf(old)
        .includes(nginx.leader()), 3000);
    await until('its pid', () => nginx.pid() === old);
    await traffic.goOn(700);

    assert.strictEqual(await unixStatus(nginx), 200);
    await traffic.stop();
    t.diagnostic(String(traffic));

    assert.ok(traffic.spanned >= 2);
    await assertAll(nginx, read, traffic.load);

    /* And it can be reloaded again. */

    const before = nginx.workers();

    nginx.kill(old, 'SIGHUP');
    await until('the workers to change', () => nginx.workers().length === 2
                && !nginx.workers().some((pid) => before.includes(pid)));
    assert.ok((await list(nginx)).sequence
              >= traffic.load.acknowledged);

    assertCalm(nginx);
    assert.ok(await nginx.stop(), 'nginx does not end');
    assertCalm(nginx);
});


test('a worker that is shutting down leads for the new ones', async (t) => {
    const sim = await slowNango(t, 5000);
    const nginx = await running(t, { http: http(sim) });
    const old = nginx.workers();
    const leader = await until('a leader', () => nginx.leader());

    /* Both workers have one that they wait for. */

    const clients = new Map();

    while (clients.size < 2) {
        const client = new Client(nginx.port);

        t.after(() => client.close());
        clients.set((await client.request('GET', '/worker')).text, client);
    }

    const sessions = [...clients].map(([pid, client]) => ({ client,
        answer: client.request('POST', '/session', { 'X-User': pid }) }));

    await sleep(300);
    nginx.kill(nginx.master, 'SIGHUP');
    await until('new workers', () => nginx.workers().length === 4);
    await sleep(300);

    for (let i = 0; i < 5; i++) {
        const { status, json } = await send(nginx, creation(`c-${i}`));

        assert.strictEqual(status, 200);
        assert.strictEqual((await list(nginx)).sequence, json.sequence);
    }

    assert.strictEqual(nginx.leader(), leader);
    assert.ok(old.includes(leader));

    for (const { answer, client } of sessions) {
        assert.strictEqual((await answer).status, 200);
        client.close();
    }

    await until('the old workers to go', () => nginx.workers().length === 2);
    await until('another leader', () => nginx.leader());
    assert.strictEqual((await send(nginx, creation('last'))).status, 200);
    assert.strictEqual((await list(nginx)).names.length, 6);
    assertCalm(nginx);
});


test('a leader that is stopped', async (t) => {
    const nginx = await running(t);
    const leader = await until('a leader', () => nginx.leader());

    assert.strictEqual((await send(nginx, creation('first'))).status, 200);
    assert.deepStrictEqual((await list(nginx)).names, ['first']);

    nginx.kill(leader, 'SIGSTOP');
    await until('it to stop', () => state(leader) === 'T');

    /* The other one goes on; what it cannot see it waits for, a second long. */

    for (let i = 0; i < 20; i++) {
        assert.strictEqual((await send(nginx, creation(`c-${i}`))).status,
                           200);
    }

    const start = performance.now();
    const old = await list(nginx);
    const took = performance.now() - start;

    assert.deepStrictEqual(old, { names: ['first'], sequence: 1 });
    assert.ok(took > 900 && took < 10000, `${took} ms`);
    assert.ok(await plain(nginx) < SOON);

    /* A large one, too, whose thread takes no lock. */

    assert.strictEqual(
        (await send(nginx, creation('large', 2 * MEMORY))).status, 200);

    assert.strictEqual(nginx.leader(), leader);
    nginx.kill(leader, 'SIGCONT');

    const all = await list(nginx);

    assert.strictEqual(all.names.length, 22);
    assert.strictEqual(all.sequence, 22);
    assertCalm(nginx);

    /* Killed instead, another takes over within a second. */

    const again = await until('a leader', () => nginx.leader());

    nginx.kill(again, 'SIGSTOP');
    await until('it to stop', () => state(again) === 'T');
    assert.strictEqual((await send(nginx, creation('late'))).status, 200);
    assert.strictEqual((await list(nginx)).names.length, 22);
    nginx.kill(again, 'SIGKILL');
    await until('another leader', () => nginx.leader());
    assert.strictEqual((await list(nginx)).names.length, 23);
    assert.deepStrictEqual(nginx.lines('emerg', 'crit'), []);
});


test('clients that leave before a worker gets to them', async (t) => {
    const sim = await slowNango(t, 5000);
    const nginx = await running(t, {
        http: `log_format status $status;\n${http(sim)}`,
        server: `access_log @DIR@/status.log status;\n${SERVER}`,
    });
    const workers = nginx.workers();
    const statuses = () => fs.readFileSync(path.join(nginx.dir, 'status.log'),
        'latin1').split('\n').filter((status) => status);

    workers.forEach((pid) => nginx.kill(pid, 'SIGSTOP'));

    for (const pid of workers) {
        await until('it to stop', () => state(pid) === 'T');
    }

    const gone = Array.from({ length: 20 }, (_, i) => begin(nginx, 'POST',
        '/session', { 'X-User': `u${i}` }));

    await sleep(200);
    gone.forEach(({ client }, i) => client.close(i % 2 === 0));
    workers.forEach((pid) => nginx.kill(pid, 'SIGCONT'));

    /* Long before Nango answers, and nobody waits behind them. */

    await until('them to be seen', () => statuses().length === 20, 4000);
    assert.deepStrictEqual(new Set(statuses()), new Set(['499']));
    assert.strictEqual((await once(nginx.port, 'POST', '/session',
                                   { 'X-User': '42' })).status, 200);
    assertCalm(nginx);
});


/* A worker that holds the log's writer lock, and the webhook it has taken. */
async function stopped(t) {
    const stop = compile(t, 'stop.c', '-shared', '-fPIC', '-ldl');
    const nginx = await create(t, {
        http: http(), server: SERVER, connections: 4096,
    });
    const dir = path.join(nginx.dir, 'stop');

    fs.mkdirSync(dir);
    fs.chmodSync(dir, 0o777);

    await nginx.start({ ...SECRETS, LD_PRELOAD: stop,
                        NANGO_STOP: path.join(dir, 'now') });
    await until('two workers', () => nginx.workers().length === 2);
    assert.strictEqual((await send(nginx, creation('first'))).status, 200);
    await until('a leader', () => nginx.leader());
    await list(nginx);

    fs.writeFileSync(path.join(dir, 'now'), '');

    const taken = beginWebhook(nginx, creation('taken'));
    const worker = await until('a worker to stop', () => nginx.workers().find(
        (pid) => state(pid) === 'T'));

    return { nginx, worker, taken };
}


for (const end of ['goes on', 'is killed']) {
    test(`a worker that is stopped in mid-transaction, and ${end}`,
         async (t) =>
    {
        const read = reader(t);
        const { nginx, worker, taken } = await stopped(t);

        /* The others wait for the lock, and nobody else waits for them. */

        const sent = Array.from({ length: 20 }, (_, i) => beginWebhook(nginx,
            creation(`c-${i}`, i % 10 ? 0 : 2 * MEMORY)));

        assert.ok(await plain(nginx) < SOON);
        await sleep(1500);
        assert.ok(await plain(nginx) < SOON);
        assert.deepStrictEqual(sent.filter((one) => one.outcome), []);

        const before = await list(nginx);

        assert.deepStrictEqual(before, { names: ['first'], sequence: 1 });

        /* A client that does not wait loses nothing but its answer. */

        const impatient = sent.pop();

        impatient.client.close();

        nginx.kill(worker, end === 'goes on' ? 'SIGCONT' : 'SIGKILL');

        const answers = await Promise.all(sent.map((one) => one.answer));

        assert.ok(answers.every(({ status }) => status === 200));
        assert.ok(answers.every(({ json }) => !json.duplicate));
        assert.strictEqual(new Set(answers.map(
            ({ json }) => json.sequence)).size, 19);

        if (end === 'goes on') {
            assert.strictEqual((await taken.answer).json.sequence, 2);

        } else {
            await assert.rejects(taken.answer, /cut after 0 bytes/);
            await until('another worker', () => nginx.workers().length === 2);
        }

        /* Nango repeats what it got no answer to. */

        const repeated = await send(nginx, creation('taken'));
        const orphan = await send(nginx, impatient.body);

        assert.strictEqual(repeated.status, 200);
        assert.strictEqual(repeated.json.duplicate,
                           end === 'goes on' ? true : undefined);
        assert.strictEqual(orphan.json.duplicate, true);

        await until('a leader', () => nginx.leader());
        await folded(nginx, read);

        const { events } = read(nginx.store);

        assert.strictEqual(new Set(events.map((one) => one.hmac)).size, 22);
        assert.deepStrictEqual(events.map((one) => one.sequence),
                               Array.from({ length: 22 }, (_, i) => i + 1));
        assert.strictEqual((await list(nginx)).names.length, 22);

        sent.forEach(({ client }) => client.close());
        taken.client.close();

        assert.deepStrictEqual(nginx.lines('emerg', 'alert', 'crit').filter(
            (line) => !/exited on signal 9/.test(line)), []);
        assert.ok(await nginx.stop(), 'nginx does not end');
    });
}


test('what waits for a worker that is stopped is bounded', async (t) => {
    const { nginx, worker, taken } = await stopped(t);
    const [other] = nginx.workers().filter((pid) => pid !== worker);
    const sent = Array.from({ length: 620 }, (_, i) => beginWebhook(nginx,
        creation(`c-${i}`, 120 * 1024)));

    /* 64 MB, and as many as were on their way into the log. */

    await until('refusals', () => sent.some((one) => one.outcome));
    await sleep(1000);

    const refused = sent.filter((one) => one.outcome);

    for (const { outcome } of refused) {
        assert.strictEqual(outcome.status, 503);
        assert.strictEqual(outcome.headers['x-nango-error'],
                           'store_unavailable');
    }

    const memory = Number(/^Anonymous:\s+(\d+)/m.exec(fs.readFileSync(
        `/proc/${other}/smaps_rollup`, 'latin1'))[1]) / 1024;

    t.diagnostic(`${refused.length} of 620 refused, ${memory | 0} MB`);
    assert.ok(refused.length > 5 && refused.length < 160);
    assert.ok(memory < 256, `${memory} MB`);
    assert.ok(await plain(nginx) < SOON);

    nginx.kill(worker, 'SIGCONT');

    for (const one of sent) {
        const { status } = await one.answer;

        assert.strictEqual(status, refused.includes(one) ? 503 : 200);
        one.client.close();
    }

    for (const { body } of refused.slice(0, 3)) {
        assert.strictEqual((await send(nginx, body)).json.duplicate,
                           undefined);
    }

    assert.strictEqual((await taken.answer).status, 200);
    taken.client.close();
    assertCalm(nginx);
});


test('a reload while a worker is stopped in mid-transaction', async (t) => {
    const { nginx, worker, taken } = await stopped(t);
    const before = nginx.workers();

    /* The other old one, which has the store open, has to be gone. */

    nginx.kill(nginx.master, 'SIGHUP');
    await until('new workers', () => nginx.workers().filter(
        (pid) => !before.includes(pid)).length === 2
        && nginx.workers().length === 3);

    /* They cannot open the store before, and nothing else waits for that. */

    const sent = Array.from({ length: 10 }, (_, i) => beginWebhook(nginx,
        creation(`c-${i}`)));

    assert.ok(await plain(nginx) < SOON);

    const refused = await once(nginx.port, 'GET', '/connections',
                               { 'X-User': '42' });

    assert.strictEqual(refused.status, 503);
    assert.ok(await plain(nginx) < SOON);
    assert.deepStrictEqual(sent.filter((one) => one.outcome), []);

    nginx.kill(worker, 'SIGCONT');

    for (const { answer, client } of [taken, ...sent]) {
        assert.strictEqual((await answer).status, 200);
        client.close();
    }

    await until('the old worker to go', () => !nginx.alive(worker));
    await until('a leader', () => nginx.leader());
    assert.strictEqual((await list(nginx)).names.length, 12);
    assertCalm(nginx);
    assert.ok(await nginx.stop(), 'nginx does not end');
    assertCalm(nginx);
});


test('a fold that is stuck does not stop the log', async (t) => {
    const fill = compile(t, 'fill.c', '-llmdb');
    const nginx = await running(t);
    const leader = await until('a leader', () => nginx.leader());

    assert.strictEqual((await send(nginx, creation('first'))).status, 200);
    await list(nginx);

    nginx.kill(leader, 'SIGSTOP');
    await until('it to stop', () => state(leader) === 'T');

    execFileSync(fill, [nginx.store, '70000']);

    /* It is waited for once, and not for each webhook. */

    const start = performance.now();

    for (let i = 0; i < 20; i++) {
        const { status, json } = await send(nginx, creation(`c-${i}`));

        assert.strictEqual(status, 200);
        assert.strictEqual(json.sequence, 70002 + i);
    }

    const took = performance.now() - start;

    t.diagnostic(`${took | 0} ms`);
    assert.ok(took < 15000, `${took} ms`);

    nginx.kill(leader, 'SIGCONT');
    await until('the fold', async () =>
        (await list(nginx)).sequence === 70021);
    assert.strictEqual((await list(nginx)).names.length, 21);
    assertCalm(nginx);
});


/* A connection that a request has gone over, and that stays. */
async function idle(nginx) {
    const client = new Client(nginx.port);

    await client.request('GET', '/plain');

    return client;
}


/*
 * Of everything that can be under way, some, in a worker that ends: webhooks
 * in the queue and in the pool, one that is half here, sessions that Nango
 * does not answer, lists that wait for the fold, and nothing at all.
 */
function beginEverything(nginx, prefix) {
    const half = creation(`${prefix}-half`, 4 * MEMORY);

    return {
        webhooks: Array.from({ length: 12 }, (_, i) => beginWebhook(nginx,
            creation(`${prefix}-${i}`, i % 4 ? 0 : 2 * MEMORY))),
        half: begin(nginx, 'POST', '/webhook', {
            ...signed(half), 'Content-Length': half.length,
        }, half.slice(0, 2 * MEMORY)),
        sessions: Array.from({ length: 8 }, (_, i) => begin(nginx, 'POST',
            '/session', { 'X-User': `u${i}` })),
        lists: Array.from({ length: 4 }, () => begin(nginx, 'GET',
            '/connections', { 'X-User': '42' })),
    };
}


function allOf({ webhooks, half, sessions, lists }) {
    return [...webhooks, half, ...sessions, ...lists];
}


for (const how of ['reload', 'quit']) {
    test(`worker_shutdown_timeout and everything under way: ${how}`,
         async (t) =>
    {
        const read = reader(t);
        const sim = await slowNango(t, 0);
        const nginx = await running(t, {
            http: http(sim), main: 'worker_shutdown_timeout 1s;',
        });
        const workers = nginx.workers();

        assert.strictEqual((await send(nginx, creation('first'))).status, 200);
        await list(nginx);

        /* Connections to Nango that are kept, some of which it has closed. */

        const quick = Array.from({ length: 16 }, (_, i) => begin(nginx, 'POST',
            '/session', { 'X-User': `q${i}` }));

        for (const { answer, client } of quick) {
            assert.strictEqual((await answer).status, 200);
            client.close();
        }

        sim.server.closeIdleConnections();
        await delaySessions(sim, 8000);

        /* One is in the log and not in the state: lists wait for it. */

        const releaseState = await hold(t, nginx, 'state');

        assert.strictEqual((await send(nginx, creation('seen'))).status, 200);

        const releaseLog = await hold(t, nginx);
        const kept = [await idle(nginx), await idle(nginx)];
        const everything = beginEverything(nginx, how);

        await until('the bodies', () => fs.readdirSync(path.join(nginx.store,
            'bodies')).length === 3);
        await until('the half', () => fs.readdirSync(path.join(nginx.store,
            'temp')).length === 1);
        await sleep(200);

        const start = performance.now();

        nginx.kill(nginx.master, how === 'reload' ? 'SIGHUP' : 'SIGQUIT');

        /* Clients are let go in time. */

        await until('clients to be cut', () => allOf(everything).every(
            (one) => one.outcome), 6000);

        assert.ok(performance.now() - start > 800);

        for (const { outcome } of [...everything.webhooks,
                                   ...everything.sessions, everything.half])
        {
            assert.match(String(outcome.message || outcome.text),
                         /cut after 0 bytes/);
        }

        await releaseState();
        await releaseLog();

        /* What was queued is written, and nobody waits for Nango. */

        await until('the old workers to go', () => !workers.some(
            (pid) => nginx.alive(pid)), 3000);

        if (how === 'reload') {
            await until('new ones', () => nginx.workers().length === 2);

        } else {
            await until('the master to go', () => !nginx.alive(nginx.master));
            await nginx.killAll();
            await nginx.start(SECRETS);
        }

        for (const { body } of everything.webhooks) {
            assert.strictEqual((await send(nginx, body)).json.duplicate, true);
        }

        assert.strictEqual((await list(nginx)).names.length, 14);
        assert.deepStrictEqual(fs.readdirSync(path.join(nginx.store,
            'temp')), []);

        await folded(nginx, read);
        assert.strictEqual(read(nginx.store).events.length, 14);

        [...allOf(everything), ...kept.map((client) => ({ client }))]
            .forEach(({ client }) => client.close());
        assertCalm(nginx);
        assert.ok(await nginx.stop(), 'nginx does not end');
        assertCalm(nginx);
    });
}


test('SIGTERM under load: what was answered is there', async (t) => {
    const read = reader(t);
    const nginx = await running(t);

    t.diagnostic(`seed ${SEED}`);

    const load = new Load({
        port: nginx.port, seed: SEED + 2, environments: ENVIRONMENTS, pause: 4,
        large: 0.03,
        again: (error, answer, attempt) => {
            if (error && !error.cut || answer || attempt === 100) {
                throw error || new Error(`${answer.status}: ${answer.text}`);
            }

            return 50;
        },
    }).run();

    t.after(() => load.stop().catch(() => {}));

    for (let i = 0; i < 4; i++) {
        await Promise.race([sleep(400 + 50 * i), load.running]);

        const { master } = nginx;
        const workers = nginx.workers();

        nginx.kill(master, 'SIGTERM');
        await until('all to end', () => !nginx.alive(master)
                    && !workers.some((pid) => nginx.alive(pid)), 3000);
        await nginx.start(SECRETS);
    }

    await sleep(300);
    await load.stop();
    t.diagnostic(`${load.webhooks.length} webhooks, ${load.cuts} cut`);

    assert.ok(load.cuts >= 4);
    await assertAll(nginx, read, load);
    assert.deepStrictEqual(fs.readdirSync(path.join(nginx.store, 'temp')), []);
    assertCalm(nginx);
});


for (const [signal, ends] of [['SIGTERM', true], ['SIGQUIT', false]]) {
    test(`${signal} while a worker is stopped in mid-transaction`,
         async (t) =>
    {
        const { nginx, worker, taken } = await stopped(t);
        const { master } = nginx;
        const workers = nginx.workers();
        const sent = Array.from({ length: 5 }, (_, i) => beginWebhook(nginx,
            creation(`c-${i}`)));

        await sleep(300);
        nginx.kill(master, signal);

        /* The master kills who does not go within a second, or waits. */

        if (!ends) {
            await sleep(1500);
            assert.ok(workers.every((pid) => nginx.alive(pid)));
            nginx.kill(worker, 'SIGCONT');
        }

        await until('all to end', () => !nginx.alive(master)
                    && !workers.some((pid) => nginx.alive(pid)), 5000);

        const all = [taken, ...sent];
        const answered = await until('an outcome of each',
            () => all.every((one) => one.outcome)
                  && all.filter((one) => one.outcome.status === 200));

        assert.strictEqual(answered.length, ends ? 0 : 6);

        await nginx.start(SECRETS);

        /* The lock is free, and what was not answered may be sent again. */

        for (const { body, client } of all) {
            assert.strictEqual((await send(nginx, body)).status, 200);
            client.close();
        }

        assert.strictEqual((await list(nginx)).names.length, 7);
        assert.deepStrictEqual(nginx.lines('emerg', 'alert', 'crit').filter(
            (line) => !/exited on signal 9/.test(line)), []);
    });
}


for (const signal of ['SIGTERM', 'SIGQUIT']) {
    test(`without a master: start, work and ${signal}`, async (t) => {
        const read = reader(t);
        const sim = await slowNango(t, 0);
        const nginx = await running(t, {
            http: http(sim), single: true, main: 'master_process off;',
        });

        assert.deepStrictEqual(nginx.workers(), []);

        for (let i = 0; i < 10; i++) {
            assert.strictEqual((await send(nginx,
                creation(`c-${i}`, i % 5 ? 0 : 2 * MEMORY))).status, 200);
        }

        assert.strictEqual((await list(nginx)).names.length, 10);
        assert.strictEqual((await once(nginx.port, 'POST', '/session',
                                       { 'X-User': '42' })).status, 200);

        /* What is queued is written, if nobody is told. */

        const release = await hold(t, nginx);
        const sent = Array.from({ length: 5 }, (_, i) => beginWebhook(nginx,
            creation(`late-${i}`)));

        await sleep(300);
        nginx.kill(nginx.master, signal);
        await sleep(200);
        await release();
        await until('it to end', () => !nginx.alive(nginx.master));

        await nginx.start(SECRETS);
        assert.strictEqual((await list(nginx)).names.length, 15);

        for (const { body, client } of sent) {
            assert.strictEqual((await send(nginx, body)).json.duplicate, true);
            client.close();
        }

        assert.strictEqual(read(nginx.store).events.length, 15);
        assertCalm(nginx);
        assert.ok(await nginx.stop(), 'nginx does not end');
        assertCalm(nginx);
    });
}
