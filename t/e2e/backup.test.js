/*
 * docs/operations.md's backup and restore, by its own commands: they are read
 * from there, with other paths, and run while webhooks come and with nginx
 * stopped.  Needs mdb_copy.
 */

'use strict';

const assert = require('node:assert');
const { execFile } = require('node:child_process');
const fs = require('node:fs');
const path = require('node:path');
const test = require('node:test');
const { promisify } = require('node:util');

const { hmac, once } = require('./client');
const { create, until } = require('./nginx');

const KEY = 'signing-key-of-prod';
const run = promisify(execFile);
const ROOT = process.getuid() === 0;
const DOCS = fs.readFileSync(path.join(__dirname,
    '../../docs/operations.md'), 'utf8');


/* The commands of a section, but for those that are nginx's own. */
function commands(title, from, to, owner) {
    const section = DOCS.split(`\n## ${title}\n`)[1].split('\n## ')[0];
    const block = section.match(/^ {4}.*\n(?: {4}.*\n)*/m)[0];

    return block.split('\n').map((line) => line.trim())
        .filter((line) => line && !/^nginx\b/.test(line)).join('\n')
        .replaceAll('/var/lib/nginx/nango', from)
        .replaceAll('/backup/nango', to)
        .replace('www-data:', owner);
}


async function send(nginx, n, size) {
    const body = JSON.stringify({
        connectionId: `c-${n}`, from: 'nango', operation: 'creation',
        padding: 'x'.repeat(size || 0), provider: 'github',
        providerConfigKey: 'github', success: true,
        tags: { end_user_id: '42' }, type: 'auth',
    });
    const answer = await once(nginx.port, 'POST', '/webhook', {
        'Content-Type': 'application/json',
        'X-Nango-Hmac-Sha256': hmac(body, KEY),
    }, body);

    assert.strictEqual(answer.status, 200, answer.text);
}


async function list(nginx) {
    const answer = await once(nginx.port, 'GET', '/connections?limit=1000',
                              { 'X-User': '42' });

    return answer.status === 200 ? answer.json : { connections: [] };
}


test('what was stored before a copy is in it', { timeout: 60000 },
     async (t) => {
    const nginx = await create(t, {
        http: `
    nango_store @STORE@;
    nango_environment prod { webhook_signing_key data:${KEY}; }
`,
        server: `
    location = /webhook { nango_webhook; }
    location = /connections {
        nango_owner  end_user_id $http_x_user;
        nango_expose connection_id;
        nango_connections;
    }
    location = /events { nango_events all; }
`,
    });
    const copy = path.join(nginx.dir, 'copy');

    await nginx.start();

    const { uid, gid } = fs.statSync(path.join(nginx.store, 'log'));

    for (let n = 0; n < 20; n++) {
        await send(nginx, n, n % 5 === 0 ? 200000 : 0);
    }

    await until('twenty', async () =>
        (await list(nginx)).connections.length === 20);

    let going = true;
    let n = 20;

    const traffic = (async () => {
        while (going) {
            await send(nginx, n, n % 5 === 0 ? 200000 : 0);
            n++;
        }
    })();

    await run('sh', ['-ec', commands('Back up', nginx.store, copy)]);
    going = false;
    await traffic;

    assert.strictEqual(fs.statSync(copy).mode & 0o077, 0);

    const { sequence, log } = await list(nginx);

    assert.strictEqual(sequence, n);
    await nginx.stop();
    await run('sh', ['-ec', commands('Restore', nginx.store, copy,
                                     ROOT ? `${uid}:${gid}` : `${uid}:`)]);
    await nginx.start();
    await until('them', async () =>
        (await list(nginx)).connections.length >= 20);

    const now = await list(nginx);

    assert.strictEqual(now.log, log);
    assert.ok(now.sequence >= 20 && now.sequence <= n);
    assert.strictEqual(now.connections.length, now.sequence);

    /* The bodies that are files, each as long as it was. */

    for (let i = 0; i < 20; i += 5) {
        const answer = await once(nginx.port, 'GET', `/events?body=${i + 1}`);

        assert.strictEqual(answer.status, 200, answer.text);
        assert.ok(answer.text.length > 200000);
    }

    await send(nginx, 'new');
    assert.strictEqual((await list(nginx)).sequence, now.sequence + 1);
    assert.deepStrictEqual(nginx.lines('alert', 'crit', 'error'), []);
});
