/*
 * What the tests of strange bodies and of strange clients share: an nginx with
 * every endpoint, a Nango whose answers can be held back, what the store holds,
 * compared with what was sent, and what nginx has of those who are gone.
 */

'use strict';

const assert = require('node:assert');
const { execFileSync, spawn } = require('node:child_process');
const fs = require('node:fs');
const http = require('node:http');
const path = require('node:path');

const { hmac } = require('./client');
const { compile, reader } = require('./model');
const { create, sleep, until } = require('./nginx');
const { get, once } = require('./wire');

const KEY = 'signing-key-of-prod';
const MEMORY = 128 * 1024;
const MOST = 75 * 1024 * 1024;


function settings(api, more) {
    return {
        main: 'worker_rlimit_core 0;',
        http: `
    nango_store @STORE@;
    nango_environment prod {
        reconcile           off;
        api                 http://127.0.0.1:${api || 1};
        api_public          https://nango.example.com;
        api_key             data:b3a1c0de-0000-4000-8000-00000000abcd;
        webhook_signing_key data:${KEY};
    }
    nango_environment twin {
        reconcile           off;
        api                 http://127.0.0.1:${api || 1};
        api_public          https://nango.example.com;
        api_key             data:b3a1c0de-0000-4000-8000-00000000abce;
        webhook_signing_key data:${KEY};
    }
    keepalive_requests 1000000;
    ${more && more.http || ''}
`,
        server: `
    location = /webhook { nango_webhook prod; }
    location = /session {
        nango_owner         end_user_id $http_x_user;
        nango_session_reuse off;
        nango_session prod;
    }
    location = /connections {
        nango_owner  end_user_id $http_x_user;
        nango_expose connection_id tags;
        nango_connections prod;
    }
    location = /plain  { return 200 "plain\\n"; }
    location = /empty  { empty_gif; }
    location = /status { stub_status; }
    ${more && more.server || ''}
`,
    };
}


async function running(t, options) {
    const nginx = await create(t, options);

    await nginx.start();
    await until('the workers', () => nginx.workers().length
                                     >= (options.workers || 2));

    return nginx;
}


/* A creation of that many bytes at least. */
function creation(connection, size, more) {
    const event = {
        connectionId: connection,
        from: 'nango',
        operation: 'creation',
        provider: 'github',
        providerConfigKey: 'github',
        success: true,
        tags: { end_user_id: '42' },
        type: 'auth',
        ...more,
        padding: '',
    };
    const text = Buffer.from(JSON.stringify(event));

    if (!size || size <= text.length) {
        return text;
    }

    const body = Buffer.alloc(size, 'x');

    text.copy(body, 0, 0, text.length - 2);
    text.copy(body, size - 2, text.length - 2);

    return body;
}


function signed(body, key) {
    return { 'Content-Type': 'application/json',
             'X-Nango-Hmac-Sha256': hmac(body, key || KEY) };
}


/* The bodies that a store holds, as [Buffer], in their order. */
function bodies(t) {
    const read = reader(t);

    return (nginx) => read(nginx.store, 'bodies').events.map((event) => ({
        ...event,
        bytes: event.body_file
               ? fs.readFileSync(path.join(nginx.store, 'bodies',
                                           event.body_file))
               : Buffer.from(event.body, 'hex'),
    }));
}


function files(nginx, name) {
    return fs.readdirSync(path.join(nginx.store, name)).sort();
}


/* Of webhooks and of nginx itself. */
function temporary(nginx) {
    return [...files(nginx, 'temp'),
            ...fs.readdirSync(path.join(nginx.dir, 'client_body'))];
}


async function list(nginx, user, query) {
    const answer = await once(nginx.port, get(`/connections${query || ''}`,
                                              { 'X-User': user || '42' }));

    assert.strictEqual(answer.status, 200, answer.text);

    return answer.json;
}


function calm(nginx, workers) {
    assert.deepStrictEqual(nginx.lines('emerg', 'alert', 'crit'), []);

    if (workers) {
        assert.deepStrictEqual(nginx.workers(), workers);
    }
}


/* Events: one's own, and all. */
const EVENTS = `
    location = /events {
        nango_owner  end_user_id $http_x_user;
        nango_events prod;
    }
    location = /all {
        allow 127.0.0.1;
        nango_events prod all;
    }
`;


/* Of all workers. */
function descriptors(nginx) {
    return nginx.workers().reduce((n, pid) => n
        + fs.readdirSync(`/proc/${pid}/fd`).length, 0);
}


/* Once they stay: who has asked last may not have been let go yet. */
async function resting(nginx) {
    let before;

    await until('descriptors to stay', async () => {
        before = descriptors(nginx);
        await sleep(300);

        return before === descriptors(nginx);
    });

    return before;
}


