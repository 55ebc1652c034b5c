/*
 * The demo's page: signs in at the application, shows the catalogue with the
 * caller's connections, and has each connected, used, broken, authorised
 * again and disconnected.  What changes comes by the request that nginx holds,
 * never by what a button believes to have done.
 */

import Nango from './sdk/index.js';

import * as edge from './edge.js';
import { chip, clear, element, note, shorten } from './log.js';

const STORY = [
    ['connect', 'Connect'],
    ['appear', 'See it appear'],
    ['use', 'Use it'],
    ['break', 'Break it'],
    ['refused', 'Meet 409'],
    ['reconnect', 'Reconnect'],
    ['again', 'Use it again'],
    ['disconnect', 'Disconnect'],
    ['gone', 'Meet 404'],
];

/* What is asked of a provider, of those that answer without more. */
const PATHS = { github: 'user', slack: 'auth.test',
                'airtable-pat': 'v0/meta/whoami' };

/* How long a webhook may take before Nango is asked itself. */
const PATIENCE_MS = 3000;

/* After an answer that was none, twice as long each time up to this. */
const RETRY_MS = 1000;
const MAX_RETRY_MS = 16000;

const $ = (id) => document.getElementById(id);

const state = {
    config: null,
    sequence: 0,
    cards: new Map(),
    done: new Set(),
    watch: null,
};


/* The story, ticked off. */

function tick(step) {
    if (state.done.has(step)) {
        return;
    }

    state.done.add(step);
    showStory();
}


function showStory() {
    const next = STORY.find(([step]) => !state.done.has(step));

    $('story').replaceChildren(...STORY.map(([step, text], i) => {
        const done = state.done.has(step);
        const item = element('li', {
            className: done ? 'done' : next && next[0] === step ? 'next' : '',
            data: { step },
        }, element('span', { className: 'number' },
                   done ? '\u2713' : String(i + 1)), text);

        if (done) {
            item.append(element('span', { className: 'hidden' }, ' (done)'));
        }

        return item;
    }));
}


/* One integration, and the caller's newest connection of it. */

function since(text) {
    return new Date(text).toLocaleTimeString([], { hour12: false });
}


function row(name, ...value) {
    return element('div', {}, element('dt', {}, name),
                   element('dd', {}, ...value));
}


class Card {
    constructor(integration) {
        const name = integration.display_name || integration.integration;

        this.integration = integration.integration;
        this.provider = integration.provider;
        this.name = name;
        this.connection = null;
        this.arriving = false;
        this.reconnecting = false;

        this.status = element('span', { className: 'status' });
        this.facts = element('dl', {});
        this.error = element('p', { className: 'error', hidden: true });
        this.result = element('div', { className: 'result', hidden: true });
        this.result.setAttribute('role', 'status');

        this.connectButton = this.button('Connect', 'main',
                                         () => this.connect());
        this.reconnectButton = this.button('Reconnect', 'main',
                                           () => this.reconnect());
        this.useButton = this.button('Call provider', '',
                                     () => this.use());
        this.backendButton = this.button('Call backend', '',
                                         () => this.useBackend());
        this.disconnectButton = this.button('Disconnect', 'danger',
                                            () => this.disconnect());
        this.breakButton = this.button('Refuse its token', '',
                                       () => this.simulate('refresh-fail'));
        this.mendButton = this.button('Accept it again', '',
                                      () => this.simulate('refresh-ok'));
        this.path = element('input', {
            value: PATHS[this.provider] || '', spellcheck: false,
        });
        this.call = element('label', { className: 'call' },
            `What to ask of ${name}, through Nango's proxy: /`, this.path);
        this.simulator = element('div', { className: 'simulator' },
            element('span', {}, 'Simulator: let ' + name),
            this.breakButton, this.mendButton);

        this.root = element('article', {
            className: 'panel card',
            data: { integration: this.integration },
        },
        element('header', {},
            element('span', { className: `mark m${hue(name)}`,
                              ariaHidden: 'true' },
                    name.slice(0, 1).toUpperCase()),
            element('div', { className: 'title' },
                element('h3', {}, name),
                element('code', {}, this.integration)),
            this.status),
        this.error, this.facts,
        element('div', { className: 'buttons' }, this.connectButton,
                this.reconnectButton, this.useButton, this.backendButton,
                this.disconnectButton),
        this.call, this.simulator, this.result);

        this.root.setAttribute('aria-label', name);
        this.show(null);
    }

