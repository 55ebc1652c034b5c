/*
 * The demo's page in a headless Chromium: Nango's own frontend SDK, a stand-in
 * for Connect UI in its frame, popups, and the endpoints of nginx on the
 * page's origin and on another.  Everything is clicked, nothing is called
 * behind the page's back but the simulator, to see what it was told.
 *
 * Needs what "npm ci" puts here and into demo, and /usr/bin/chromium
 * (NANGO_CHROMIUM names another).  All is on the loopback interface: Chromium
 * resolves no other name.  With NANGO_SHOTS=DIRECTORY it takes pictures.
 */

'use strict';

const assert = require('node:assert');
const { execFile, spawn, spawnSync } = require('node:child_process');
const fs = require('node:fs');
const http = require('node:http');
const os = require('node:os');
const path = require('node:path');
const { after, before, test } = require('node:test');
const { promisify } = require('node:util');

const { chromium } = require('playwright-core');

const { API_KEY, createNango } = require('../sim/nango');
const { PATIENCE, ROOT } = require('./nginx');

const CHROMIUM = process.env.NANGO_CHROMIUM || '/usr/bin/chromium';
const RUN = path.join(ROOT, 'demo/run');
const SDK = path.join(ROOT, 'demo/node_modules/@nangohq/frontend/dist');
const SHOTS = process.env.NANGO_SHOTS;

/* A single step, and a test. */
const STEP_MS = 10000 * PATIENCE;
const TEST_MS = 60000 * PATIENCE;

const FLAGS = [
    '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
    '--disable-background-networking', '--disable-component-update',
    '--disable-sync', '--no-proxy-server',
    '--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, '
    + 'EXCLUDE localhost',
];

const demos = [];

let demo = null;
let browser = null;


/*
 * The demo itself, as ./dev demo leaves it behind: {dir, url, api, other}, the
 * last being the endpoints' other origin.  It is made to outlive who starts
 * it, so somebody waits for the end of this process, which the end of his
 * standard input tells him, lest it outlive a test that is killed.
 */
async function startDemo(more) {
    const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'nango-demo-'));
    const env = { ...process.env, NANGO_API_KEY: '', ...more,
                  NANGO_DEMO_DIR: dir, PORT: '0', NO_COLOR: '1' };
    const guard = spawn('/bin/sh', ['-c', 'read -r line; [ "$line" = done ] '
                                    + '|| { "$0" --stop; rm -rf "$1"; }',
                                    RUN, dir], {
        env, detached: true, stdio: ['pipe', 'ignore', 'ignore'],
    });

    guard.unref();
    guard.stdin.unref();
    demos.push({ dir, env, guard });
    fs.chmodSync(dir, 0o755);

    const { stdout } = await promisify(execFile)(RUN, ['--page'], {
        env, timeout: TEST_MS,
    });
    const [, url] = /Open (\S+)\/ in a browser/.exec(stdout);
    const config = await (await fetch(`${url}/demo.json`)).json();

    return { dir, url, api: config.nango,
             other: `http://127.0.0.1:${config.other}` };
}


function stop() {
    for (const { dir, env, guard } of demos.splice(0)) {
        spawnSync(RUN, ['--stop'], { env, timeout: 20000 });
        fs.rmSync(dir, { recursive: true, force: true });
        guard.stdin.end('done\n');
    }
}


before(async () => {
    demo = await startDemo();
    browser = await chromium.launch({ executablePath: CHROMIUM, args: FLAGS,
                                      timeout: STEP_MS * 3 });
}, { timeout: TEST_MS });

after(async () => {
    if (browser) {
        await browser.close();
    }

    stop();
}, { timeout: TEST_MS });

process.on('exit', stop);

for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) {
    process.on(signal, () => process.exit(1));
}


/* A command of the simulator. */
async function sim(method, command, body) {
    const response = await fetch(`${demo.api}/_sim/${command}`, {
        method, body: body && JSON.stringify(body),
    });

    assert.strictEqual(response.status, 200);

    return response.json();
}


async function atNango() {
    return (await sim('GET', 'state')).connections;
}


/* As nginx has them once it has looked at all that was acknowledged. */
async function connectionsOf(user) {
    const password = Buffer.from(`${user}:${user}`).toString('base64');
    const response = await fetch(`${demo.url}/nango/connections`, {
        headers: { Authorization: `Basic ${password}` },
    });

    return (await response.json()).connections;
}


/*
 * A visitor with cookies of its own: the page, and what it asked for.  What
 * went wrong in the page itself is a failure of the test.
 */
