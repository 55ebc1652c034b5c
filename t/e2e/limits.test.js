/*
 * Nango's rate limit belongs to an account and not to a worker or an
 * environment, and one that is dead is left alone by all of them together.
 */

'use strict';

const assert = require('node:assert');
const nodeTest = require('node:test');

const sim = require('../sim/helper');
const { API_KEY } = require('../sim/nango');
const { Client, ofWorkers, once } = require('./client');
const { startOnClock, HOUR, MINUTE } = require('./clock');
const { create, until } = require('./nginx');

const KEY = 'signing-key-of-prod';
const ME = { 'X-User': '42' };

function environment(name, api, more) {
    return `
    nango_environment ${name} {
        api                 ${api};
        api_public          https://nango.example.com;
        connect_ui          https://connect.nango.dev;
        api_key             data:${API_KEY};
        webhook_signing_key data:${KEY};
        ${more}
    }
`;
}

function location(name) {
    return `
    location = /${name} {
        nango_owner         end_user_id $http_x_user;
        nango_session_limit off;
        nango_session_reuse off;
        nango_session ${name};
    }
`;
}


/* None may hang: what waits for ever is a failure. */
function test(name, fn) {
    return nodeTest(name, { timeout: 60000 }, fn);
}


async function running(t, more) {
    const nango = await sim.start(t);
    const nginx = await create(t, {
        http: 'nango_store @STORE@;'
              + environment('a', nango.url, `account one; ${more}`)
              + environment('b', nango.url, `account one; ${more}`)
              + environment('c', nango.url, `account two; ${more}`),
        server: ['a', 'b', 'c'].map(location).join('\n')
                + `location = /worker { return 200 $pid; }
                   location = /status { nango_status; }`,
    });

    await nginx.start();
    await until('two workers', () => nginx.workers().length >= 2);

    return { nango, nginx };
}


async function codes(all, ...names) {
    const answers = [];

    for (const client of all) {
        for (const name of names) {
            answers.push((await client.request('POST', `/${name}`, ME))
                .status);
        }
    }

    return answers;
}


/* Of each environment. */
async function told(nginx, name) {
    const { json } = await once(nginx.port, 'GET', '/status');

    return json.environments.map((env) => env[name]);
}


async function calls(nango, path) {
    return (await nango.control('GET', `requests?path=${path}`)).count;
}


test('a limit stops an account: all workers, environments, and the leader',
     async (t) => {
    const { nango, nginx } = await running(t, 'reconcile 1s;');
    const [one, two] = await ofWorkers(t, nginx.port);

    await until('a comparison', () => calls(nango, '/connections'), 20000);
    await nango.control('POST', 'faults', { faults: [{
        method: 'POST', path: '/connect/sessions', times: 1, status: 429,
        retry_after: 60 }] });

    assert.deepStrictEqual(await codes([one], 'a'), [429]);
    assert.deepStrictEqual((await told(nginx, 'account_blocked'))
        .map((seconds) => seconds > 30), [true, true, false]);

    const compared = await calls(nango, '/connections');

    assert.deepStrictEqual(await codes([one, two], 'a', 'b', 'c'),
                           [429, 429, 200, 429, 429, 200]);
    assert.strictEqual(await calls(nango, '/connect/sessions'), 3);

    /* Of three environments one is still compared, after a reload as well. */

    const old = nginx.workers();

    nginx.kill(nginx.master, 'SIGHUP');
    await until('new workers', () => !old.some((pid) => nginx.alive(pid)),
                20000);
    assert.deepStrictEqual(
        await codes(await ofWorkers(t, nginx.port), 'a', 'b', 'c'),
        [429, 429, 200, 429, 429, 200]);

    await until('more comparisons', async () =>
        await calls(nango, '/connections') >= compared + 3, 20000);

    const { requests } = await nango.control('GET',
                                             'requests?path=/connections');
    const times = requests.slice(compared + 1)
        .map((request) => new Date(request.at));

    /* Each environment is compared once a second at most. */

    times.slice(1).forEach((at, i) =>
        assert.ok(at - times[i] >= 900, 'one of that account was compared'));
    assert.deepStrictEqual(nginx.lines('alert', 'crit', 'emerg'), []);
});