    button(text, className, act) {
        const made = element('button', { type: 'button', className }, text);

        /* One thing at a time; "busy" is what a second click finds. */
        made.addEventListener('click', async () => {
            if (this.root.ariaBusy === 'true') {
                return;
            }

            this.root.ariaBusy = 'true';

            try {
                await act();
            } finally {
                this.root.ariaBusy = 'false';
            }
        });

        return made;
    }

    /* What nginx says of it now; null: not connected. */
    show(connection) {
        const focused = this.root.contains(document.activeElement);
        const valid = connection !== null && connection.status === 'valid';
        const broken = connection !== null && !valid;
        const before = this.connection;

        this.connection = connection;
        this.root.dataset.status = valid ? 'valid'
                                   : broken ? 'invalid' : 'none';
        this.status.textContent = valid ? 'Connected'
            : broken ? 'Needs re-authorisation' : 'Not connected';

        this.connectButton.hidden = connection !== null;
        this.reconnectButton.hidden = !broken;
        this.disconnectButton.hidden = connection === null;
        this.backendButton.hidden = connection === null;
        this.useButton.className = valid ? 'main' : '';
        this.simulator.hidden = connection === null
                                || !state.config.simulated;
        this.call.hidden = connection === null || state.config.simulated;
        this.breakButton.hidden = broken;
        this.mendButton.hidden = valid;

        this.error.hidden = !broken || !connection.error;
        this.error.textContent = broken && connection.error
            ? connection.error.description || connection.error.type : '';

        this.facts.replaceChildren(...(connection === null ? [] : [
            row('owner', ...Object.entries(connection.owner)
                .map(([tag, value]) => `${tag}=${value}`)),
            row('id', element('code', {}, connection.id.slice(0, 12)
                                             + '\u2026')),
            row('since', since(connection.status_since)),
        ]));

        if (before && before.status !== this.root.dataset.status) {
            this.forget();
        }

        if (valid && this.arriving) {
            this.arrived();
        }

        if (broken) {
            tick('break');
        }

        if (valid && this.reconnecting) {
            this.reconnecting = false;
            this.say(undefined, 'nginx has heard of it: the same connection, '
                                + 'with its owner.');
            tick('reconnect');
        }

        if (focused && (document.activeElement === document.body
                        || document.activeElement.hidden))
        {
            this.root.querySelector('.buttons button:not([hidden])').focus();
        }
    }

    arrived() {
        this.arriving = false;
        this.say(undefined, 'nginx has heard of it, and whose it is.');
        tick('appear');
    }

    say(status, text, value) {
        this.result.hidden = false;
        this.result.replaceChildren(
            element('p', {}, ...(status === undefined ? [] : [chip(status)]),
                    element('span', {}, text)),
            ...(value === undefined ? []
                : [element('pre', { tabIndex: 0 }, shorten(value))]));
    }

    forget() {
        this.result.hidden = true;
        this.result.replaceChildren();
    }

    /* An answer that is none of what was hoped for, in words. */
    refused({ status, code, body }) {
        const words = {
            connection_invalid: `${this.name} needs re-authorisation: `
                                + 'reconnect it.',
            connection_not_found: `${this.name} is not connected: nginx lets `
                                  + 'nothing through.',
            origin_not_allowed: 'Pages of this origin may not ask.',
            rate_limited: 'That was often. Wait a moment.',
        };

        if (code) {
            this.say(status, words[code] || body.error.message,
                     { error: code });
        } else {
            this.say(status, status ? 'This is not from nginx-nango.'
                                    : 'nginx could not be asked.', body);
        }
    }