async function visit(t, user, { url = demo.url, ...options } = {}) {
    const context = await browser.newContext({
        viewport: { width: 1280, height: 860 }, ...options,
    });
    const seen = { requests: [], errors: [] };

    context.setDefaultTimeout(STEP_MS);
    t.after(() => context.close());
    context.on('response', (response) => seen.requests.push({
        url: response.url(), method: response.request().method(),
        status: response.status(),
    }));
    context.on('requestfailed', (request) => {
        if (request.failure().errorText !== 'net::ERR_ABORTED') {
            seen.errors.push(`${request.url()} `
                             + request.failure().errorText);
        }
    });
    context.on('weberror', (e) => seen.errors.push(e.error().message));
    context.on('console', (message) => {
        /* Chromium tells of each 4xx, and those are wanted here. */
        if (message.type() === 'error'
            && !message.text().startsWith('Failed to load resource'))
        {
            seen.errors.push(message.text());
        }
    });

    const page = await context.newPage();

    await page.goto(`${url}/`);

    if (user) {
        await page.getByRole('button', { name: `Sign in as ${user}` })
            .click();
        await page.locator('#cards[aria-busy=false]').waitFor();
    }

    return { context, page, seen, ui: page.frameLocator('#connect-ui') };
}


async function shot(page, name) {
    if (SHOTS) {
        await page.screenshot({ path: path.join(SHOTS, `${name}.png`) });
    }
}


/* A card, and waits for what it has to show. */
class Card {
    constructor({ page, ui }, integration) {
        this.page = page;
        this.ui = ui;
        this.selector = `[data-integration=${integration}]`;
        this.root = page.locator(this.selector);
    }

    is(status) {
        return this.page.locator(`${this.selector}[data-status=${status}]`)
            .waitFor();
    }

    click(name) {
        return this.root.getByRole('button', { name, exact: true }).click();
    }

    /* Until the card says this, with that status if there was an answer. */
    async says(text, status) {
        await this.root.locator('.result').getByText(text).waitFor();

        if (status) {
            assert.strictEqual(
                await this.root.locator('.result .chip').textContent(),
                String(status));
        }
    }

    /* The popup that a click in Connect UI opens, at its consent. */
    async popup() {
        const opened = this.page.waitForEvent('popup');

        await this.ui.getByRole('button', { name: 'Connect', exact: true })
            .click();

        const popup = await opened;

        await popup.getByRole('button', { name: 'Authorize' }).waitFor();

        return popup;
    }

    async authorise(button) {
        await this.click(button || 'Connect');

        const popup = await this.popup();

        await popup.getByRole('button', { name: 'Authorize' }).click();
        await this.finish();
    }

    async finish() {
        await this.ui.getByRole('heading', { name: 'Success!' }).waitFor();
        await this.ui.getByRole('button', { name: 'Finish' }).click();
        await this.page.locator('#connect-ui').waitFor({ state: 'detached' });
    }
}


/* Steps of the story that are ticked off. */
function done(page) {
    return page.locator('#story .done').evaluateAll(
        (items) => items.map((item) => item.dataset.step));
}