/* Until there are those of before, and those that Nango has as well. */
function assertClosed(nginx, before, api) {
    const kept = () => (api ? api.sockets.size : 0);

    return until('descriptors to be closed',
                 () => descriptors(nginx) - kept() === before).catch((err) => {
        err.message += `: ${before}, ${kept()} to Nango, ${nginx.workers().map(
            (pid) => fs.readdirSync(`/proc/${pid}/fd`).map(
                (fd) => fs.readlinkSync(`/proc/${pid}/fd/${fd}`)))}`;
        throw err;
    });
}


/* Connections of clients, and whoever else has one. */
async function active(nginx) {
    const { text } = await once(nginx.port, get('/status'));

    /* This one is among them. */
    return Number(/Active connections: (\d+)/.exec(text)[1]) - 1;
}


/* Until so many requests are being answered, beside the one that asks. */
function answering(nginx, count, what) {
    return until(`${count} requests ${what || ''}`, async () => {
        const { text } = await once(nginx.port, get('/status'));

        return Number(/Writing: (\d+)/.exec(text)[1]) - 1 === count;
    });
}


/* Bytes that a process has of its own. */
function anonymous(pid) {
    const text = fs.readFileSync(`/proc/${pid}/smaps_rollup`, 'latin1');

    return 1024 * Number(/^Anonymous:\s+(\d+)/m.exec(text)[1]);
}


/*
 * The pools, by nginx's own debug log: blocks that were allocated after the
 * log's first bytes and are not freed.  undefined: it has no such log.
 */
function pools(nginx, from) {
    const file = path.join(nginx.dir, 'debug.log');
    const text = fs.readFileSync(file, 'latin1').slice(from);
    const live = new Map();
    const line = new RegExp(' \\[debug\\] (\\d+)#\\d+: (?:\\*\\d+ )?'
                            + '(posix_memalign|free): 0*([0-9A-F]+)(.*)', 'g');
    let n = 0;

    for (const [, pid, what, address, rest] of text.matchAll(line)) {
        const block = `${pid} ${address}`;

        if (what === 'free') {
            live.delete(block);

        } else {
            live.set(block, rest);
            n++;
        }
    }

    return n ? [...live] : undefined;
}


/* Makes the file of the only body that has one wait for its other end. */
function pipe(nginx) {
    const bodies = path.join(nginx.store, 'bodies');
    const body = path.join(bodies, fs.readdirSync(bodies).find((name) =>
        /^[0-9a-f]+$/.test(name)));

    fs.unlinkSync(body);
    execFileSync('mkfifo', [body]);
    fs.chmodSync(body, 0o666);

    return { release: () => fs.closeSync(fs.openSync(body, 'w')) };
}


const held = new WeakSet();

/* A worker that has just started needs the state's lock to open the store. */
async function opened(nginx) {
    const file = path.join(nginx.store, 'state/data.mdb');
    const open = () => nginx.workers().map((pid) =>
        fs.readdirSync(`/proc/${pid}/fd`).filter((fd) => {
            try {
                return fs.readlinkSync(`/proc/${pid}/fd/${fd}`) === file;
            } catch (err) {
                return false;
            }
        }).length);

    await until('the store to be open', async () => {
        const before = open();

        await sleep(200);

        return !before.includes(0) && open().join() === before.join();
    });
}


/* The writer lock of the log, or of the state, until released. */
async function hold(t, nginx, name) {
    if (!held.has(nginx)) {
        await opened(nginx);
        held.add(nginx);
    }

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
 * A Nango that only issues sessions; while it is silent, only once it is told
 * to speak.
 */
async function nango(t) {
    const sockets = new Set();
    const api = { seen: [], held: [], silent: false, sockets };
    const issue = (res) => {
        res.writeHead(201, { 'Content-Type': 'application/json' });
        res.end(JSON.stringify({ data: {
            token: `nango_connect_session_${'ab'.repeat(32)}`,
            connect_link: 'https://connect.example.com/?session_token=x',
            expires_at: '2030-01-01T00:00:00.000Z',
        } }));
    };

    /* A connection stays until it is told otherwise. */

    const server = http.createServer({ keepAliveTimeout: 0 }, (req, res) => {
        const parts = [];

        req.on('data', (part) => parts.push(part));
        req.on('end', () => {
            api.seen.push(JSON.parse(Buffer.concat(parts)));

            if (api.silent) {
                api.held.push(res);

            } else {
                issue(res);
            }
        });
    });

    server.on('connection', (socket) => {
        sockets.add(socket);
        socket.on('error', () => {});
        socket.on('close', () => sockets.delete(socket));
    });

    await new Promise((resolve) => {
        server.listen(0, '127.0.0.1', resolve);
    });

    t.after(() => {
        server.close();
        sockets.forEach((socket) => socket.destroy());
    });

    api.port = server.address().port;

    api.speak = () => {
        api.silent = false;
        api.held.splice(0).forEach(issue);
    };

    return api;
}


module.exports = { EVENTS, KEY, MEMORY, MOST, active, anonymous, answering,
                   assertClosed, bodies, calm, creation, descriptors, files,
                   hold, list, nango, pipe, pools, resting, running, settings,
                   signed, temporary };
