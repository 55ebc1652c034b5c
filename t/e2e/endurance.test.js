/*
 * What stays behind: memory, descriptors and readers of the store over many
 * reloads, and over many requests of each kind, those that are refused and
 * those whose client leaves included.
 *
 * Memory is what a process has of its own, "Anonymous" in smaps_rollup.  The
 * store's maps are files: how much of them is resident grows with the log, and
 * goes again when somebody needs the memory.  smaps_rollup counts pages, where
 * RssAnon in status may be wrong by some hundred kilobytes.
 *
 * A thousand reloads and a million requests of each kind with NANGO_LONG=1,
 * some dozens and some thousands without.
 */

'use strict';

const assert = require('node:assert');
const { spawn } = require('node:child_process');
const fs = require('node:fs');
const path = require('node:path');
const { test } = require('node:test');

const { hmac, once } = require('./client');
const { compile, reader } = require('./model');
const { create, sleep, until } = require('./nginx');

const LONG = Boolean(process.env.NANGO_LONG);

const KEY = 'signing-key-of-prod';
const API_KEY = 'b3a1c0de-0000-4000-8000-00000000abcd';

const RELOADS = LONG ? 1000 : 40;
const ENVIRONMENTS = 40;

const REQUESTS = Number(process.env.NANGO_REQUESTS
                        || (LONG ? 1000000 : 4000));
const STEPS = LONG ? 32 : 8;
const CLIENTS = 16;

/* What a worker remembers of an event to tell duplicates. */
const REMEMBERED = 88;
const REMEMBERED_MAX = 1024 * 1024;

const MB = 1024 * 1024;

/* More than this would be a leak; what was seen is half of it at most. */
const RELOAD_BOUND = 64 * 1024;
const WORKERS_BOUND = MB;
const REQUESTS_BOUND = MB / 2;

/* The leader's in the store; now and then there is none yet. */
const PLACES = 1;

/* How many webhooks wait at once is a matter of chance. */
const CUT_BOUND = LONG ? MB : 2 * MB;

/* To Nango, in a worker; they are kept. */
const CONNECTIONS = 8;


function field(pid, file, name) {
    const text = fs.readFileSync(`/proc/${pid}/${file}`, 'latin1');

    return Number(new RegExp(`^${name}:\\s+(\\d+)`, 'm').exec(text)[1]);
}


/* Of one process, memory in bytes. */
function look(pid) {
    return {
        memory: 1024 * field(pid, 'smaps_rollup', 'Anonymous'),
        threads: field(pid, 'status', 'Threads'),
        fds: fs.readdirSync(`/proc/${pid}/fd`).length,
    };
}


function sum(list, name) {
    return list.reduce((total, one) => total + one[name], 0);
}


/* Of several processes together, and of the store. */
async function lookAll(pids, readers, nginx) {
    const all = pids.map(look);

    return {
        memory: sum(all, 'memory'),
        threads: sum(all, 'threads'),
        fds: sum(all, 'fds'),
        ...await run(readers, [nginx.store]),
    };
}


/* Runs a program and resolves to what it prints, as JSON. */
function run(program, args, input) {
    return new Promise((resolve, reject) => {
        const child = spawn(program, args.map(String),
                            { stdio: ['pipe', 'pipe', 'inherit'] });
        let text = '';

        child.stdin.on('error', () => {});
        child.stdin.end(input);
        child.stdout.on('data', (data) => { text += data; });
        child.once('error', reject);
        child.once('close', (code) => (code === 0
            ? resolve(JSON.parse(text))
            : reject(new Error(`${path.basename(program)} ended: ${code}`))));
    });
}


/*
 * How much more there is in the last quarter than in the second one, at least:
 * the first half is for whatever grows to its size and stays there.
 */
function growth(samples, name) {
    const quarter = samples.length >> 2;
    const least = (list) => Math.min(...list.map((one) => one[name]));

    return least(samples.slice(-quarter))
           - least(samples.slice(quarter, 2 * quarter));
}


function kb(bytes) {
    return `${Math.round(bytes / 1024)} KB`;
}


function assertCalm(nginx) {
    const lines = nginx.lines('emerg', 'alert', 'crit', 'error');

    assert.strictEqual(lines.length, 0, lines.slice(0, 5).join('\n'));
}


/*
 * Secrets from everywhere: all that a master reads anew.  What was waiting for
 * the subscriber would be in the leader's memory, and more at each reload.
 */