test('the whole story', { timeout: TEST_MS }, async (t) => {
    const visitor = await visit(t, 'Ann');
    const { page, seen } = visitor;
    const github = new Card(visitor, 'github');
    const appeared = page.waitForResponse((response) =>
        /since=0&wait=25$/.test(response.url()), { timeout: TEST_MS });

    await github.is('none');
    assert.deepStrictEqual(
        await page.locator('#cards h3').allTextContents(),
        ['Airtable', 'GitHub', 'Slack']);
    await shot(page, 'catalogue');

    /* The popup goes by way of nginx: the callback is its 308. */
    await github.click('Connect');
    await github.ui.getByText('Link your GitHub account').waitFor();
    await shot(page, 'connect-ui');

    const popup = await github.popup();

    await shot(popup, 'popup');
    await popup.getByRole('button', { name: 'Authorize' }).click();
    await github.finish();
    assert.ok(seen.requests.some(({ url, status }) =>
        url.startsWith(`${demo.url}/oauth-callback?`) && status === 308));

    /* Held since before, and answered by the webhook. */
    const list = await (await appeared).json();

    assert.strictEqual(list.changed, true);
    assert.deepStrictEqual(list.connections[0].owner, { end_user_id: 'ann' });
    await github.is('valid');
    await github.says('nginx has heard of it');
    await shot(page, 'connected');

    const { connection_id: id } = list.connections[0];

    await github.click('Call provider');
    await github.says('GitHub has answered', 200);
    await github.click('Call backend');
    await github.says('Your backend was told', 200);
    await github.says(id);

    await github.click('Refuse its token');
    await github.is('invalid');
    assert.strictEqual(await github.root.locator('.status').textContent(),
                       'Needs re-authorisation');
    await github.click('Call provider');
    await github.says('GitHub needs re-authorisation', 409);
    await github.click('Call backend');
    await github.says('GitHub needs re-authorisation', 409);
    await shot(page, 'broken');

    await github.authorise('Reconnect');
    await github.is('valid');

    let [there, ...more] = await atNango();

    assert.strictEqual(more.length, 0);
    assert.strictEqual(there.connection_id, id);
    assert.deepStrictEqual(there.tags, { end_user_id: 'ann' });

    /* An override that names nobody: it stays Ann's. */
    const { webhooks } = await sim('GET', 'webhooks?wait=1');
    const last = JSON.parse(webhooks[webhooks.length - 1].body);

    assert.strictEqual(last.operation, 'override');

    const { delivery } = await sim('POST', 'send', {
        raw: JSON.stringify({ ...last, tags: {} }), wait: true,
    });

    assert.strictEqual(delivery.outcome, 'delivered');

    const [kept] = await connectionsOf('ann');

    assert.strictEqual(kept.status, 'valid');
    assert.deepStrictEqual(kept.owner, { end_user_id: 'ann' });
    await github.click('Call provider');
    await github.says('GitHub has answered', 200);
    await shot(page, 'reconnected');

    await github.click('Disconnect');
    await github.is('none');
    assert.deepStrictEqual(await atNango(), []);
    await github.click('Call provider');
    await github.says('GitHub is not connected', 404);
    await shot(page, 'disconnected');

    assert.deepStrictEqual(await done(page), [
        'connect', 'appear', 'use', 'break', 'refused', 'reconnect', 'again',
        'disconnect', 'gone',
    ]);

    /* No token stood on the page, and nothing came from elsewhere. */
    assert.doesNotMatch(await page.content(),
                        /nango_connect_session_[0-9a-f]{7}/);
    assert.match(await page.locator('#log').textContent(),
                 /nango_connect_session_[0-9a-f]{6}\u2026/);
    assert.deepStrictEqual(seen.requests.filter(({ url }) =>
        !/^http:\/\/127\.0\.0\.1:\d+\//.test(url)), []);
    assert.deepStrictEqual(seen.errors, []);
});


test('endpoints of another origin', { timeout: TEST_MS }, async (t) => {
    const visitor = await visit(t, 'Ann');
    const { page, seen } = visitor;
    const slack = new Card(visitor, 'slack');

    seen.requests.length = 0;
    await page.getByText('another origin', { exact: true }).click();
    await page.locator('#cards[aria-busy=false]').waitFor();
    await page.getByText(`nginx holds GET ${demo.other}`).waitFor();
    await shot(page, 'another-origin');

    await slack.authorise();
    await slack.is('valid');
    await slack.click('Call provider');
    await slack.says('Slack has answered', 200);
    await slack.click('Refuse its token');
    await slack.is('invalid');

    /* An answer that is none is readable too, and the way out is in it. */
    await slack.click('Call provider');
    await slack.says('Slack needs re-authorisation', 409);
    await slack.authorise('Reconnect');
    await slack.is('valid');
    await slack.click('Disconnect');
    await slack.is('none');
    await slack.click('Call provider');
    await slack.says('Slack is not connected', 404);

    const asked = seen.requests.filter(({ url }) =>
        /\/(nango|proxy)\//.test(new URL(url).pathname)
        && !url.startsWith(demo.api));

    assert.ok(asked.length > 8);
    assert.deepStrictEqual(
        asked.filter(({ url }) => !url.startsWith(`${demo.other}/`)), []);
    assert.deepStrictEqual(await atNango(), []);
    assert.deepStrictEqual(seen.errors, []);
});


test('what a user does not go through with', { timeout: TEST_MS },
    async (t) => {
        const visitor = await visit(t, 'Bob');
        const { page, ui } = visitor;
        const github = new Card(visitor, 'github');
        const connect = ui.getByRole('button', { name: 'Connect',
                                                 exact: true });

        /* closed at once */
        await github.click('Connect');
        await connect.waitFor();
        await ui.getByRole('button', { name: 'Close' }).click();
        await github.says('You have closed it');
        assert.strictEqual(await page.locator('#connect-ui').count(), 0);

        /* the popup closed, the next one denied */
        await github.click('Connect');
        await (await github.popup()).close();
        await ui.getByRole('alert').getByText('window was closed').waitFor();

        const popup = await github.popup();

        await popup.getByRole('button', { name: 'Deny' }).click();
        await ui.getByRole('alert').getByText('access_denied').waitFor();
        await shot(page, 'denied');
        await ui.getByRole('button', { name: 'Close' }).click();
        await github.says('access_denied');

        await sim('GET', 'webhooks?wait=1');
        await github.is('none');
        assert.deepStrictEqual(await atNango(), []);
        assert.deepStrictEqual(await done(page), []);
        assert.deepStrictEqual(visitor.seen.errors, []);
    });


test('an API key, and whose it is', { timeout: TEST_MS }, async (t) => {
    const visitor = await visit(t, 'Bob');
    const { page, ui } = visitor;
    const airtable = new Card(visitor, 'airtable');
    const key = ui.getByLabel('API key');

    await airtable.click('Connect');
    await key.fill('bad');
    await key.press('Enter');
    await ui.getByRole('alert').getByText('invalid').waitFor();
    await key.fill('key-of-bob');
    await key.press('Enter');
    await airtable.finish();
    await airtable.is('valid');
    await shot(page, 'api-key');

    await page.getByRole('button', { name: 'Switch to Ann' }).click();
    await airtable.is('none');
    await airtable.click('Call provider');
    await airtable.says('Airtable is not connected', 404);

    await page.getByRole('button', { name: 'Switch to Bob' }).click();
    await airtable.is('valid');
    await airtable.click('Call backend');
    await airtable.says('Bearer key-...', 200);
    await airtable.click('Disconnect');
    await airtable.is('none');
    assert.deepStrictEqual(visitor.seen.errors, []);
});


/* Pages of another origin, with the SDK's files. */
async function serve(t) {
    const server = http.createServer((req, res) => {
        const name = path.basename(req.url);

        if (req.url.startsWith('/sdk/')) {
            res.writeHead(200, { 'Content-Type': 'text/javascript' });
            res.end(fs.readFileSync(path.join(SDK, name)));
            return;
        }

        res.writeHead(200, { 'Content-Type': 'text/html' });
        res.end('<!DOCTYPE html><title>elsewhere</title>');
    });

    await new Promise((resolve) => {
        server.listen(0, '127.0.0.1', resolve);
    });
    t.after(() => {
        server.close();
        server.closeAllConnections();
    });

    return `http://127.0.0.1:${server.address().port}/`;
}


test("a foreign page has its visitor's cookie and nothing else",
    { timeout: TEST_MS }, async (t) => {
        const foreign = await serve(t);
        const { context, page } = await visit(t, 'Ann');
        const before = (await sim('GET', 'state')).counts.sessions;

        assert.strictEqual((await context.cookies(foreign)).length, 1);
        await page.goto(foreign);

        const outcomes = await page.evaluate(async (bases) => {
            const ask = (url, options) => fetch(url, {
                credentials: 'include', ...options,
            }).then((response) => response.status, (e) => e.name);
            const all = [];

            for (const base of bases) {
                all.push(await ask(`${base}/nango/connections`),
                         await ask(`${base}/nango/session`,
                                   { method: 'POST' }),
                         await ask(`${base}/proxy/github/user`),
                         await ask(`${base}/nango/connections?id=x`,
                                   { method: 'DELETE' }));
            }

            return all;
        }, [demo.url, demo.other]);

        assert.deepStrictEqual(outcomes, Array(8).fill('TypeError'));

        /* The last two by their preflights. */
        const refused = fs.readFileSync(path.join(demo.dir, 'access.log'),
                                        'utf8').split('\n')
            .filter((line) => / 403 .* result=origin_not_allowed /.test(line))
            .map((line) => line.split(' ')[1]);

        assert.deepStrictEqual(refused.sort(), [
            'GET', 'GET', 'GET', 'GET', 'OPTIONS', 'OPTIONS', 'POST', 'POST',
        ]);
        assert.strictEqual((await sim('GET', 'state')).counts.sessions,
                           before);
    });


test('the SDK without Connect UI', { timeout: TEST_MS }, async (t) => {
    const url = await serve(t);
    const { page } = await visit(t);

    await page.goto(url);

    const response = await fetch(`${demo.api}/connect/sessions`, {
        method: 'POST',
        headers: { 'Content-Type': 'application/json',
                   Authorization: `Bearer ${API_KEY}` },
        body: JSON.stringify({ tags: { end_user_id: 'carol' } }),
    });
    const { token } = (await response.json()).data;

    const authorise = (options) => page.evaluate(async ([host, session, o]) => {
        const { default: Nango } = await import('/sdk/index.js');
        const nango = new Nango({ host, connectSessionToken: session });

        try {
            return { result: await nango.auth('github', o) };
        } catch (e) {
            return { type: e.type, message: e.message };
        }
    }, [demo.api, token, options]);

    const act = async (button) => {
        const opened = page.waitForEvent('popup');
        const outcome = authorise({ detectClosedAuthWindow: true });
        const popup = await opened;

        await popup.getByRole('button', { name: 'Authorize' }).waitFor();

        if (button) {
            await popup.getByRole('button', { name: button }).click();
        } else {
            await popup.close();
        }

        return outcome;
    };

    assert.match((await act('Deny')).message, /access_denied/);
    assert.strictEqual((await act()).type, 'window_closed');

    const { result } = await act('Authorize');

    assert.strictEqual(result.providerConfigKey, 'github');

    const [made] = await atNango();

    assert.strictEqual(made.connection_id, result.connectionId);
    assert.deepStrictEqual(made.tags, { end_user_id: 'carol' });
    await sim('POST', 'delete', { integration: 'github',
                                  connection_id: made.connection_id,
                                  webhook: true, wait: true });
});


test('narrow, dark, and by the keyboard', { timeout: TEST_MS }, async (t) => {
    const visitor = await visit(t, 'Ann', {
        viewport: { width: 340, height: 700 }, colorScheme: 'dark',
    });
    const { page, ui } = visitor;
    const overflow = () => page.evaluate(() =>
        document.documentElement.scrollWidth
        - document.documentElement.clientWidth);
    const back = await page.evaluate(() =>
        getComputedStyle(document.body).backgroundColor);

    assert.strictEqual(await overflow(), 0);
    assert.ok(/\d+/g[Symbol.match](back).every((one) => Number(one) < 64),
              back);

    const button = page.locator('[data-integration=airtable]')
        .getByRole('button', { name: 'Connect' });

    await button.focus();
    await page.keyboard.press('Enter');
    await ui.getByLabel('API key').waitFor();
    await page.waitForFunction(() =>
        document.activeElement.id === 'connect-ui');
    await page.keyboard.type('a-key');
    await page.keyboard.press('Enter');
    await ui.getByRole('heading', { name: 'Success!' }).waitFor();
    await page.keyboard.press('Escape');
    await page.locator('#connect-ui').waitFor({ state: 'detached' });

    const airtable = new Card(visitor, 'airtable');

    await airtable.is('valid');
    assert.strictEqual(await overflow(), 0);
    assert.ok(await airtable.root.evaluate((card) =>
        card.contains(document.activeElement)));
    await shot(page, 'narrow-dark');
    await airtable.click('Disconnect');
    await airtable.is('none');
    assert.deepStrictEqual(visitor.seen.errors, []);
});


/* As with the real Nango on a laptop: it cannot reach this nginx. */
test('without any webhook', { timeout: TEST_MS }, async (t) => {
    const nango = await createNango({
        connectUi: 0, settings: { proxy: 'provider' },
    }).listen();

    t.after(() => nango.close());

    const { url } = await startDemo({
        NANGO_API_KEY: API_KEY, NANGO_HOSTPORT: nango.url,
        NANGO_CONNECT_UI: nango.connectUi.url,
    });
    const visitor = await visit(t, 'Ann', { url });
    const github = new Card(visitor, 'github');

    assert.strictEqual(await visitor.page.locator('#mode').textContent(),
                       nango.url);
    await github.authorise();
    await github.is('valid');
    await github.click('Call provider');
    await github.says('GitHub has answered', 200);
    assert.ok(await github.root.locator('.simulator').isHidden());
    await github.root.getByRole('textbox').fill('user/repos?page=2');
    await github.click('Call provider');
    await github.says('GET /user/repos?page=2', 200);
    await shot(visitor.page, 'real');

    /* Nobody tells of this; it is found by looking. */
    const [{ connection_id: id }] = nango.state.list({ limit: 1 });

    await nango.control('POST', 'refresh-fail', {
        integration: 'github', connection_id: id, webhook: false,
    });
    await github.is('invalid');
    await github.authorise('Reconnect');
    await github.is('valid');
    await github.click('Disconnect');
    await github.is('none');
    assert.deepStrictEqual(nango.state.list({ limit: 1 }), []);
    assert.deepStrictEqual(visitor.seen.errors, []);
});
