#!/usr/bin/env node
/*
 * The simulated Nango as a program.  It prints one line when it is ready,
 *
 *     listening on http://127.0.0.1:PORT
 *
 * (before it, if there is one, where its Connect UI is) and nothing else
 * unless it breaks.  It ends by SIGTERM or SIGINT, when the
 * process given by --parent is gone, and when its standard input closes if
 * --stdin is given, so that no test leaves it behind.
 */

'use strict';

const { createNango, SETTINGS } = require('./nango');

const USAGE = `usage: server.js [options]
  --port N               port on 127.0.0.1, 0 for any free one (default)
  --connect-ui N         a stand-in for Connect UI on this port, 0 for any
  --webhook URL          where webhooks go
  --webhook2 URL         the second webhook URL
  --api-key KEY          repeatable
  --signing-key KEY      signs webhooks
  --integration SPEC     id[:provider[:auth mode[:name]]], repeatable;
                         replaces the built-in ones
  --rate-limit N         requests a minute
  --retry-speed N        retries, timeouts and the breaker N times faster
  --speed N              tokens and limits N times faster
  --headers full|short   how much Nango says in headers
  --set NAME=JSON        any other setting, repeatable
  --parent PID           end when that process does
  --stdin                end when standard input closes
`;

const PARENT_POLL_MS = 500;


function usage(problem) {
    process.stderr.write(`${problem}\n${USAGE}`);
    process.exit(2);
}


function integration(spec) {
    const [id, provider, mode, name] = spec.split(':');

    return { id, provider, auth_mode: mode, display_name: name };
}


function setting(settings, text) {
    const [, name, value] = /^([^=]+)=(.*)$/s.exec(text) || [];

    if (!name || !Object.hasOwn(SETTINGS, name)) {
        usage(`no such setting: ${text}`);
    }

    try {
        settings[name] = JSON.parse(value);
    } catch (e) {
        settings[name] = value;
    }
}


function parse(args) {
    const options = { settings: {} };
    const more = (name, value) => {
        options[name] = (options[name] || []).concat(value);
    };

    const known = {
        '--port': (v) => { options.port = Number(v); },
        '--connect-ui': (v) => { options.connectUi = Number(v); },
        '--webhook': (v) => { options.settings.webhook_url = v; },
        '--webhook2': (v) => { options.settings.webhook_url_secondary = v; },
        '--api-key': (v) => more('apiKeys', v),
        '--signing-key': (v) => { options.signingKey = v; },
        '--integration': (v) => more('integrations', integration(v)),
        '--rate-limit': (v) => { options.settings.rate_limit = Number(v); },
        '--retry-speed': (v) => { options.retrySpeed = Number(v); },
        '--speed': (v) => { options.speed = Number(v); },
        '--headers': (v) => { options.settings.headers = v; },
        '--set': (v) => setting(options.settings, v),
        '--parent': (v) => { options.parent = Number(v); },
    };

    for (let i = 0; i < args.length; i++) {
        if (args[i] === '--stdin') {
            options.stdin = true;

        } else if (args[i] === '--help') {
            process.stdout.write(USAGE);
            process.exit(0);

        } else if (!Object.hasOwn(known, args[i])) {
            usage(`unknown option: ${args[i]}`);

        } else if (i + 1 >= args.length) {
            usage(`${args[i]} takes a value`);

        } else {
            known[args[i]](args[++i]);
        }
    }

    return options;
}


function alive(pid) {
    try {
        process.kill(pid, 0);
        return true;
    } catch (e) {
        return e.code === 'EPERM';
    }
}


async function main() {
    const options = parse(process.argv.slice(2));
    const end = () => process.exit(0);

    process.on('SIGTERM', end);
    process.on('SIGINT', end);

    if (options.stdin) {
        process.stdin.on('end', end);
        process.stdin.on('close', end);
        process.stdin.on('error', end);
        process.stdin.resume();
    }

    if (options.parent) {
        setInterval(() => {
            if (!alive(options.parent)) {
                end();
            }
        }, PARENT_POLL_MS);
    }

    const nango = await createNango(options).listen();

    const ui = nango.connectUi ? `connect ui on ${nango.connectUi.url}\n`
                               : '';

    /* At once, so that who waits for a line has both. */
    process.stdout.write(`${ui}listening on ${nango.url}\n`);
}


main().catch((e) => {
    process.stderr.write(`${e.message}\n`);
    process.exit(1);
});
