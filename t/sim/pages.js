/*
 * What popups show: the consent of a provider that does not exist, and how
 * it ended.  Whole documents without anything from elsewhere.
 */

'use strict';

const STYLE = `
:root { color-scheme: light dark; --back: #f4f5f8; --card: #fff;
    --text: #1b1f2a; --dim: #5b6376; --line: #d9dde6; --act: #2456d6;
    --good: #14743c; --bad: #b3261e; }
@media (prefers-color-scheme: dark) {
    :root { --back: #101319; --card: #191d26; --text: #e8ebf2;
        --dim: #a0a9bc; --line: #333a49; --act: #3f6ff0; --good: #55c884;
        --bad: #ff8a80; }
}
* { box-sizing: border-box; }
body { margin: 0; min-height: 100vh; display: grid; place-items: center;
    padding: 20px; background: var(--back); color: var(--text);
    font: 16px/1.5 system-ui, "DejaVu Sans", sans-serif; }
main { width: 100%; max-width: 400px; padding: 28px; background: var(--card);
    border: 1px solid var(--line); border-radius: 14px; }
.mark { width: 52px; height: 52px; border-radius: 12px; display: grid;
    place-items: center; background: var(--text); color: var(--card);
    font-weight: 700; font-size: 22px; }
.mark.good { background: var(--good); } .mark.bad { background: var(--bad); }
h1 { margin: 18px 0 6px; font-size: 21px; line-height: 1.3; }
p, ul { margin: 0 0 16px; color: var(--dim); } ul { padding-left: 20px; }
.row { display: flex; gap: 10px; margin-top: 22px; } form { flex: 1; }
button { width: 100%; padding: 11px; border-radius: 9px; font: inherit;
    font-weight: 600; cursor: pointer; border: 1px solid var(--line);
    background: transparent; color: var(--text); }
button.act { background: var(--act); border-color: var(--act); color: #fff; }
button:focus-visible { outline: 3px solid var(--act); outline-offset: 2px; }
small { display: block; margin-top: 20px; color: var(--dim); }
`;


function escapeHtml(text) {
    return String(text).replace(/[&<>"']/g, (c) => `&#${c.charCodeAt(0)};`);
}


/* A value within a script, whatever is in it. */
function literal(value) {
    return JSON.stringify(value).replace(/</g, '\\u003c');
}


function document(title, body) {
    return '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
           + '<meta name="viewport" content="width=device-width">'
           + `<title>${escapeHtml(title)}</title><style>${STYLE}</style>`
           + `</head><body><main>${body}</main></body></html>\n`;
}


function button(url, values, className, label) {
    const hidden = Object.entries(values).map(([name, value]) =>
        `<input type="hidden" name="${name}" value="${escapeHtml(value)}">`);

    return `<form action="${escapeHtml(url)}">${hidden.join('')}`
           + `<button class="${className}">${label}</button></form>`;
}


/* callback: where the provider sends its users back to. */
function consent({ integration, state, code, callback }) {
    const name = escapeHtml(integration.display_name || integration.id);

    return document(`Authorize ${integration.display_name}`,
        `<div class="mark" aria-hidden="true">${name.slice(0, 1)}</div>`
        + `<h1>${name} asks for your consent</h1>`
        + '<p>An application wants to act for you:</p>'
        + '<ul><li>read your profile</li><li>stay connected until you '
        + 'disconnect it</li></ul><div class="row">'
        + button(callback, { state, code }, 'act', 'Authorize')
        + button(callback, { state, error: 'access_denied' }, 'no', 'Deny')
        + `</div><small>A stand-in: ${name} itself is not asked.</small>`);
}


/*
 * The page that opened the popup is told, as Nango's callback does; it may
 * hear of it by its WebSocket before.
 */
function ended(problem) {
    const message = problem === null
        ? { type: 'nango_oauth_callback_success' }
        : { type: 'nango_oauth_callback_error',
            payload: { message: problem, errorType: 'invalid_callback' } };

    return document(problem === null ? 'Connected' : 'Not connected',
        (problem === null
            ? '<div class="mark good" aria-hidden="true">&#10003;</div>'
              + '<h1>Connected</h1><p>You may close this window.</p>'
            : '<div class="mark bad" aria-hidden="true">&#33;</div>'
              + `<h1>Not connected</h1><p>${escapeHtml(problem)}</p>`)
        + '<script>if (window.opener) { window.opener.postMessage('
        + `${literal(message)}, '*'); setTimeout(close, 1500); }</script>`);
}


module.exports = { consent, ended, escapeHtml };
