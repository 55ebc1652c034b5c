/*
 * An nginx of a test's own, in a temporary directory and on a free port of
 * the loopback interface:
 *
 *     const nginx = await create(t, { http: '...', server: '...' });
 *     await nginx.start();
 *     nginx.port, nginx.master, nginx.workers(), nginx.log()
 *
 * With the option "daemon" it goes to the background, as it does on a server:
 * an nginx in the foreground takes no USR2.  "module" names another module,
 * "single" says that there are no workers.
 *
 * NANGO_MODULE and NANGO_NGINX name other files than the usual ones, and all
 * waits are NANGO_PATIENCE times as long.  Whatever was
 * started is ended with the test, and with this process, by the ids of its
 * processes; a process is told by its id and its time of start, since ids are
 * used again.
 */

'use strict';

const { spawn } = require('node:child_process');
const fs = require('node:fs');
const net = require('node:net');
const os = require('node:os');
const path = require('node:path');
const { setTimeout: sleep } = require('node:timers/promises');

const ROOT = path.resolve(__dirname, '../..');
const NGINX = process.env.NANGO_NGINX || '/usr/sbin/nginx';
const MODULE = path.resolve(process.env.NANGO_MODULE || path.join(ROOT,
    'build/debian-gcc-release/objs/ngx_http_nango_module.so'));

const PATIENCE = Number(process.env.NANGO_PATIENCE || 1);

const all = new Set();


/*
 * "the id's time of start", undefined for what is gone or only a zombie.  One
 * whose other threads still wait for the disk has its files and its port.
 */
function started(pid) {
    const fields = stat(pid);

    return fields && (fields.state !== 'Z' || threads(pid).length > 1)
        ? fields.start : undefined;
}


function threads(pid) {
    try {
        return fs.readdirSync(`/proc/${pid}/task`);
    } catch (err) {
        return [];
    }
}


/* With all its threads; one that waits for the disk stops after that. */
function standsStill(pid) {
    return threads(pid).every(
        (id) => (stat(`${pid}/task/${id}`) || { state: 'T' }).state === 'T');
}


function stat(pid) {
    try {
        const text = fs.readFileSync(`/proc/${pid}/stat`, 'latin1');
        const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');

        return { state: fields[0], parent: Number(fields[1]),
                 start: fields[19] };
    } catch (err) {
        return undefined;
    }
}


/*
 * Below those that the kernel gives to clients: of these one may be taken while
 * an nginx that was killed is started again.
 */
async function freePort() {
    for (;;) {
        const port = 10240 + Math.floor(Math.random() * 22000);
        const server = net.createServer();

        const free = await new Promise((resolve, reject) => {
            server.once('error', (err) => (err.code === 'EADDRINUSE'
                ? resolve(false) : reject(err)));
            server.listen(port, '127.0.0.1', () => resolve(true));
        });

        if (free) {
            await new Promise((resolve) => { server.close(resolve); });

            return port;
        }
    }
}


/* Resolves to what look() returns, once that is true. */
async function until(what, look, ms) {
    const end = Date.now() + (ms || 10000) * PATIENCE;

    for (;;) {
        const seen = await look();

        if (seen) {
            return seen;
        }

        if (Date.now() > end) {
            throw new Error(`waited in vain for ${what}`);
        }

        await sleep(20);
    }
}


class Nginx {
    /*
     * main, events, http, server: lines for these blocks; workers and
     * connections, how many of them.
     */
    constructor(options) {
        this.options = options;
        this.dir = fs.mkdtempSync(path.join(os.tmpdir(), 'nango-e2e-'));
        this.store = path.join(this.dir, 'store');
        this.known = new Map();
        this.masters = new Set();
        this.child = null;

        /* Workers are somebody else, and have to get at the store. */
        fs.chmodSync(this.dir, 0o755);
        all.add(this);
    }

    get master() {
        return this.child ? this.child.pid : undefined;
    }

    /* Lines of an option, in which @DIR@, @STORE@ and @PORT@ are these. */
    part(name) {
        return (this.options[name] || '').replace(/@DIR@/g, this.dir)
            .replace(/@STORE@/g, this.store).replace(/@PORT@/g, this.port);
    }

