/*
 * The page in the SDK's frame.  To the page around it: ready, connect, error,
 * close; from there: session_token.  With the token it asks the API, whose
 * address is the query's apiURL, what may be connected, and has the user
 * authorise it: by a popup and a WebSocket, or by a form.
 */

const query = new URLSearchParams(location.search);
const api = (query.get('apiURL') || '').replace(/\/+$/, '');
const watchPopup = query.get('detectClosedAuthWindow') === 'true';

/* How long the page around may take to come up with a token. */
const PATIENCE_MS = 10000;

const POPUP = 'width=500,height=640,resizable=yes,scrollbars=yes';

const view = document.getElementById('view');
const back = document.getElementById('back');

let token = null;
let list = [];
let attempt = null;


function tell(type, payload) {
    parent.postMessage(payload ? { type, payload } : { type }, '*');
}


function element(name, properties, ...children) {
    const made = Object.assign(document.createElement(name), properties);

    made.append(...children);

    return made;
}


/* What there was to see is gone; the focus goes to what is there now. */
function show(...children) {
    view.replaceChildren(...children);
    back.hidden = true;
    (view.querySelector('input, button') || view).focus();
}


function mark(text, className) {
    const made = element('div', { className: `mark ${className || ''}`,
                                  textContent: text });

    made.setAttribute('aria-hidden', 'true');

    return made;
}


function letter(integration) {
    return mark(integration.display_name.slice(0, 1).toUpperCase());
}


function heading(text) {
    return element('h1', { id: 'title', textContent: text });
}


function button(text, onclick, className) {
    return element('button', { type: 'button', textContent: text, onclick,
                               className: className || '' });
}


function message(text) {
    const made = element('div', { className: 'note', textContent: text });

    made.setAttribute('role', 'alert');

    return made;
}


async function ask(path, options) {
    const response = await fetch(api + path, options);
    const body = await response.json();

    if (!response.ok) {
        const { code, message: text, errors } = body.error;

        throw Object.assign(new Error(text || (errors && errors[0].message)
                                      || code), { code });
    }

    return body;
}


function withToken(path) {
    return ask(path, { headers: { Authorization: `Bearer ${token}` } });
}


/* Views */

function failure(text) {
    show(mark('!', 'bad'), heading('This cannot go on'),
         element('p', { textContent: text }));
}


function pick() {
    if (list.length === 0) {
        failure('There is nothing that you may connect.');
        return;
    }

    if (list.length === 1) {
        integrationView(list[0]);
        return;
    }

    show(heading('What do you want to connect?'),
         element('ul', {}, ...list.map((one) =>
             element('li', {}, element('button', {
                 type: 'button', onclick: () => integrationView(one),
             }, letter(one), one.display_name)))));
}


async function integrationView(integration, note) {
    const { data } = await withToken('/providers/'
                                     + encodeURIComponent(integration.provider));
    const name = integration.display_name;
    const act = FORMS[data.auth_mode]
        ? form(integration, FORMS[data.auth_mode])
        : button('Connect', () => popup(integration));

    show(letter(integration), heading(`Link your ${name} account`),
         element('p', { textContent: FORMS[data.auth_mode]
             ? `What ${name} has given you:`
             : `A window of ${name} will ask for your consent.` }),
         ...(note ? [message(note)] : []), act);
    back.hidden = list.length < 2;
}


const FORMS = {
    API_KEY: { path: '/api-auth/api-key/', fields: { apiKey: 'API key' } },
    BASIC: { path: '/api-auth/basic/',
             fields: { username: 'User name', password: 'Password' } },
    NONE: { path: '/auth/unauthenticated/', fields: {} },
};


function form(integration, { path, fields }) {
    const inputs = Object.entries(fields).map(([name, label]) =>
        element('label', { textContent: label }, element('input', {
            name, required: true, autocomplete: 'off',
            type: name === 'username' ? 'text' : 'password',
        })));
    const made = element('form', {},
        ...inputs, element('button', { textContent: 'Connect' }));

    made.addEventListener('submit', (event) => {
        event.preventDefault();

        const values = Object.fromEntries(new FormData(made));

        made.querySelector('button').disabled = true;

        ask(`${path}${encodeURIComponent(integration.unique_key)}`
            + `?connect_session_token=${token}`, {
            method: 'POST',
            headers: { 'Content-Type': 'application/json' },
            body: JSON.stringify(values),
        }).then((result) => connected(integration, result),
                (e) => refused(integration, e.code === 'connection_test_failed'
                    ? e.code : 'unknown_error', e.message));
    });

    return made;
}