function environments(dir) {
    fs.writeFileSync(path.join(dir, 'api.key'), `${API_KEY}\n`,
                     { mode: 0o600 });
    fs.writeFileSync(path.join(dir, 'signing.key'),
                     `${KEY}\nan-older-signing-key\n`, { mode: 0o600 });

    return Array.from({ length: ENVIRONMENTS }, (_, i) => `
    nango_environment env-${i} {
        reconcile           off;
        api                 https://nango-${i}.example.com;
        connect_ui          https://connect-${i}.example.com;
        api_key             file:api.key;
        webhook_signing_key file:signing.key env:NANGO_TEST_KEY;
        webhook_signing_key data:one-more-signing-key;
        account             account-${i};
        session_format      both;
        deliver app         http://127.0.0.1:1/ types=sync
                            "header=X-Key:file:api.key";
    }`).join('\n');
}


const RELOADED = `
    location = /webhook  { nango_webhook env-0; }
    location = /sessions {
        nango_owner        end_user_id $http_x_user;
        nango_owner        organization_id $http_x_organization;
        nango_tag          plan free;
        nango_integrations github slack;
        nango_session      env-0;
    }
    location = /connections {
        nango_owner  end_user_id $http_x_user;
        nango_expose connection_id tags;
        nango_connections env-0;
    }
    location = /events {
        nango_owner  end_user_id $http_x_user;
        nango_events env-0;
    }
    location = /needs {
        nango_owner   end_user_id $http_x_user;
        nango_require env-0 github optional credentials;
        empty_gif;
    }
    location = /manage { nango_status manage; }
`;


test(`${RELOADS} reloads leave nothing behind`,
     { timeout: LONG ? 1800000 : 60000 }, async (t) =>
{
    const readers = compile(t, 'readers.c', '-llmdb');
    const nginx = await create(t, {});
    const secret = path.join(nginx.dir, 'api.key');
    const every = Math.ceil(RELOADS / 40);
    const refused = () => nginx.lines('emerg').length;

    nginx.configure({
        http: `nango_store @STORE@;\n${environments(nginx.dir)}`,
        server: RELOADED,
    });

    await nginx.start({ NANGO_TEST_KEY: 'a-signing-key-of-the-environment' });
    await until('two workers', () => nginx.workers().length === 2);

    const masters = [];
    const workers = [];
    let failed = 0;

    for (let i = 0; i < RELOADS; i++) {
        const body = JSON.stringify({ type: 'auth', number: i });
        const old = nginx.workers();

        assert.strictEqual((await once(nginx.port, 'POST', '/webhook', {
            'X-Nango-Hmac-Sha256': hmac(body, KEY),
        }, body)).status, 200);

        /* Now and then one that goes wrong half way. */

        if (i % 5 === 4) {
            fs.renameSync(secret, `${secret}.away`);
            nginx.kill(nginx.master, 'SIGHUP');
            await until('the refusal', () => refused() > failed);
            fs.renameSync(`${secret}.away`, secret);
            failed = refused();
        }

        nginx.kill(nginx.master, 'SIGHUP');

        await until('the workers to change', () => {
            const now = nginx.workers();

            return now.length === 2 && !now.some((pid) => old.includes(pid));
        });

        if (i % every === 0) {
            assert.strictEqual((await once(nginx.port, 'GET', '/connections',
                { 'X-User': '42' })).status, 200);

            masters.push(look(nginx.master));
            workers.push(await lookAll(nginx.workers(), readers, nginx));
        }
    }

    const more = growth(masters, 'memory');
    const workersMore = growth(workers, 'memory');

    t.diagnostic('master: '
        + `${masters.map((one) => one.memory / 1024).join(' ')} KB`);
    t.diagnostic(`growth: master ${kb(more)}, two workers ${kb(workersMore)}; `
        + `${JSON.stringify(masters.at(-1))}, `
        + `${JSON.stringify(workers.at(-1))}`);

    assert.strictEqual(failed, Math.floor(RELOADS / 5));

    for (const name of ['fds', 'threads']) {

        /* A worker that has just ended may not have been waited for yet. */
        assert.strictEqual(growth(masters, name), 0, name);
    }

    for (const name of ['log', 'state']) {
        const places = growth(workers, name);

        assert.ok(places <= PLACES, `${places} places in the ${name}`);
    }

    assert.ok(more < RELOAD_BOUND, `the master: ${kb(more)}`);
    assert.ok(workersMore < WORKERS_BOUND, `the workers: ${kb(workersMore)}`);
    assert.deepStrictEqual(nginx.lines('alert', 'crit'), []);
    assert.ok(await nginx.stop(), 'nginx does not end');
});


/* The same answer from Nango to everybody. */
const SESSION = JSON.stringify({
    data: {
        token: `nango_connect_session_${'9a'.repeat(32)}`,
        connect_link: 'https://connect.nango.dev/?session_token=x',
        expires_at: '2026-11-23T08:57:04.081Z',
    },
});

const STUB = `
    location = /connect/sessions {
        default_type application/json;
        return 201 '${SESSION}';
    }
    location = /hook { return 204; }
    location = /slow/connect/sessions {
        limit_req zone=slow burst=100;
        try_files /none @session;
    }
    location @session {
        default_type application/json;
        return 201 '${SESSION}';
    }
`;

