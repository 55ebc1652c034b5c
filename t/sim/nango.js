/*
 * A simulated Nango: its API, its webhooks and a control interface on one
 * loopback port, state in memory.
 *
 *     const nango = createNango({ settings: { webhook_url: url } });
 *     await nango.listen();           nango.url, nango.port
 *     await nango.control('POST', 'connect', { token, integration });
 *     await nango.close();
 *
 * Options: port (0), apiKeys, signingKey, integrations, speed, retrySpeed,
 * settings (see SETTINGS), connectUi: the port, 0 for any, of a stand-in for
 * Connect UI, whose address is nango.connectUi.url.  Requests are read whole,
 * recorded, answered by control.js under /_sim/ and by api.js elsewhere.
 */

'use strict';

const http = require('node:http');

const api = require('./api');
const control = require('./control');
const reply = require('./reply');
const { Clock } = require('./clock');
const { ConnectUi } = require('./connect_ui');
const { Deliveries } = require('./delivery');
const { Events } = require('./events');
const { Faults, acts, spoil, cut } = require('./faults');
const { Limits } = require('./limits');
const { Recorder } = require('./recorder');
const { Sockets } = require('./sockets');
const { State } = require('./state');

const API_KEY = '11111111-1111-4111-8111-111111111111';
const SIGNING_KEY = '22222222-2222-4222-8222-222222222222';
const MAX_BODY = 75 * 1024 * 1024;

const SETTINGS = {
    environment: 'dev',
    webhook_url: null,
    webhook_url_secondary: null,
    connect_ui: 'http://localhost:3009/',
    public_url: 'http://localhost:3003',

    /* where providers send users back to, unless to Nango itself */
    callback_url: null,

    /* "echo", or "provider": what the proxy answers */
    proxy: 'echo',

    /* "full" or "short": the headers of the API's answers */
    headers: 'full',

    /* requests a minute; the larger of Nango's plans */
    rate_limit: 2000,

    /* how long a bad key waits for its 401 */
    bad_key_ms: 50,

    /* how long after the browser's answer a webhook sets out */
    webhook_lag_ms: 4,

    webhook_drop: 0,
    webhook_duplicate: 0,
    on_auth_creation: true,
    on_auth_refresh_error: true,
    on_sync_error: true,
    on_sync_completion_always: true,
    on_deletion: false,

    /* others of Nango's processes keep a rotated key for minutes */
    sign_with_previous: false,

    breaker: true,
    breaker_failures: 5,
    breaker_window_ms: 10000,
    breaker_open_ms: 60000,
    user_agent: 'nango/0.71.4 (linux/6.18.44-fc-v669; node.js/22.22.2)',
};


class Nango {
    constructor(options) {
        const given = options.settings || {};

        for (const name of Object.keys(given)) {
            if (!Object.hasOwn(SETTINGS, name)) {
                throw new Error(`unknown setting "${name}"`);
            }
        }

        this.options = options;
        this.settings = { ...SETTINGS, ...given };
        this.initial = { ...this.settings };
        this.clock = new Clock(options.speed);
        this.state = new State({
            clock: this.clock,
            apiKeys: options.apiKeys || [API_KEY],
            signingKey: options.signingKey || SIGNING_KEY,
            integrations: options.integrations,
        });
        this.limits = new Limits(this.clock, this.settings);
        this.faults = new Faults();
        this.recorder = new Recorder();
        this.deliveries = new Deliveries({
            clock: new Clock(options.retrySpeed),
            settings: this.settings,
        });
        this.events = new Events(this);
        this.connectionCount = 0;
        this.sockets = new Sockets();
        this.open = new Set();
        this.connectUi = options.connectUi === undefined
                         ? null : new ConnectUi(options.connectUi);
        this.server = http.createServer((req, res) => this.read(req, res));
        this.server.keepAliveTimeout = reply.KEEP_ALIVE * 1000;
        this.server.headersTimeout = (reply.KEEP_ALIVE + 1) * 1000;
        this.server.requestTimeout = 0;

        this.server.on('connection', (socket) => {
            socket.simConnection = ++this.connectionCount;
            this.open.add(socket);
            socket.on('close', () => this.open.delete(socket));

            /* Clients that go away are their own affair. */
            socket.on('error', () => {});
        });

        this.server.on('upgrade', (req, socket) =>
            this.sockets.upgrade(req, socket));
    }