test('one request at a time looks whether a dead Nango is back', async (t) => {
    const { nango, nginx } = await running(t,
                                           'reconcile off; api_timeout 500ms;');
    const all = await ofWorkers(t, nginx.port);

    await nango.control('POST', 'faults', { faults: [{ hang: true }] });

    while (!/environment "a" does not answer/.test(nginx.log())) {
        await codes(all, 'a');
    }

    assert.deepStrictEqual(await told(nginx, 'circuit_open'),
                           [true, false, false]);

    /* Many at once, until it is time for one of them to look. */

    const many = Array.from({ length: 60 }, () => new Client(nginx.port));
    const before = await calls(nango, '/connect/sessions');
    let asked = 0;

    for (let i = 0; asked === 0; i++) {
        const answers = await Promise.all(many.map(
            async (client) => (await codes([client], 'a'))[0]));

        asked = await calls(nango, '/connect/sessions') - before;
        assert.ok(answers.every((status) => [503, 504].includes(status)));
        assert.ok(i < 1000, 'nobody looks');
    }

    many.forEach((client) => client.close());
    assert.ok(asked <= 2, `${asked} were sent`);

    await nango.control('DELETE', 'faults');
    await until('Nango', async () =>
        (await codes(all, 'a')).join() === '200,200', 20000);
    assert.deepStrictEqual(await told(nginx, 'circuit_open'),
                           [false, false, false]);
    assert.deepStrictEqual(nginx.lines('alert', 'crit', 'emerg'), []);
});


test('what was known by a clock that ran ahead is not known for long',
    async (t) => {
        const nango = await sim.start(t);
        const nginx = await create(t, {
            http: environment('a', nango.url, '')
                  + environment('b', nango.url, 'account other;'),
            server: location('a') + `
    location = /again {
        nango_owner         end_user_id $http_x_user;
        nango_session_reuse 20m;
        nango_session       b;
    }
    location = /time { return 200 $msec; }
`,
            workers: 1,
        });
        const clock = await startOnClock(t, nginx, { wall: true });

        const ahead = async () => Number(
            (await once(nginx.port, 'GET', '/time', ME)).text) * 1000
                                  - Date.now();
        const ask = (url) => once(nginx.port, 'POST', url, ME);

        clock.forward(24 * HOUR);
        await until('the wrong time', async () => await ahead() > 23 * HOUR);

        assert.strictEqual((await ask('/again')).status, 200);
        assert.strictEqual((await ask('/again')).status, 200);
        assert.strictEqual(await calls(nango, '/connect/sessions'), 1);

        await nango.control('POST', 'faults', {
            faults: [{ status: 429, retry_after: 3000, times: 1 }] });
        assert.strictEqual((await ask('/a')).status, 429);
        assert.strictEqual((await ask('/a')).status, 429);
        assert.strictEqual(await calls(nango, '/connect/sessions'), 2);

        /* It is put right. */

        clock.forward(-24 * HOUR);
        await until('the right time', async () => await ahead() < MINUTE);

        assert.strictEqual((await ask('/again')).status, 200);
        assert.strictEqual(await calls(nango, '/connect/sessions'), 3);
        assert.strictEqual((await ask('/a')).status, 200);

        /* Nor is what is known from then on thought to be older. */

        await nango.control('POST', 'faults', {
            faults: [{ status: 429, retry_after: 3000, times: 1 }] });
        assert.strictEqual((await ask('/a')).status, 429);
        assert.strictEqual((await ask('/a')).status, 429);
        assert.strictEqual(await calls(nango, '/connect/sessions'), 5);
        assert.strictEqual((await ask('/again')).status, 200);
        assert.strictEqual(await calls(nango, '/connect/sessions'), 5);
    });


/* Of environments, as many as there is room for in shared memory. */

test('256 environments, and none that would not be looked after', async (t) => {
    const nango = await sim.start(t);
    const options = (count) => ({
        http: Array.from({ length: count }, (_, i) =>
            environment(`e${i + 1}`, nango.url, 'reconcile off;')).join(''),
        server: location('e1') + location(`e${count}`),
    });
    const nginx = await create(t, options(256));

    await nginx.start();

    for (const name of ['e1', 'e256']) {
        assert.strictEqual((await once(nginx.port, 'POST', `/${name}`, ME))
            .status, 200, name);
    }

    assert.ok(await nginx.stop());

    await assert.rejects((await create(t, options(257))).start(),
        /environment "e257" is one too many, there may be 256/);
});