const STUB_HTTP = 'limit_req_zone $server_port zone=slow:64k rate=300r/s;';


function http(stub) {
    return `
    log_format status $status;
    nango_store @STORE@;
    nango_environment prod {
        reconcile           off;
        api                 http://127.0.0.1:${stub.port};
        api_public          https://nango.example.com;
        api_key             data:${API_KEY};
        api_connections     ${CONNECTIONS};
        webhook_signing_key data:${KEY};
    }
    nango_environment slow {
        reconcile           off;
        api             http://127.0.0.1:${stub.port}/slow;
        api_public      https://nango.example.com;
        api_key         data:${API_KEY};
        api_connections ${CONNECTIONS};
    }
    nango_environment delivered {
        reconcile           off;
        api                 http://127.0.0.1:${stub.port};
        api_public          https://nango.example.com;
        webhook_signing_key data:${KEY};
        deliver app http://127.0.0.1:${stub.port}/hook concurrency=8;
    }
    `;
}


const SERVER = `
    error_log  @DIR@/error.log error;
    access_log @DIR@/status.log status;

    location = /webhook        { nango_webhook prod; }
    location = /oauth-callback { nango_oauth_callback prod; }
    location = /reused {
        nango_owner end_user_id $http_x_user;
        nango_session prod;
    }
    location = /session {
        nango_owner         end_user_id $http_x_user;
        nango_session_reuse off;
        nango_session       prod;
    }
    location = /slow {
        nango_owner         end_user_id $http_x_user;
        nango_session_reuse off;
        nango_session       slow;
    }
    location = /nobody {
        nango_owner end_user_id $http_x_nobody;
        nango_session prod;
    }
    location = /connections {
        nango_owner end_user_id $http_x_user;
        nango_connections prod;
    }
    location = /events {
        nango_owner end_user_id $http_x_user;
        nango_events prod;
    }
    location = /needs {
        nango_owner   end_user_id $http_x_user;
        nango_require prod github optional;
        empty_gif;
    }
    location = /state     { nango_status; }
    location = /delivered { nango_webhook delivered; }
`;


/* A thousand connections of a thousand users; no two bodies are the same. */
function event(type, size) {
    return JSON.stringify({
        connectionId: 'c-%%%%',
        environment: 'dev',
        from: 'nango',
        operation: 'creation',
        provider: 'github',
        providerConfigKey: 'github',
        success: true,
        tags: { end_user_id: 'u-%%%%' },
        type,
        number: '############',
        padding: 'x'.repeat(size || 0),
    });
}


const LARGE = 140 * 1024;

/* More of them, for what comes by chance to stand out less. */
const CUT = LONG ? 1 : 2;

/* As many of each as REQUESTS says, times share.  left: nginx has to see it. */
const KINDS = [
    { name: 'webhooks', post: '/webhook', body: event('auth'), key: KEY,
      status: 200, remembered: true, stored: true },

    /* Forwards are never duplicates, so nothing has to be remembered. */
    { name: 'webhooks of another type', post: '/webhook', key: KEY,
      body: event('forward'), status: 200, stored: true },

    { name: 'webhooks of 140 KB', post: '/webhook', key: KEY, share: 0.01,
      body: event('forward', LARGE), status: 200, stored: true },
    { name: 'webhooks without a signature', post: '/webhook',
      body: event('auth'), status: 401 },
    { name: 'forged webhooks', post: '/webhook', body: event('auth'),
      key: 'another key', status: 401 },
    { name: 'forged webhooks of 140 KB', post: '/webhook', share: 0.01,
      body: event('auth', LARGE), key: 'another key', status: 401 },
    { name: 'sessions', post: '/session', status: 200 },
    { name: 'sessions that are used again', post: '/reused', status: 200 },
    { name: 'sessions for nobody', post: '/nobody', status: 401 },
    { name: 'lists of connections', get: '/connections', status: 200 },

    /* They look through thousands of events each. */
    { name: 'pages of events', get: '/events?limit=5', status: 200,
      share: 0.05 },
    { name: 'what may need a connection', get: '/needs', status: 200 },
    { name: 'counts', get: '/state', status: 200, share: 0.5 },
    { name: 'webhooks that are delivered', post: '/delivered', key: KEY,
      body: event('forward'), status: 200, stored: true, delivered: true,
      share: 0.5 },
    { name: 'callbacks', status: 308,
      get: '/oauth-callback?code=############&state=%%%%' },
    { name: 'webhooks whose client leaves', post: '/webhook', part: 100,
      body: event('forward', 4096), key: KEY, share: CUT, left: true },
    { name: 'webhooks that break off', post: '/webhook', part: 80,
      body: event('forward'), key: KEY, share: CUT },
    { name: 'webhooks of 140 KB whose client leaves', post: '/webhook',
      part: 100, body: event('forward', LARGE), key: KEY, share: 0.01 },
    { name: 'webhooks of 140 KB that break off', post: '/webhook', part: 80,
      body: event('forward', LARGE), key: KEY, share: 0.01 },
    { name: 'sessions whose client leaves', post: '/slow', part: 100,
      share: CUT, left: true },
    { name: 'lists whose client leaves', get: '/connections', part: 100,
      share: CUT },
];