    async connect() {
        const answer = await edge.session(this.integration);

        if (answer.status !== 200) {
            this.refused(answer);
            return;
        }

        this.open(answer.body);
    }

    async reconnect() {
        const answer = await edge.reconnect(this.connection.id);

        if (answer.status !== 200) {
            this.refused(answer);
            return;
        }

        this.reconnecting = true;
        this.open(answer.body);
    }

    /*
     * This is all that an application does with Nango's SDK: the session's
     * answer has what it wants to know.
     */
    open(session) {
        let connected = false;
        let problem = '';

        const ui = new Nango().openConnectUI({
            baseURL: session.connectURL,
            apiURL: session.apiURL,
            detectClosedAuthWindow: true,
            onEvent: (event) => {
                note({ from: 'sdk', what: event.type, heard: event.payload });

                if (event.type === 'connect') {
                    connected = true;
                    this.connected(event.payload);

                } else if (event.type === 'error') {
                    problem = event.payload.errorMessage;

                } else if (event.type === 'close') {
                    this.closed(connected, problem);
                }
            },
        });

        ui.iframe.title = `Connect ${this.name}`;
        ui.iframe.style.border = '0';
        ui.iframe.addEventListener('load', () => ui.iframe?.focus());
        ui.setSessionToken(session.sessionToken);
    }

    /*
     * The browser mostly knows before Nango's webhook has told nginx.  If none
     * comes, nginx is told to look.
     */
    connected({ connectionId }) {
        tick('connect');

        if (!this.reconnecting) {
            this.arriving = true;
        }

        if (this.arriving && this.connection !== null) {
            this.arrived();
            return;
        }

        this.say(undefined, 'Authorised. Waiting for nginx to hear of it...');

        setTimeout(async () => {
            if (this.arriving || this.reconnecting) {
                await edge.verify(this.integration, connectionId);
            }
        }, state.config.simulated ? PATIENCE_MS : 0);
    }

    closed(connected, problem) {
        if (!connected) {
            this.reconnecting = false;
            this.say(undefined, problem || 'You have closed it. Nothing has '
                                           + 'changed.');
        }

        this.root.querySelector('.buttons button:not([hidden])').focus();
    }

    async use() {
        const answer = await edge.useProxy(this.integration,
                                           this.path.value);

        this.used(answer, `${this.name} has answered, through Nango's proxy.`);
    }

    async useBackend() {
        const answer = await edge.useBackend(this.integration);

        this.used(answer, 'Your backend was told the connection.');
    }

    used(answer, text) {
        const { status, code, body } = answer;

        if (status >= 200 && status < 300) {
            tick(state.done.has('reconnect') ? 'again' : 'use');
            this.say(status, text, body);
            return;
        }

        if (code === 'connection_invalid') {
            tick('refused');

        } else if (code === 'connection_not_found'
                   && state.done.has('disconnect'))
        {
            tick('gone');
        }

        this.refused(answer);
    }

    async disconnect() {
        const answer = await edge.disconnect(this.connection.id);

        if (answer.status !== 200) {
            this.refused(answer);
            return;
        }

        tick('disconnect');
    }

    /* The simulator's own control, which no Nango has. */
    async simulate(act) {
        const answer = await edge.request('POST', `/simulator/${act}`, {
            from: 'simulator',
            body: { integration: this.integration,
                    connection_id: this.connection.connection_id,
                    wait: true },
        });

        if (answer.status !== 200) {
            this.refused(answer);
        }
    }
}


/* One of eight colours, the same for the same name. */
function hue(name) {
    return [...name].reduce((sum, c) => sum + c.codePointAt(0), 0) % 8;
}


function problem(text) {
    $('problem').hidden = !text;
    $('problem').textContent = text || '';
}