    async listen() {
        if (this.connectUi) {
            await this.connectUi.listen();
            this.settings.connect_ui = `${this.connectUi.url}/`;
            this.initial.connect_ui = this.settings.connect_ui;
        }

        return new Promise((resolve, reject) => {
            this.server.once('error', reject);
            this.server.listen(this.options.port || 0, '127.0.0.1', () => {
                this.port = this.server.address().port;
                this.url = `http://127.0.0.1:${this.port}`;
                resolve(this);
            });
        });
    }

    async close() {
        this.deliveries.stop();
        this.clock.stop();

        if (this.connectUi) {
            await this.connectUi.close();
        }

        return new Promise((resolve) => {
            this.server.close(resolve);

            for (const socket of this.open) {
                socket.destroy();
            }
        });
    }

    /* As it was when it was made; what is under way goes on. */
    reset() {
        Object.assign(this.settings, this.initial);
        this.clock.set(Date.now());
        this.clock.setSpeed(this.options.speed || 1);
        this.deliveries.clock.set(Date.now());
        this.deliveries.clock.setSpeed(this.options.retrySpeed || 1);
        this.state.reset();
        this.limits.clear();
        this.faults.clear();
        this.recorder.clear();
        this.deliveries.clear();
    }

    read(req, res) {
        const chunks = [];
        let length = 0;

        req.on('data', (chunk) => {
            length += chunk.length;

            if (length > MAX_BODY) {
                req.destroy();
            } else {
                chunks.push(chunk);
            }
        });

        req.on('end', () => {
            req.body = chunks.length === 1 ? chunks[0]
                                           : Buffer.concat(chunks);
            this.dispatch(req, res).catch((e) => {
                process.stderr.write(`${e.stack}\n`);

                if (!res.headersSent) {
                    reply.send(res, reply.error(500, 'simulator_error',
                                                e.message), 'short');
                }
            });
        });

        req.on('error', () => {});
    }

    async dispatch(req, res) {
        if (req.url.startsWith('/_sim/')) {
            reply.send(res, await control.handle(this, req), 'short');
            return;
        }

        await this.answer(req, res);
    }

    async answer(req, res) {
        const path = req.url.split('?', 1)[0];
        const entry = this.recorder.add(req, req.body, this.clock.now());
        const fault = this.faults.strike(req.method, path);
        let good = null;

        if (fault && fault.delay_ms) {
            await this.pause(fault.delay_ms);
        }

        if (!fault || acts(fault)) {
            good = api.handle(this, req);
        }

        if (good && good.late) {
            await this.pause(good.late);
        }

        if (!fault) {
            entry.status = good.status;
            reply.send(res, good, this.settings.headers);
            return;
        }

        if (fault.hang) {
            entry.status = 'hang';
            return;
        }

        const bad = spoil(fault, good, req.method, path);

        if (fault.cut_after !== undefined || fault.reset) {
            entry.status = 'cut';
            cut(fault, res, bad, this.settings.headers);
            return;
        }

        entry.status = bad.status;
        reply.send(res, bad, this.settings.headers);
    }

    /* Real time: faults are about what a client bears. */
    pause(ms) {
        return new Promise((resolve) => {
            setTimeout(resolve, ms);
        });
    }

    /* A command of the control interface, without a connection. */
    async control(method, command, body) {
        const answer = await control.handle(this, {
            method,
            url: `/_sim/${command}`,
            body: Buffer.from(body === undefined ? ''
                                                 : JSON.stringify(body)),
        });
        const value = JSON.parse(answer.body);

        if (answer.status !== 200) {
            throw new Error(`${command}: ${value.error.message}`);
        }

        return value;
    }
}


function createNango(options) {
    return new Nango(options || {});
}


module.exports = { createNango, API_KEY, SIGNING_KEY, SETTINGS };