    configure(options) {
        const { dir } = this;
        const temp = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi']
            .map((name) => `${name}_temp_path ${dir}/${name};`).join('\n    ');

        Object.assign(this.options, options);

        fs.writeFileSync(path.join(dir, 'nginx.conf'), `
load_module ${this.part('module') || MODULE};
daemon ${this.options.daemon ? 'on' : 'off'};
worker_processes ${this.options.workers || 2};
pid ${dir}/nginx.pid;
error_log ${dir}/error.log notice;
${process.getuid() === 0 ? `user nobody ${nogroup()};` : ''}
${this.part('main')}
events {
    worker_connections ${this.options.connections || 512};
    ${this.part('events')}
}
http {
    access_log off;
    nango_session_limit off;
    ${temp}
    ${this.part('http')}
    server {
        listen 127.0.0.1:${this.port};
        ${this.part('server')}
    }
}
`);
    }

    async start(env) {
        const { dir } = this;

        fs.rmSync(path.join(dir, 'nginx.pid'), { force: true });

        const output = fs.openSync(path.join(dir, 'output'), 'a');
        const child = spawn(NGINX, ['-p', dir, '-c', `${dir}/nginx.conf`,
                                    '-e', `${dir}/error.log`], {
            stdio: ['ignore', output, output],
            env: { ...process.env, ...env },
        });

        fs.closeSync(output);

        const ended = new Promise((resolve) => {
            child.once('exit', resolve);
            child.once('error', () => resolve(-1));
        });

        this.child = child;

        if (this.options.daemon && await ended === 0) {
            this.child = { pid: Number(await until('a master', () =>
                this.pid())), exitCode: null, signalCode: null };
        }

        if (this.master !== undefined) {
            this.masters.add(this.master);
            this.known.set(this.master, started(this.master));
        }

        await until('nginx to listen', () => {
            if (this.master === undefined || this.child.exitCode !== null
                || this.child.signalCode)
            {
                throw new Error(`nginx did not start:\n${this.output()}`);
            }

            this.note();

            return (this.options.single || this.workers().length >= 1)
                   && this.listens();
        });
    }

    /* As written by whoever is master now. */
    pid() {
        try {
            return Number(fs.readFileSync(path.join(this.dir, 'nginx.pid')));
        } catch (err) {
            return undefined;
        }
    }

    /* USR2: the new master, beside the old one. */
    async upgrade() {
        const old = this.pid();

        this.kill(old, 'SIGUSR2');

        const pid = await until('a new master', () => {
            const now = this.pid();

            this.note();

            return now && now !== old && this.alive(now) ? now : undefined;
        });

        this.masters.add(pid);

        return pid;
    }

    /* What is stopped and started from now on. */
    follow(pid) {
        this.child = { pid, exitCode: null, signalCode: null };
    }

    listens() {
        return new Promise((resolve) => {
            const socket = net.connect(this.port, '127.0.0.1');

            socket.on('connect', () => { socket.destroy(); resolve(true); });
            socket.on('error', () => resolve(false));
        });
    }

    /* Remembers whoever is ours now, so that no orphan is lost. */
    note() {
        if (this.masters.size === 0) {
            return;
        }

        for (const name of fs.readdirSync('/proc')) {
            const pid = Number(name);

            if (!pid || this.alive(pid)) {
                continue;
            }

            const fields = stat(pid);

            if (fields && this.masters.has(fields.parent)
                && this.alive(fields.parent) && fields.state !== 'Z')
            {
                this.known.set(pid, fields.start);

                /* Of an earlier one, long ago: ids come again. */
                this.masters.delete(pid);
            }
        }
    }

    alive(pid) {
        return this.known.has(pid) && started(pid) !== undefined
               && this.known.get(pid) === started(pid);
    }

    /* All that live, of older generations and of dead masters as well. */
    workers() {
        this.note();

        return [...this.known.keys()]
            .filter((pid) => !this.masters.has(pid) && this.alive(pid));
    }

    /* Of these, one master's. */
    workersOf(master) {
        return this.workers().filter((pid) => {
            const fields = stat(pid);

            return fields && fields.parent === master;
        });
    }