/* What is under way comes to its end, and into the state. */
async function quiet(kind, nginx, readers) {
    let before;

    if (kind.delivered) {
        await until('deliveries', async () => {
            const { json } = await once(nginx.port, 'GET', '/state');

            return json.subscribers[0].waiting === 0;
        }, 60000);
    }

    if (kind.key !== KEY) {
        await sleep(LONG ? 300 : 30);
        return;
    }

    await until('the store to be quiet', async () => {
        await sleep(LONG ? 300 : 30);

        const { last } = await run(readers, [nginx.store]);
        const still = before === last;

        before = last;

        return still;
    }, 60000);
}


/*
 * What the table of duplicates may have grown to, in one worker: it doubles,
 * up to a size, and is copied then.
 */
function table(webhooks) {
    let size = 1024;

    while (size < webhooks && size < REMEMBERED_MAX) {
        size *= 2;
    }

    return size * REMEMBERED;
}


test(`${REQUESTS} requests of each kind leave nothing behind`,
     { timeout: LONG ? 6 * 3600000 : 120000 }, async (t) =>
{
    const press = compile(t, 'press.c', '-lcrypto', '-lpthread');
    const readers = compile(t, 'readers.c', '-llmdb');
    const read = reader(t);
    const stub = await create(t, { http: STUB_HTTP, server: STUB });
    const nginx = await create(t, {
        http: http(stub), server: SERVER, connections: 4096,
    });

    await stub.start();
    await nginx.start();
    await until('two workers', () => nginx.workers().length === 2);

    const workers = nginx.workers();
    const samples = [];
    let number = 0;
    let acknowledged = 0;

    for (const kind of KINDS) {
        const n = Math.ceil(REQUESTS * (kind.share || 1) / STEPS);
        const start = Date.now();
        const seen = [];
        const statuses = path.join(nginx.dir, 'status.log');
        const args = [kind.post ? 'POST' : 'GET', kind.post || kind.get,
                      kind.key || ''];

        if (kind.part !== undefined) {
            args.push(kind.part);
        }

        /* First of all more at once than there will be later. */

        for (let i = -1; i < STEPS; i++) {
            const answers = await run(press,
                [nginx.port, n, number, i < 0 ? 4 * CLIENTS : CLIENTS,
                 ...args], kind.body || '');

            assert.deepStrictEqual(answers, kind.part === undefined
                ? { cut: 0, [kind.status]: n } : { cut: n }, kind.name);

            number += n;
            acknowledged += kind.stored ? n : 0;

            await quiet(kind, nginx, readers);

            if (i >= 0) {
                seen.push(await lookAll(workers, readers, nginx));
            }
        }

        const left = fs.readFileSync(statuses, 'latin1').split('499\n')
            .length - 1;

        fs.truncateSync(statuses);

        if (kind.left) {
            assert.ok(left > n, `${left} of ${kind.name} were seen to leave`);
        }

        t.diagnostic(`${STEPS * n} ${kind.name}, ${left} seen to leave, `
            + `${Math.round((Date.now() - start) / 100) / 10} s: `
            + seen.map((one) => Math.round(one.memory / 1024)).join(' ')
            + ` KB, growth ${kb(growth(seen, 'memory'))}, `
            + `${JSON.stringify(seen.at(-1))}`);

        samples.push({ kind, seen });
    }

    for (const { kind, seen } of samples) {
        const more = growth(seen, 'memory');
        const most = (kind.part && kind.key ? CUT_BOUND : REQUESTS_BOUND)
                     + (kind.remembered ? 2 * table(REQUESTS) : 0);

        assert.ok(more < most, `${kind.name}: ${kb(more)}`);

        for (const name of ['fds', 'threads', 'log', 'state']) {
            assert.ok(growth(seen, name) <= 2 * CONNECTIONS,
                      `${name} by ${kind.name}: ${growth(seen, name)}`);
        }
    }

    assert.deepStrictEqual(nginx.workers(), workers);
    assert.deepStrictEqual(fs.readdirSync(path.join(nginx.store, 'temp')), []);
    assert.ok(read(nginx.store, 'meta').meta.last >= acknowledged);
    assertCalm(nginx);
    assert.ok(await nginx.stop(), 'nginx does not end');
    assertCalm(nginx);
});