function connected(integration, result) {
    tell('connect', result);
    show(mark('\u2713', 'good'), heading('Success!'),
         element('p', { textContent: `Your ${integration.display_name} `
                                     + 'account is connected.' }),
         button('Finish', leave));
}


function refused(integration, type, text) {
    tell('error', { errorType: type, errorMessage: text });
    integrationView(integration, text).catch((e) => failure(e.message));
}


/*
 * The popup is opened at once, while the click still counts, and gets its
 * address when the WebSocket has said whom to tell.
 */
function popup(integration) {
    const opened = open('', '_blank', POPUP);

    if (!opened) {
        refused(integration, 'blocked_by_browser',
                'The browser has blocked the window. Allow it and try again.');
        return;
    }

    attempt = { opened, socket: new WebSocket(api.replace(/^http/, 'ws')) };

    const { socket } = attempt;

    const end = (then) => {
        if (attempt && attempt.socket === socket) {
            abandon();
            then();
        }
    };

    const heard = {
        connection_ack: ({ ws_client_id: client }) => {
            opened.location = `${api}/oauth/connect/`
                + `${encodeURIComponent(integration.unique_key)}`
                + `?connect_session_token=${token}&ws_client_id=${client}`;
        },
        success: (said) => end(() => connected(integration, {
            providerConfigKey: said.provider_config_key,
            connectionId: said.connection_id,
            isPending: said.is_pending,
        })),
        error: (said) => end(() => refused(integration,
            'connection_validation_failed', said.error_desc)),
    };

    socket.onmessage = (event) => {
        const said = JSON.parse(event.data);

        if (Object.hasOwn(heard, said.message_type)) {
            heard[said.message_type](said);
        }
    };
    socket.onerror = () => end(() => refused(integration, 'unknown_error',
                                             'Nango cannot be reached.'));

    if (watchPopup) {
        attempt.watch = setInterval(() => {
            if (opened.closed) {
                end(() => refused(integration, 'window_closed',
                    'The window was closed before you had answered.'));
            }
        }, 250);
    }

    show(letter(integration),
         heading(`Waiting for ${integration.display_name}`),
         element('p', { textContent: 'Answer in the window that has '
                                     + 'opened.' }),
         button('Start again', () => {
             abandon();
             integrationView(integration).catch((e) => failure(e.message));
         }, 'second'));
}


/* Late enough for the popup's last page to have said its own. */
function abandon() {
    if (!attempt) {
        return;
    }

    const { opened, socket, watch } = attempt;

    attempt = null;
    clearInterval(watch);
    socket.close();
    setTimeout(() => opened.close(), 500);
}


function leave() {
    abandon();
    tell('close');
}


async function begin(given) {
    if (token !== null) {
        return;
    }

    token = given;
    show(element('p', { textContent: 'Loading...' }));

    try {
        await withToken('/connect/session');
        list = (await withToken('/integrations')).data;
        pick();
    } catch (e) {
        failure(e.code === 'unknown_connect_session_token'
            ? 'The session is over. Close this and start again.'
            : e.message);
    }
}


/* The popup tells it to its opener as well; acknowledged, as Nango does. */
addEventListener('message', (event) => {
    const { type, sessionToken } = event.data || {};

    if (event.source === parent && type === 'session_token') {
        begin(sessionToken);

    } else if (event.origin === api
               && String(type).startsWith('nango_oauth_callback_'))
    {
        event.source.postMessage({ type: 'nango_oauth_callback_ack' },
                                 event.origin);
    }
});

addEventListener('keydown', (event) => {
    if (event.key === 'Escape') {
        leave();
    }
});

document.getElementById('close').addEventListener('click', leave);
back.addEventListener('click', pick);

show(element('p', { textContent: 'Loading...' }));
setTimeout(() => {
    if (token === null) {
        failure('This page is opened by an application, which has not said '
                + 'for whom.');
    }
}, PATIENCE_MS);
tell('ready');

/* A link that is opened by itself has the token with it. */
if (query.get('session_token')) {
    begin(query.get('session_token'));
}