    /* The worker that holds the lock on the store's file "leader". */
    leader() {
        let inode;

        try {
            inode = fs.statSync(path.join(this.store, 'leader')).ino;
        } catch (err) {
            return undefined;
        }

        for (const line of fs.readFileSync('/proc/locks', 'latin1')
            .split('\n'))
        {
            const [, type, , , pid, file] = line.split(/\s+/);

            if (type === 'FLOCK' && file.endsWith(`:${inode}`)
                && this.workers().includes(Number(pid)))
            {
                return Number(pid);
            }
        }

        return undefined;
    }

    /* False: it was gone already. */
    kill(pid, signal) {
        if (!this.alive(pid)) {
            return false;
        }

        try {
            process.kill(pid, signal);
        } catch (err) {
            return false;
        }

        return true;
    }

    /* change() while no worker moves: none sees half of it. */
    async still(change) {
        const workers = this.workers();

        workers.forEach((pid) => this.kill(pid, 'SIGSTOP'));

        try {
            await until('workers to stand still', () => workers.every(
                (pid) => !this.alive(pid) || standsStill(pid)));

            change();
        } finally {
            workers.forEach((pid) => this.kill(pid, 'SIGCONT'));
        }
    }

    /* SIGKILL, but first it is stopped: who is forked just then is an orphan. */
    async killMaster(pid) {
        this.kill(pid, 'SIGSTOP');

        await until('a master to stand still', () =>
            !this.alive(pid) || standsStill(pid));

        this.note();
        this.kill(pid, 'SIGKILL');
    }

    /* SIGKILL for everybody, and waits until they are gone. */
    async killAll() {
        this.note();

        for (const pid of this.masters) {
            await this.killMaster(pid);
        }

        await until('masters to die', () =>
            ![...this.masters].some((pid) => this.alive(pid)));

        await until('processes to die', () => {
            this.workers().forEach((pid) => this.kill(pid, 'SIGKILL'));

            return this.workers().length === 0;
        });

        this.child = null;
    }

    /* Gracefully, and by force if that takes too long. */
    async stop(ms) {
        if (this.child === null) {
            return true;
        }

        const { master } = this;

        this.kill(master, 'SIGQUIT');

        const gone = await until('the master to end', () =>
            !this.alive(master), ms || 5000).then(() => true, () => false);

        await this.killAll();

        return gone;
    }

    log() {
        try {
            return fs.readFileSync(path.join(this.dir, 'error.log'), 'utf8');
        } catch (err) {
            return '';
        }
    }

    /* The lines of these levels: lines('alert', 'crit', 'emerg') */
    lines(...levels) {
        return this.log().split('\n').filter((line) => levels.some(
            (level) => line.includes(` [${level}] `)));
    }

    output() {
        let text = '';

        try {
            text = fs.readFileSync(path.join(this.dir, 'output'), 'utf8');
        } catch (err) {
            /* it was not started */
        }

        return text + this.log();
    }

    remove() {
        all.delete(this);
        fs.rmSync(this.dir, { recursive: true, force: true });
    }

    /* Without waiting, which an exiting process cannot. */
    removeAtOnce() {
        this.note();

        for (const pid of this.known.keys()) {
            this.kill(pid, 'SIGKILL');
        }

        /* What was forked between looking and killing its master. */
        this.note();
        this.workers().forEach((pid) => this.kill(pid, 'SIGKILL'));
        this.remove();
    }
}


function nogroup() {
    return /^nogroup:/m.test(fs.readFileSync('/etc/group', 'latin1'))
           ? 'nogroup' : 'nobody';
}


async function create(t, options) {
    const nginx = new Nginx(options);

    t.after(async () => {
        try {
            await nginx.killAll();
        } finally {
            if (process.env.NANGO_KEEP) {
                all.delete(nginx);
                t.diagnostic(`kept ${nginx.dir}`);
            } else {
                nginx.remove();
            }
        }
    });

    nginx.port = await freePort();
    nginx.configure({});

    return nginx;
}


process.on('exit', () => {
    all.forEach((nginx) => nginx.removeAtOnce());
});

for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) {
    process.on(signal, () => process.exit(1));
}


module.exports = {
    create, freePort, until, sleep, ROOT, MODULE, PATIENCE,
};