function apply({ connections, sequence }) {
    const newest = new Map();

    for (const one of connections) {
        const known = newest.get(one.integration);

        if (!known || (known.status !== 'valid' && one.status === 'valid')) {
            newest.set(one.integration, one);
        }
    }

    state.sequence = sequence;

    for (const [integration, card] of state.cards) {
        card.show(newest.get(integration) || null);
    }
}


async function load(signal) {
    $('cards').ariaBusy = 'true';
    problem('');

    const catalog = await edge.catalog(signal);

    if (catalog.status !== 200) {
        return catalog;
    }

    state.cards = new Map(catalog.body.integrations.map((one) =>
        [one.integration, new Card(one)]));
    $('cards').replaceChildren(
        ...[...state.cards.values()].map((card) => card.root));

    const list = await edge.connections(signal);

    if (list.status === 200) {
        apply(list.body);
    }

    return list;
}


/* Until it is called again, for another user or origin. */
async function watch() {
    if (state.watch) {
        state.watch.abort();
    }

    const mine = new AbortController();

    state.watch = mine;
    $('cards').replaceChildren();

    const first = await load(mine.signal);

    if (mine.signal.aborted) {
        return;
    }

    $('cards').ariaBusy = 'false';

    if (first.status !== 200) {
        problem(first.code === 'origin_not_allowed'
            ? 'nginx refuses pages of this origin: nango_allow_origin does '
              + 'not list it.'
            : 'nginx did not answer as hoped; see the activity.');
        return;
    }

    let pause = RETRY_MS;

    for (;;) {
        const answer = await edge.change(state.sequence, mine.signal);

        if (mine.signal.aborted) {
            return;
        }

        if (answer.status === 401) {
            signedOut();
            return;
        }

        if (answer.status !== 200) {
            await new Promise((resolve) => { setTimeout(resolve, pause); });
            pause = Math.min(pause * 2, MAX_RETRY_MS);
            continue;
        }

        pause = RETRY_MS;

        if (answer.body.changed) {
            apply(answer.body);
        }
    }
}


function setOrigin(which) {
    const other = `${location.protocol}//${location.hostname}:`
                  + state.config.other;

    edge.setBase(which === 'other' ? other : '');
    $('where').textContent = which === 'other'
        ? `The page is of ${location.origin}, the endpoints of ${other}: `
          + 'nango_allow_origin lets the page ask, with its cookie.'
        : `The page and the endpoints are of ${location.origin}.`;
}


async function signIn(user) {
    const { status } = await edge.request('POST', '/login', {
        body: { user, password: user },
    });

    if (status === 200) {
        signedIn(user);
    }
}


function signedIn(user) {
    const other = user === 'ann' ? 'bob' : 'ann';
    const name = (id) => id.slice(0, 1).toUpperCase() + id.slice(1);

    $('welcome').hidden = true;
    $('app').hidden = false;
    $('who').hidden = false;
    $('user').textContent = name(user);
    $('avatar').textContent = name(user).slice(0, 1);
    $('switch').textContent = `Switch to ${name(other)}`;
    $('switch').onclick = () => signIn(other);
    watch();
}


function signedOut() {
    $('welcome').hidden = false;
    $('app').hidden = true;
    $('who').hidden = true;
}


async function start() {
    state.config = await (await fetch('demo.json')).json();
    $('mode').textContent = state.config.simulated ? 'simulated Nango'
                                                   : state.config.nango;
    showStory();
    setOrigin('own');

    for (const button of document.querySelectorAll('[data-user]')) {
        button.addEventListener('click', () => signIn(button.dataset.user));
    }

    for (const input of document.querySelectorAll('[name=origin]')) {
        input.checked = input.value === 'own';
        input.addEventListener('change', () => {
            setOrigin(input.value);
            watch();
        });
    }

    $('clear').addEventListener('click', clear);

    const { body } = await edge.request('GET', '/me');

    if (body && body.user) {
        signedIn(body.user);
    } else {
        signedOut();
    }
}


start().catch((e) => {
    problem(e.message);
    throw e;
});
