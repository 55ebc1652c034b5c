/*
 * Copyright (C) nginx-nango authors
 *
 * libcurl's multi interface on nginx's event loop.  libcurl tells us which
 * sockets and which timeout it waits for, nginx watches them, and each event
 * goes back as curl_multi_socket_action().
 *
 * libcurl stops watching a connection after each reply and starts again with
 * the next request.  Sockets that we opened for it stay in epoll meanwhile,
 * which saves two system calls a request; we are told when it closes them.
 *
 * What this file promises: no call blocks; every ngx_connection_t that was
 * taken is given back with its fd set to -1 (or a worker's graceful end
 * reports it as left open); libcurl is never called from one of its own
 * callbacks; no OpenSSL error stays queued for nginx to log as its own.
 *
 * Easy handles are kept and used again with their options set, since setting
 * two dozen options anew cost as much as the request itself.
 */

#include "ngx_nango_curl.h"
#include "ngx_nango_shared.h"

#include <curl/curl.h>
#include <openssl/err.h>


/* Nango closes idle connections after 61 seconds. */
#define NGX_NANGO_MAX_AGE     50L

#define NGX_NANGO_IDLE_EASY   64

/* Connections to Nango that are kept, besides those to subscribers. */
#define NGX_NANGO_KEPT        64L

/* Of a reply, those of a 100 before it included; a line has 100 KB at most. */
#define NGX_NANGO_HEADERS_MAX (128 * 1024)


/* By file descriptor: what libcurl's sockets are to nginx. */
typedef struct {
    ngx_connection_t         *connection;
    unsigned                  opened:1;     /* by us, so closed by us */
    unsigned                  wanted:1;     /* libcurl waits for it */
} ngx_nango_socket_t;


/* What a worker keeps for an environment or a subscriber. */
typedef struct {
    ngx_nango_environment_t  *environment;      /* NULL: a subscriber's */
    ngx_nango_subscriber_t   *subscriber;
    ngx_msec_t                timeout;
    struct curl_slist        *headers;          /* without a body */
    struct curl_slist        *body_headers;
    CURL                     *idle[NGX_NANGO_IDLE_EASY];
    ngx_uint_t                nidle;
    ngx_int_t                 active;
    ngx_queue_t               waiting;          /* the longest first */
    ngx_uint_t                nwaiting;
    ngx_event_t               expiry;           /* of those */
} ngx_nango_peer_t;


static CURLM *ngx_nango_curl_multi(void);
static void ngx_nango_curl_reset(void);
static struct curl_slist *ngx_nango_curl_headers(ngx_nango_environment_t *env,
    ngx_uint_t body);
static int ngx_nango_curl_socket(CURL *easy, curl_socket_t fd, int what,
    void *data, void *socket_data);
static int ngx_nango_curl_timer(CURLM *multi, long ms, void *data);
static void ngx_nango_curl_event_handler(ngx_event_t *ev);
static void ngx_nango_curl_timer_handler(ngx_event_t *ev);
static void ngx_nango_curl_post_handler(ngx_event_t *ev);
static void ngx_nango_curl_action(curl_socket_t fd, int mask);
static void ngx_nango_curl_finished(void);
static ngx_uint_t ngx_nango_curl_moved(void);
static ngx_nango_socket_t *ngx_nango_curl_fd(curl_socket_t fd);
static curl_socket_t ngx_nango_curl_open(void *data, curlsocktype purpose,
    struct curl_sockaddr *addr);
static int ngx_nango_curl_close(void *data, curl_socket_t fd);
static void ngx_nango_curl_watch(ngx_connection_t *c, int what);
static void ngx_nango_curl_forget(ngx_connection_t *c, ngx_uint_t flags);
static void ngx_nango_curl_unwatch(ngx_nango_socket_t *s, ngx_uint_t flags);
static void ngx_nango_curl_unasked(curl_socket_t fd);
static size_t ngx_nango_curl_write(char *data, size_t size, size_t n,
    void *user);
static size_t ngx_nango_curl_header(char *data, size_t size, size_t n,
    void *user);
static time_t ngx_nango_curl_retry_after(u_char *p, size_t len);
static int ngx_nango_curl_send(void *user, char *remote, char *local,
    int remote_port, int local_port);
static size_t ngx_nango_curl_read(char *buf, size_t size, size_t n,
    void *user);
static int ngx_nango_curl_seek(void *user, curl_off_t offset, int origin);
static ngx_nango_peer_t *ngx_nango_curl_peer(ngx_nango_transfer_t *t);
static CURL *ngx_nango_curl_easy(ngx_nango_peer_t *peer);
static CURLcode ngx_nango_curl_address(CURL *easy, ngx_nango_peer_t *peer);
static CURLcode ngx_nango_curl_url(CURL *easy, const char *url);
static ngx_int_t ngx_nango_curl_setup(ngx_nango_transfer_t *t);
static ngx_int_t ngx_nango_curl_ask(ngx_nango_transfer_t *t,
    ngx_nango_peer_t *peer);
static ngx_int_t ngx_nango_curl_add(ngx_nango_transfer_t *t);
static void ngx_nango_curl_budget(ngx_nango_transfer_t *t);
static void ngx_nango_curl_complete(ngx_nango_transfer_t *t, CURLcode code);
static void ngx_nango_curl_failure(ngx_nango_transfer_t *t, CURLcode code);
static void ngx_nango_curl_next(ngx_nango_peer_t *peer);
static void ngx_nango_curl_hold(void);
static void ngx_nango_curl_expiry_handler(ngx_event_t *ev);
static ngx_uint_t ngx_nango_curl_expired(ngx_nango_transfer_t *t);
static void ngx_nango_curl_drop(ngx_nango_transfer_t *t,
    ngx_nango_outcome_e outcome, const char *error);


static CURLM              *ngx_nango_multi;
/* Of environments, then of subscribers. */
static ngx_nango_peer_t   *ngx_nango_peers;
static ngx_uint_t          ngx_nango_npeers;
static ngx_uint_t          ngx_nango_nenvironments;

static long                ngx_nango_curl_kept;

static ngx_nango_socket_t *ngx_nango_sockets;
static size_t              ngx_nango_nsockets;

/*
 * Transfers that libcurl has; of these, some without a connection for them, and
 * some that have lost theirs.
 */
static ngx_queue_t         ngx_nango_active;
static ngx_uint_t          ngx_nango_starved;
static ngx_uint_t          ngx_nango_lost;

static ngx_event_t         ngx_nango_curl_timeout;
static ngx_event_t         ngx_nango_curl_posted;

/* In debug builds nginx logs ev->data as a connection. */
static ngx_connection_t    ngx_nango_curl_dummy;


ngx_int_t
ngx_nango_curl_init(ngx_cycle_t *cycle, ngx_nango_environment_t **environments,
    ngx_uint_t n, ngx_nango_subscriber_t **subscribers, ngx_uint_t m)
{
    ngx_uint_t                i;
    ngx_nango_peer_t         *peer;
    ngx_nango_environment_t  *env;

    if (n == 0) {
        return NGX_OK;
    }

    if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) {
        return NGX_ERROR;
    }

    ERR_clear_error();

    ngx_queue_init(&ngx_nango_active);

    ngx_nango_curl_kept = NGX_NANGO_KEPT;

    for (i = 0; i < m; i++) {
        ngx_nango_curl_kept += (long) subscribers[i]->concurrency;
    }

    ngx_nango_multi = ngx_nango_curl_multi();
    ngx_nango_peers = ngx_calloc((n + m) * sizeof(ngx_nango_peer_t),
                                 cycle->log);

    if (ngx_nango_multi == NULL || ngx_nango_peers == NULL) {
        goto failed;
    }

    ngx_nango_nenvironments = n;

    for (i = 0; i < n + m; i++) {
        peer = &ngx_nango_peers[i];

        ngx_queue_init(&peer->waiting);
        ngx_nango_npeers = i + 1;

        if (i >= n) {
            peer->subscriber = subscribers[i - n];
            peer->timeout = peer->subscriber->timeout;
            continue;
        }

        env = environments[i];

        peer->environment = env;
        peer->timeout = env->api_timeout;

        /* Where some wait others are under way, and hold the worker. */

        peer->expiry.handler = ngx_nango_curl_expiry_handler;
        peer->expiry.log = cycle->log;
        peer->expiry.data = &ngx_nango_curl_dummy;
        peer->expiry.cancelable = 1;

        if (env->authorization.len == 0) {
            continue;
        }

        peer->headers = ngx_nango_curl_headers(env, 0);
        peer->body_headers = ngx_nango_curl_headers(env, 1);

        if (peer->headers == NULL || peer->body_headers == NULL) {
            goto failed;
        }
    }

    ngx_nango_curl_dummy.fd = (ngx_socket_t) -1;

    ngx_nango_curl_timeout.handler = ngx_nango_curl_timer_handler;
    ngx_nango_curl_timeout.log = cycle->log;
    ngx_nango_curl_timeout.data = &ngx_nango_curl_dummy;

    /*
     * An exiting worker stays while a timer is left that is not cancelable: a
     * transfer that somebody waits for holds it, those that were abandoned and
     * the housekeeping of kept connections do not.
     */
    ngx_nango_curl_timeout.cancelable = 1;

    ngx_nango_curl_posted.handler = ngx_nango_curl_post_handler;
    ngx_nango_curl_posted.log = cycle->log;
    ngx_nango_curl_posted.data = &ngx_nango_curl_dummy;

    return NGX_OK;

failed:

    ngx_nango_curl_exit();

    return NGX_ERROR;
}


/* NULL if there is no memory. */

static CURLM *
ngx_nango_curl_multi(void)
{
    CURLM  *multi;

    multi = curl_multi_init();
    if (multi == NULL) {
        return NULL;
    }

    curl_multi_setopt(multi, CURLMOPT_SOCKETFUNCTION, ngx_nango_curl_socket);
    curl_multi_setopt(multi, CURLMOPT_TIMERFUNCTION, ngx_nango_curl_timer);
    curl_multi_setopt(multi, CURLMOPT_MAXCONNECTS, ngx_nango_curl_kept);
    curl_multi_setopt(multi, CURLMOPT_PIPELINING, (long) CURLPIPE_NOTHING);

    return multi;
}


/* NULL if there is no memory. */

static struct curl_slist *
ngx_nango_curl_headers(ngx_nango_environment_t *env, ngx_uint_t body)
{
    ngx_uint_t          i, n;
    struct curl_slist  *list, *longer;

    /* Those behind the third belong to a body. */

    const char  *headers[] = {
        (char *) env->authorization.data,
        "User-Agent: nginx-nango/" NGX_NANGO_VERSION,
        "Accept: application/json",
        "Content-Type: application/json",
        "Expect:"
    };

    list = NULL;
    n = body ? 5 : 3;

    for (i = 0; i < n; i++) {
        longer = curl_slist_append(list, headers[i]);

        if (longer == NULL) {
            curl_slist_free_all(list);
            return NULL;
        }

        list = longer;
    }

    return list;
}


void
ngx_nango_curl_exit(void)
{
    ngx_uint_t             i;
    ngx_queue_t           *q;
    ngx_nango_peer_t      *peer;
    ngx_nango_transfer_t  *t;

    if (ngx_nango_multi == NULL && ngx_nango_peers == NULL) {
        return;
    }

    while (!ngx_queue_empty(&ngx_nango_active)) {
        q = ngx_queue_head(&ngx_nango_active);
        t = ngx_queue_data(q, ngx_nango_transfer_t, queue);

        ngx_queue_remove(q);
        (void) curl_multi_remove_handle(ngx_nango_multi, t->easy);
        curl_easy_cleanup(t->easy);
        t->easy = NULL;

        if (t->environment) {
            ngx_nango_circuit_give_up(t->environment->key);
        }

        ngx_nango_transfer_free(t);
    }

    for (i = 0; i < ngx_nango_npeers; i++) {
        peer = &ngx_nango_peers[i];

        while (!ngx_queue_empty(&peer->waiting)) {
            q = ngx_queue_head(&peer->waiting);
            t = ngx_queue_data(q, ngx_nango_transfer_t, queue);

            ngx_queue_remove(q);
            ngx_nango_transfer_free(t);
        }

        if (peer->expiry.timer_set) {
            ngx_del_timer(&peer->expiry);
        }

        while (peer->nidle) {
            curl_easy_cleanup(peer->idle[--peer->nidle]);
        }

        curl_slist_free_all(peer->headers);
        curl_slist_free_all(peer->body_headers);
    }

    if (ngx_nango_multi) {
        (void) curl_multi_cleanup(ngx_nango_multi);
        ngx_nango_multi = NULL;
    }

    free(ngx_nango_sockets);
    ngx_nango_sockets = NULL;
    ngx_nango_nsockets = 0;

    if (ngx_nango_curl_timeout.timer_set) {
        ngx_del_timer(&ngx_nango_curl_timeout);
    }

    if (ngx_nango_curl_posted.posted) {
        ngx_delete_posted_event(&ngx_nango_curl_posted);
    }

    ngx_free(ngx_nango_peers);
    ngx_nango_peers = NULL;
    ngx_nango_npeers = 0;
    ngx_nango_nenvironments = 0;

    curl_global_cleanup();
    ERR_clear_error();
}


/*
 * libcurl wants a socket watched, or no longer.  Returning -1 from here would
 * fail every transfer of the multi handle; the one that found no connection in
 * nginx is marked instead, and ended when libcurl has returned.
 */

static int
ngx_nango_curl_socket(CURL *easy, curl_socket_t fd, int what, void *data,
    void *socket_data)
{
    ngx_connection_t      *c;
    ngx_nango_socket_t    *s;
    ngx_nango_transfer_t  *t;

    t = NULL;
    curl_easy_getinfo(easy, CURLINFO_PRIVATE, (char **) &t);

    s = ngx_nango_curl_fd(fd);

    if (what == CURL_POLL_REMOVE) {

        if (s == NULL || s->connection == NULL) {
            return 0;
        }

        if (!s->opened) {
            ngx_nango_curl_unwatch(s, 0);
            return 0;
        }

        if (t == NULL || t->header_size == 0) {
            /*
             * Without a reply it is not kept, but closed; libcurl 7.88 has
             * closed it already, without telling us, if it was not connected.
             */

            s->opened = 0;
            ngx_nango_curl_unwatch(s, fcntl(fd, F_GETFD) == -1
                                      ? NGX_CLOSE_EVENT : 0);

            if (t) {
                t->moved = 1;
                ngx_nango_lost = 1;
            }

            return 0;
        }

        /* A socket can be written to nearly always, and read only if closed. */

        s->wanted = 0;

        if (s->connection->write->active) {
            (void) ngx_del_event(s->connection->write, NGX_WRITE_EVENT, 0);
        }

        return 0;
    }

    c = NULL;

    if (s) {
        c = s->connection;

        if (c == NULL) {
            c = ngx_get_connection(fd, ngx_cycle->log);
        }
    }

    if (c == NULL) {

        if (t) {
            t->starved = 1;
            ngx_nango_starved = 1;
        }

        return 0;
    }

    if (s->connection == NULL) {
        c->log_error = NGX_ERROR_INFO;
        c->read->handler = ngx_nango_curl_event_handler;
        c->write->handler = ngx_nango_curl_event_handler;
        c->read->log = ngx_cycle->log;
        c->write->log = ngx_cycle->log;

        s->connection = c;
    }

    s->wanted = 1;

    ngx_nango_curl_watch(c, what);

    return 0;
}


/* NULL if there is no memory. */

static ngx_nango_socket_t *
ngx_nango_curl_fd(curl_socket_t fd)
{
    size_t               n;
    ngx_nango_socket_t  *sockets;

    if ((size_t) fd < ngx_nango_nsockets) {
        return &ngx_nango_sockets[fd];
    }

    n = ngx_max(2 * ngx_nango_nsockets, (size_t) fd + 64);

    sockets = realloc(ngx_nango_sockets, n * sizeof(ngx_nango_socket_t));
    if (sockets == NULL) {
        return NULL;
    }

    ngx_memzero(&sockets[ngx_nango_nsockets],
                (n - ngx_nango_nsockets) * sizeof(ngx_nango_socket_t));

    ngx_nango_sockets = sockets;
    ngx_nango_nsockets = n;

    return &sockets[fd];
}


static curl_socket_t
ngx_nango_curl_open(void *data, curlsocktype purpose,
    struct curl_sockaddr *addr)
{
    int                  what;
    curl_socket_t        fd;
    ngx_connection_t    *c;
    ngx_nango_socket_t  *s;

    fd = socket(addr->family, addr->socktype | SOCK_CLOEXEC, addr->protocol);

    if (fd == CURL_SOCKET_BAD) {
        return fd;
    }

    s = ngx_nango_curl_fd(fd);

    if (s == NULL) {
        return fd;
    }

    s->opened = 1;

    if (s->connection) {
        /*
         * That of an address that did not answer was closed without telling
         * us, and this is for the next one.  To libcurl nothing has changed.
         */

        c = s->connection;

        what = (c->read->active ? CURL_POLL_IN : 0)
               | (c->write->active ? CURL_POLL_OUT : 0);

        ngx_nango_curl_forget(c, NGX_CLOSE_EVENT);
        ngx_nango_curl_watch(c, what);
    }

    return fd;
}


static int
ngx_nango_curl_close(void *data, curl_socket_t fd)
{
    ngx_nango_socket_t  *s;

    s = ngx_nango_curl_fd(fd);

    if (s) {
        if (s->connection) {
            ngx_nango_curl_unwatch(s, 0);
        }

        s->opened = 0;
    }

    return close(fd);
}


/* Level-triggered (flags 0), which is what libcurl expects. */

static void
ngx_nango_curl_watch(ngx_connection_t *c, int what)
{
    if (what & CURL_POLL_IN) {

        if (!c->read->active) {
            (void) ngx_add_event(c->read, NGX_READ_EVENT, 0);
        }

    } else if (c->read->active) {
        (void) ngx_del_event(c->read, NGX_READ_EVENT, 0);
    }

    if (what & CURL_POLL_OUT) {

        if (!c->write->active) {
            (void) ngx_add_event(c->write, NGX_WRITE_EVENT, 0);
        }

    } else if (c->write->active) {
        (void) ngx_del_event(c->write, NGX_WRITE_EVENT, 0);
    }
}


static void
ngx_nango_curl_unwatch(ngx_nango_socket_t *s, ngx_uint_t flags)
{
    ngx_connection_t  *c;

    c = s->connection;

    s->connection = NULL;
    s->wanted = 0;

    ngx_nango_curl_forget(c, flags);

    ngx_free_connection(c);

    /* The socket is libcurl's, and its number may come back at once. */
    c->fd = (ngx_socket_t) -1;
}


static void
ngx_nango_curl_forget(ngx_connection_t *c, ngx_uint_t flags)
{
    if (c->read->active) {
        (void) ngx_del_event(c->read, NGX_READ_EVENT, flags);
    }

    if (c->write->active) {
        (void) ngx_del_event(c->write, NGX_WRITE_EVENT, flags);
    }

    if (c->read->posted) {
        ngx_delete_posted_event(c->read);
    }

    if (c->write->posted) {
        ngx_delete_posted_event(c->write);
    }
}


/*
 * libcurl sees that an idle connection was closed when it next wants to use it.
 * What came on it unasked (a proxy's 408, say) it would take for the answer to
 * that request, up to version 8.0.  So nothing is left to be read, and nothing
 * can be sent: to libcurl it has been closed, whatever happens until then.
 */

static void
ngx_nango_curl_unasked(curl_socket_t fd)
{
    ssize_t     n;
    ngx_uint_t  i;
    u_char      buf[4096];

    (void) shutdown(fd, SHUT_RDWR);

    /* As much as a receive buffer has; nothing is added to it from now on. */

    for (i = 0; i < 4096; i++) {
        n = recv(fd, buf, sizeof(buf), MSG_DONTWAIT);

        if (n <= 0) {
            break;
        }
    }
}


static int
ngx_nango_curl_timer(CURLM *multi, long ms, void *data)
{
    /* ngx_add_timer() ignores a change of less than 300 ms. */

    if (ngx_nango_curl_timeout.timer_set) {
        ngx_del_timer(&ngx_nango_curl_timeout);
    }

    if (ms == 0) {
        ngx_post_event(&ngx_nango_curl_posted, &ngx_posted_events);

    } else if (ms > 0) {
        ngx_add_timer(&ngx_nango_curl_timeout, (ngx_msec_t) ms);
    }

    return 0;
}


static void
ngx_nango_curl_timer_handler(ngx_event_t *ev)
{
    ngx_nango_curl_action(CURL_SOCKET_TIMEOUT, 0);
}


static void
ngx_nango_curl_post_handler(ngx_event_t *ev)
{
    ngx_nango_curl_action(CURL_SOCKET_TIMEOUT, 0);
}


static void
ngx_nango_curl_event_handler(ngx_event_t *ev)
{
    u_char               b;
    ngx_connection_t    *c;
    ngx_nango_socket_t  *s;

    c = ev->data;
    s = ngx_nango_curl_fd(c->fd);

    if (!s->wanted) {

        /* One of the same turn, and libcurl has read since what it told of. */

        if (recv(c->fd, &b, 1, MSG_PEEK|MSG_DONTWAIT) == -1
            && ngx_socket_errno == NGX_EAGAIN)
        {
            return;
        }

        /* An idle connection: closed by Nango, most likely. */

        ngx_nango_curl_unasked(c->fd);
        ngx_nango_curl_unwatch(s, 0);
        return;
    }

    /* The event that fired, not "ready": nobody resets that for us. */

    ngx_nango_curl_action(c->fd, ev->write ? CURL_CSELECT_OUT
                                           : CURL_CSELECT_IN);
}


static void
ngx_nango_curl_action(curl_socket_t fd, int mask)
{
    int        running;
    CURLMcode  rc;

    if (ngx_nango_multi == NULL) {
        return;
    }

    rc = curl_multi_socket_action(ngx_nango_multi, fd, mask, &running);

    ERR_clear_error();

    ngx_nango_curl_finished();

    while (rc == CURLM_OK && ngx_nango_curl_moved()) {

        /* Nothing has taken its place. */

        CURL_IGNORE_DEPRECATION(
            rc = curl_multi_socket_all(ngx_nango_multi, &running);
        )

        ERR_clear_error();

        ngx_nango_curl_finished();
    }

    if (rc != CURLM_OK) {
        ngx_nango_curl_reset();
    }
}


/*
 * Where libcurl has no memory for what it keeps of a socket, it tells us
 * neither of the socket nor of the time that it waits for: nothing would ever
 * happen to that transfer.  And it keeps half of it, which in 7.88 ends the
 * process with a division by zero when that socket's number comes again.  So
 * all is given up that this handle has, and the next one begins anew.
 */

static void
ngx_nango_curl_reset(void)
{
    CURLM                 *damaged;
    ngx_queue_t           *q, lost;
    ngx_nango_transfer_t  *t;

    ngx_log_error(NGX_LOG_ERR, ngx_cycle->log, 0,
                  "nango: libcurl has no memory; all requests to Nango that "
                  "are under way in this worker are given up");

    damaged = ngx_nango_multi;

    /* NULL: tried again when something is to be asked. */

    ngx_nango_multi = ngx_nango_curl_multi();

    curl_multi_setopt(damaged, CURLMOPT_TIMERFUNCTION, NULL);

    if (ngx_nango_curl_timeout.timer_set) {
        ngx_del_timer(&ngx_nango_curl_timeout);
    }

    if (ngx_nango_curl_posted.posted) {
        ngx_delete_posted_event(&ngx_nango_curl_posted);
    }

    ngx_queue_init(&lost);

    while (!ngx_queue_empty(&ngx_nango_active)) {
        q = ngx_queue_head(&ngx_nango_active);
        t = ngx_queue_data(q, ngx_nango_transfer_t, queue);

        ngx_queue_remove(q);
        ngx_queue_insert_tail(&lost, q);

        (void) curl_multi_remove_handle(damaged, t->easy);
    }

    (void) curl_multi_cleanup(damaged);

    ERR_clear_error();

    /* Their handlers, and those that have waited, find the new one. */

    while (!ngx_queue_empty(&lost)) {
        q = ngx_queue_head(&lost);
        t = ngx_queue_data(q, ngx_nango_transfer_t, queue);

        ngx_nango_curl_complete(t, CURLE_FAILED_INIT);
    }
}


/*
 * Whether a transfer has given up an address that does not answer.  libcurl
 * 7.88 then waits for an event before it tries the next one, and there is none
 * but the end of the time to connect.
 */

static ngx_uint_t
ngx_nango_curl_moved(void)
{
    ngx_uint_t             moved;
    ngx_queue_t           *q;
    ngx_nango_transfer_t  *t;

    moved = 0;

    if (!ngx_nango_lost) {
        return 0;
    }

    ngx_nango_lost = 0;

    for (q = ngx_queue_head(&ngx_nango_active);
         q != ngx_queue_sentinel(&ngx_nango_active);
         q = ngx_queue_next(q))
    {
        t = ngx_queue_data(q, ngx_nango_transfer_t, queue);

        moved |= t->moved;
        t->moved = 0;
    }

    return moved;
}


static void
ngx_nango_curl_finished(void)
{
    int                    left;
    CURLMsg               *msg;
    CURLcode               code;
    ngx_queue_t           *q;
    ngx_nango_transfer_t  *t;

    /* Handlers may start transfers, never finish others: no recursion. */

    while ((msg = curl_multi_info_read(ngx_nango_multi, &left)) != NULL) {

        if (msg->msg != CURLMSG_DONE) {
            continue;
        }

        t = NULL;
        code = msg->data.result;
        curl_easy_getinfo(msg->easy_handle, CURLINFO_PRIVATE, (char **) &t);

        ngx_nango_curl_complete(t, code);
    }

    if (!ngx_nango_starved) {
        return;
    }

    ngx_nango_starved = 0;

    q = ngx_queue_head(&ngx_nango_active);

    while (q != ngx_queue_sentinel(&ngx_nango_active)) {
        t = ngx_queue_data(q, ngx_nango_transfer_t, queue);
        q = ngx_queue_next(q);

        if (t->starved) {
            ngx_nango_curl_complete(t, CURLE_COULDNT_CONNECT);

            /* The handler may have changed the queue behind q. */
            q = ngx_queue_head(&ngx_nango_active);
        }
    }
}


static size_t
ngx_nango_curl_write(char *data, size_t size, size_t n, void *user)
{
    size_t                 len, need;
    u_char                *p;
    ngx_nango_transfer_t  *t;

    t = user;
    len = size * n;
    need = t->reply.len + len;

    if (need > NGX_NANGO_REPLY_MAX) {
        t->refused = "the reply is too large";
        return 0;
    }

    if (t->subscriber) {
        t->reply.len = need;
        return len;
    }

    if (need > t->size) {
        t->size = ngx_max(need, 2 * t->size);
        t->size = ngx_max(t->size, 1024);

        p = realloc(t->reply.data, t->size);
        if (p == NULL) {
            return 0;
        }

        t->reply.data = p;
    }

    ngx_memcpy(t->reply.data + t->reply.len, data, len);
    t->reply.len = need;

    return len;
}


static size_t
ngx_nango_curl_header(char *data, size_t size, size_t n, void *user)
{
    size_t                 len;
    u_char                *p, *last;
    ngx_nango_transfer_t  *t;

    t = user;
    len = size * n;
    p = (u_char *) data;
    last = p + len;

    t->header_size += len;

    if (t->header_size > NGX_NANGO_HEADERS_MAX) {
        t->refused = "the reply's headers are too large";
        return 0;
    }

    if (len > 5 && ngx_strncmp(p, "HTTP/", 5) == 0) {

        /* To libcurl the body begins here, and ends when Nango closes. */

        if (len > 12 && ngx_strncmp(p + 8, " 101", 4) == 0) {
            t->refused = "the reply changes the protocol";
            return 0;
        }

        /* Headers of a 100 or of an earlier try do not count. */
        t->retry_after = -1;
        t->json = 0;
        t->headers = 0;
        return len;
    }

    if (len <= 2) {
        t->headers = 1;
        return len;
    }

    while (last > p && last[-1] <= ' ') {
        last--;
    }

    if (last - p > 12 && ngx_strncasecmp(p, (u_char *) "retry-after:", 12) == 0)
    {
        for (p += 12; p < last && *p <= ' '; p++) { /* void */ }

        t->retry_after = ngx_nango_curl_retry_after(p, last - p);

        return len;
    }

    if (last - p > 13
        && ngx_strncasecmp(p, (u_char *) "content-type:", 13) == 0)
    {
        for (p += 13; p < last && *p <= ' '; p++) { /* void */ }

        t->json = (last - p >= 16
                   && ngx_strncasecmp(p, (u_char *) "application/json", 16)
                      == 0
                   && (last - p == 16 || p[16] == ';' || p[16] <= ' '));
    }

    return len;
}


/* Seconds or a date; -1 if it is neither. */

static time_t
ngx_nango_curl_retry_after(u_char *p, size_t len)
{
    size_t  i;
    time_t  time;

    for (i = 0; i < len && p[i] >= '0' && p[i] <= '9'; i++) { /* void */ }

    if (i == len && len) {
        time = ngx_atotm(p, len);

        return time == NGX_ERROR ? NGX_MAX_TIME_T_VALUE : time;
    }

    time = ngx_parse_http_time(p, len);

    if (time == NGX_ERROR) {
        return -1;
    }

    return ngx_max(time - ngx_time(), 0);
}


/*
 * Before libcurl sends a request.  It would send it once more where a kept
 * connection breaks before an answer: the first may have been received, and be
 * a session already.  Nor is anything sent for which nobody waits any more.
 */

static int
ngx_nango_curl_send(void *user, char *remote, char *local, int remote_port,
    int local_port)
{
    long                   sent;
    ngx_nango_transfer_t  *t;

    t = user;

    sent = 0;
    curl_easy_getinfo(t->easy, CURLINFO_REQUEST_SIZE, &sent);

    if (sent == 0
        || (t->subscriber ? t->read == NULL
                          : ngx_strcmp(t->method, "GET") == 0))
    {
        return t->handler ? CURL_PREREQFUNC_OK : CURL_PREREQFUNC_ABORT;
    }

    t->lost = 1;

    return CURL_PREREQFUNC_ABORT;
}


ngx_nango_transfer_t *
ngx_nango_transfer_create(void)
{
    return calloc(1, sizeof(ngx_nango_transfer_t));
}


void
ngx_nango_transfer_free(ngx_nango_transfer_t *t)
{
    if (t->memory) {
        t->memory_free(t->memory);
    }

    curl_slist_free_all(t->lines);
    free(t->reply.data);
    free(t->path_memory);
    free(t->body);
    free(t);
}


static ngx_nango_peer_t *
ngx_nango_curl_peer(ngx_nango_transfer_t *t)
{
    if (t->subscriber) {
        return &ngx_nango_peers[ngx_nango_nenvironments
                                + t->subscriber->index];
    }

    return &ngx_nango_peers[t->environment->index];
}


ngx_int_t
ngx_nango_transfer_start(ngx_nango_transfer_t *t)
{
    ngx_nango_peer_t  *peer;

    if (ngx_nango_peers == NULL) {
        return NGX_ERROR;
    }

    if (ngx_nango_multi == NULL) {
        ngx_nango_multi = ngx_nango_curl_multi();

        if (ngx_nango_multi == NULL) {
            return NGX_ERROR;
        }
    }

    peer = ngx_nango_curl_peer(t);

    t->start = ngx_current_msec;
    t->retry_after = -1;

    if (t->subscriber) {
        return ngx_nango_curl_add(t);
    }

    if (ngx_nango_circuit_enter(t->environment->key, peer->timeout)
        != NGX_OK)
    {
        return NGX_DECLINED;
    }

    if (peer->active < t->environment->api_connections) {
        return ngx_nango_curl_add(t);
    }

    if (peer->nwaiting == NGX_NANGO_TRANSFERS_MAX) {
        return NGX_BUSY;
    }

    if (!peer->expiry.timer_set) {
        ngx_add_timer(&peer->expiry, peer->timeout);
    }

    ngx_queue_insert_tail(&peer->waiting, &t->queue);
    peer->nwaiting++;

    /* Those that are under way may all have been abandoned. */

    ngx_nango_curl_timeout.cancelable = 0;

    return NGX_OK;
}


void
ngx_nango_transfer_abandon(ngx_nango_transfer_t *t)
{
    ngx_nango_peer_t  *peer;

    t->handler = NULL;
    t->data = NULL;

    if (!t->active) {
        peer = ngx_nango_curl_peer(t);

        ngx_queue_remove(&t->queue);
        peer->nwaiting--;
        ngx_nango_transfer_free(t);
    }

    ngx_nango_curl_hold();
}


/* Not from read() itself: libcurl would be called by itself. */

void
ngx_nango_transfer_resume(ngx_nango_transfer_t *t)
{
    if (t->active && t->paused) {
        t->paused = 0;
        (void) curl_easy_pause(t->easy, CURLPAUSE_CONT);
        ERR_clear_error();
    }
}


static void
ngx_nango_curl_hold(void)
{
    ngx_uint_t             i;
    ngx_queue_t           *q;
    ngx_nango_transfer_t  *t;

    for (i = 0; i < ngx_nango_npeers; i++) {
        if (ngx_nango_peers[i].nwaiting) {
            return;
        }
    }

    for (q = ngx_queue_head(&ngx_nango_active);
         q != ngx_queue_sentinel(&ngx_nango_active);
         q = ngx_queue_next(q))
    {
        t = ngx_queue_data(q, ngx_nango_transfer_t, queue);

        if (t->handler) {
            return;
        }
    }

    ngx_nango_curl_timeout.cancelable = 1;
}


static ngx_int_t
ngx_nango_curl_add(ngx_nango_transfer_t *t)
{
    ngx_nango_peer_t  *peer;

    peer = ngx_nango_curl_peer(t);

    t->easy = ngx_nango_curl_easy(peer);
    if (t->easy == NULL) {
        return NGX_ERROR;
    }

    if (ngx_nango_curl_setup(t) != NGX_OK
        || curl_multi_add_handle(ngx_nango_multi, t->easy) != CURLM_OK)
    {
        curl_easy_cleanup(t->easy);
        t->easy = NULL;
        return NGX_ERROR;
    }

    ngx_queue_insert_tail(&ngx_nango_active, &t->queue);
    ngx_nango_curl_timeout.cancelable = 0;
    t->active = 1;
    peer->active++;

    return NGX_OK;
}


/* A handle with all that does not change from request to request. */

static CURL *
ngx_nango_curl_easy(ngx_nango_peer_t *peer)
{
    CURL      *easy;
    CURLcode   rc;

    if (peer->nidle) {
        return peer->idle[--peer->nidle];
    }

    easy = curl_easy_init();
    if (easy == NULL) {
        return NULL;
    }

    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(easy, CURLOPT_QUICK_EXIT, 1L);
    curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L);
    curl_easy_setopt(easy, CURLOPT_NETRC, (long) CURL_NETRC_IGNORED);
    curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long) CURL_HTTP_VERSION_1_1);
    curl_easy_setopt(easy, CURLOPT_MAXAGE_CONN, NGX_NANGO_MAX_AGE);
    curl_easy_setopt(easy, CURLOPT_OPENSOCKETFUNCTION, ngx_nango_curl_open);
    curl_easy_setopt(easy, CURLOPT_CLOSESOCKETFUNCTION, ngx_nango_curl_close);
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, ngx_nango_curl_write);
    curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, ngx_nango_curl_header);
    curl_easy_setopt(easy, CURLOPT_PREREQFUNCTION, ngx_nango_curl_send);

    /* Without memory for "" it would be a proxy of the environment. */

    rc = curl_easy_setopt(easy, CURLOPT_PROXY, "");

    if (rc == CURLE_OK) {
        rc = ngx_nango_curl_address(easy, peer);
    }

    if (rc != CURLE_OK) {
        curl_easy_cleanup(easy);
        return NULL;
    }

    return easy;
}


/* Who is at the other end, and how far it is trusted. */

static CURLcode
ngx_nango_curl_address(CURL *easy, ngx_nango_peer_t *peer)
{
    long                      verify, connect_timeout;
    CURLcode                  rc;
    ngx_str_t                *certificate;
    ngx_nango_subscriber_t   *sub;
    ngx_nango_environment_t  *env;

    env = peer->environment;
    sub = peer->subscriber;
    rc = CURLE_OK;

    if (env) {
        verify = (long) env->api_verify;
        connect_timeout = (long) env->api_connect_timeout;
        certificate = &env->api_trusted_certificate;

    } else {
        verify = (long) sub->verify;
        connect_timeout = (long) sub->connect_timeout;
        certificate = &sub->trusted_certificate;

        /* A body that is read needs these two, each time that it is. */

        curl_easy_setopt(easy, CURLOPT_READFUNCTION, ngx_nango_curl_read);
        curl_easy_setopt(easy, CURLOPT_SEEKFUNCTION, ngx_nango_curl_seek);

        curl_easy_setopt(easy, CURLOPT_POST, 1L);

        rc = ngx_nango_curl_url(easy, (char *) sub->url.data);

        if (rc == CURLE_OK && sub->socket.len) {
            rc = curl_easy_setopt(easy, CURLOPT_UNIX_SOCKET_PATH,
                                  (char *) sub->socket.data);
        }
    }

    curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, connect_timeout);
    curl_easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, verify);
    curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, 2 * verify);

    if (rc == CURLE_OK && certificate->len) {
        rc = curl_easy_setopt(easy, CURLOPT_CAINFO,
                              (char *) certificate->data);
    }

    return rc;
}


/*
 * A query that it has no memory for libcurl (7.88) leaves out, and asks for
 * something else.  What is to be asked for is never left out.
 */

static CURLcode
ngx_nango_curl_url(CURL *easy, const char *url)
{
    char        *target;
    size_t       len;
    CURLcode     rc;
    const char  *p;

    rc = curl_easy_setopt(easy, CURLOPT_URL, url);

    if (rc != CURLE_OK) {
        return rc;
    }

    if (ngx_strchr(url, '?') == NULL) {
        return curl_easy_setopt(easy, CURLOPT_REQUEST_TARGET, NULL);
    }

    p = ngx_strstr(url, "://") + 3;
    p += strcspn(p, "/?");

    if (*p == '/') {
        return curl_easy_setopt(easy, CURLOPT_REQUEST_TARGET, p);
    }

    len = ngx_strlen(p) + 1;

    target = malloc(1 + len);
    if (target == NULL) {
        return CURLE_OUT_OF_MEMORY;
    }

    target[0] = '/';
    ngx_memcpy(target + 1, p, len);

    rc = curl_easy_setopt(easy, CURLOPT_REQUEST_TARGET, target);

    free(target);

    return rc;
}


static ngx_int_t
ngx_nango_curl_setup(ngx_nango_transfer_t *t)
{
    CURL              *easy;
    ngx_msec_t         waited;
    ngx_nango_peer_t  *peer;

    easy = t->easy;
    peer = ngx_nango_curl_peer(t);

    /* Waiting for one of the connections counts as well. */

    waited = ngx_current_msec - t->start;

    curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS,
                     (long) (peer->timeout - waited));
    curl_easy_setopt(easy, CURLOPT_PRIVATE, t);
    curl_easy_setopt(easy, CURLOPT_WRITEDATA, t);
    curl_easy_setopt(easy, CURLOPT_HEADERDATA, t);
    curl_easy_setopt(easy, CURLOPT_PREREQDATA, t);

    if (t->subscriber) {
        curl_easy_setopt(easy, CURLOPT_READDATA, t);
        curl_easy_setopt(easy, CURLOPT_SEEKDATA, t);
        curl_easy_setopt(easy, CURLOPT_POSTFIELDS, t->read ? NULL : t->lent);
        curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE,
                         (curl_off_t) t->body_len);
        curl_easy_setopt(easy, CURLOPT_HTTPHEADER, t->lines);

        return NGX_OK;
    }

    return ngx_nango_curl_ask(t, peer);
}


/* What is asked of Nango. */

static ngx_int_t
ngx_nango_curl_ask(ngx_nango_transfer_t *t, ngx_nango_peer_t *peer)
{
    char                     *url;
    CURL                     *easy;
    size_t                    len;
    CURLcode                  rc;
    ngx_nango_environment_t  *env;

    easy = t->easy;
    env = peer->environment;

    len = env->api.len + ngx_strlen(t->path) + 1;

    url = malloc(len);
    if (url == NULL) {
        return NGX_ERROR;
    }

    ngx_memcpy(url, env->api.data, env->api.len);
    ngx_cpystrn((u_char *) url + env->api.len, (u_char *) t->path,
                len - env->api.len);

    rc = ngx_nango_curl_url(easy, url);

    free(url);

    if (rc != CURLE_OK) {
        return NGX_ERROR;
    }

    if (t->body) {
        curl_easy_setopt(easy, CURLOPT_POST, 1L);
        curl_easy_setopt(easy, CURLOPT_POSTFIELDS, t->body);
        curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE,
                         (curl_off_t) t->body_len);
        curl_easy_setopt(easy, CURLOPT_HTTPHEADER, peer->body_headers);

    } else {
        curl_easy_setopt(easy, CURLOPT_HTTPGET, 1L);
        curl_easy_setopt(easy, CURLOPT_HTTPHEADER, peer->headers);
    }

    rc = curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, t->method);

    return rc == CURLE_OK ? NGX_OK : NGX_ERROR;
}


static size_t
ngx_nango_curl_read(char *buf, size_t size, size_t n, void *user)
{
    size_t                 len;
    ngx_nango_transfer_t  *t;

    t = user;

    if (t->read == NULL) {
        return CURL_READFUNC_ABORT;
    }

    len = t->read(t, (u_char *) buf, size * n);

    if (len == NGX_NANGO_READ_LATER) {
        t->paused = 1;
        return CURL_READFUNC_PAUSE;
    }

    return (len == NGX_NANGO_READ_FAILED) ? CURL_READFUNC_ABORT : len;
}


/* To the beginning, for what could not be sent on a kept connection: no. */

static int
ngx_nango_curl_seek(void *user, curl_off_t offset, int origin)
{
    return CURL_SEEKFUNC_FAIL;
}


/* What Nango says of the account's rate limit in each of its replies. */

static void
ngx_nango_curl_budget(ngx_nango_transfer_t *t)
{
    time_t               now;
    ngx_int_t            n[3];
    ngx_uint_t           i;
    struct curl_header  *h;

    static const char  *names[] = {
        "X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset"
    };

    for (i = 0; i < 3; i++) {

        if (curl_easy_header(t->easy, names[i], 0, CURLH_HEADER, -1, &h)
            != CURLHE_OK)
        {
            return;
        }

        n[i] = ngx_atoi((u_char *) h->value, ngx_strlen(h->value));

        if (n[i] == NGX_ERROR) {
            return;
        }
    }

    now = ngx_time();

    if (n[2] > now) {
        ngx_nango_account_budget(&t->environment->account, n[0], n[1],
                                 n[2] - now);
    }
}


static void
ngx_nango_curl_complete(ngx_nango_transfer_t *t, CURLcode code)
{
    long               status;
    curl_off_t         begun;
    ngx_nango_peer_t  *peer;

    peer = ngx_nango_curl_peer(t);

    status = 0;
    begun = 0;
    curl_easy_getinfo(t->easy, CURLINFO_RESPONSE_CODE, &status);
    curl_easy_getinfo(t->easy, CURLINFO_STARTTRANSFER_TIME_T, &begun);

    t->status = (ngx_uint_t) status;
    t->time = ngx_current_msec - t->start;
    t->error = curl_easy_strerror(code);

    if (t->starved) {
        t->error = "worker_connections are not enough";
    }

    switch (code) {

    case CURLE_OK:

        /* To libcurl a reply that is cut in its headers is whole. */

        if (t->headers) {
            t->outcome = NGX_NANGO_TRANSFER_DONE;

        } else {
            t->outcome = NGX_NANGO_TRANSFER_UNAVAILABLE;
            t->error = "the reply was cut off";
        }

        break;

    case CURLE_OPERATION_TIMEDOUT:
        t->outcome = NGX_NANGO_TRANSFER_TIMEOUT;
        break;

    case CURLE_WRITE_ERROR:

        if (t->refused) {
            t->outcome = NGX_NANGO_TRANSFER_MALFORMED;
            t->error = t->refused;

        } else {
            t->outcome = NGX_NANGO_TRANSFER_UNAVAILABLE;
            t->error = "no memory";
        }

        break;

    case CURLE_OUT_OF_MEMORY:

        /* What libcurl says of a line that is too long as well. */

        if (begun && !t->headers) {
            t->outcome = NGX_NANGO_TRANSFER_MALFORMED;
            t->error = "a line of the reply's headers is too long";

        } else {
            t->outcome = NGX_NANGO_TRANSFER_UNAVAILABLE;
        }

        break;

    case CURLE_FAILED_INIT:
        t->outcome = NGX_NANGO_TRANSFER_UNAVAILABLE;
        t->error = "no memory";
        break;

    case CURLE_ABORTED_BY_CALLBACK:
        t->outcome = NGX_NANGO_TRANSFER_UNAVAILABLE;

        if (t->lost) {
            t->error = "the connection was closed instead of an answer";
        }

        break;

#if (LIBCURL_VERSION_NUM >= 0x080600)
    case CURLE_TOO_LARGE:
#endif
    case CURLE_WEIRD_SERVER_REPLY:
    case CURLE_UNSUPPORTED_PROTOCOL:
    case CURLE_HTTP2:
    case CURLE_BAD_CONTENT_ENCODING:
        t->outcome = NGX_NANGO_TRANSFER_MALFORMED;
        break;

    default:
        t->outcome = NGX_NANGO_TRANSFER_UNAVAILABLE;
        break;
    }

    t->unreached = (code == CURLE_COULDNT_CONNECT
                    || code == CURLE_COULDNT_RESOLVE_HOST);

    if (t->subscriber) {
        ngx_nango_curl_failure(t, code);
    }

    /*
     * Dead is who cannot be reached or says nothing in time; who answers
     * badly is alive.  Want of connections is our own trouble, and who has left
     * before anything was sent has learned nothing.
     */

    if (t->environment) {
        ngx_nango_curl_budget(t);
    }

    if (t->environment
        && (t->starved || (code == CURLE_ABORTED_BY_CALLBACK && !t->lost)))
    {
        ngx_nango_circuit_give_up(t->environment->key);

    } else if (t->environment) {
        ngx_nango_circuit_leave(t->environment->key,
                                code == CURLE_OPERATION_TIMEDOUT
                                || t->unreached,
                                &t->environment->name, ngx_cycle->log);
    }

    (void) curl_multi_remove_handle(ngx_nango_multi, t->easy);

    ngx_queue_remove(&t->queue);
    peer->active--;
    ngx_nango_curl_hold();

    /*
     * A failed transfer's handle may hold more than options (a resolver that
     * has not come back), so only those that went well are kept.
     */

    curl_easy_setopt(t->easy, CURLOPT_PRIVATE, NULL);

    if (code == CURLE_OK && peer->nidle < NGX_NANGO_IDLE_EASY) {
        peer->idle[peer->nidle++] = t->easy;

    } else {
        curl_easy_cleanup(t->easy);
    }

    t->easy = NULL;

    ERR_clear_error();

    if (peer->environment) {
        ngx_nango_curl_next(peer);
    }

    if (t->handler) {
        t->handler(t);
    }

    ngx_nango_transfer_free(t);
}


/* Nobody is there for whom nothing could be sent at all. */

static void
ngx_nango_curl_failure(ngx_nango_transfer_t *t, CURLcode code)
{
    long  sent;

    sent = 0;
    curl_easy_getinfo(t->easy, CURLINFO_REQUEST_SIZE, &sent);

    switch (code) {

    case CURLE_OK:

        if (t->outcome != NGX_NANGO_TRANSFER_DONE) {
            t->failure = NGX_NANGO_DELIVERY_CUT;
        }

        return;

    case CURLE_COULDNT_RESOLVE_HOST:
        t->failure = NGX_NANGO_DELIVERY_RESOLVE;
        break;

    case CURLE_COULDNT_CONNECT:
        t->failure = NGX_NANGO_DELIVERY_CONNECT;
        break;

    case CURLE_OPERATION_TIMEDOUT:
        t->failure = NGX_NANGO_DELIVERY_TIMEOUT;
        break;

    case CURLE_SSL_CONNECT_ERROR:
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CACERT_BADFILE:
        t->failure = NGX_NANGO_DELIVERY_TLS;
        break;

    case CURLE_OUT_OF_MEMORY:
    case CURLE_FAILED_INIT:

        if (t->outcome == NGX_NANGO_TRANSFER_MALFORMED) {
            t->failure = NGX_NANGO_DELIVERY_CUT;
            return;
        }

        t->ours = 1;
        /* fall through */

    case CURLE_ABORTED_BY_CALLBACK:
        t->failure = NGX_NANGO_DELIVERY_LOCAL;
        return;

    default:
        t->failure = NGX_NANGO_DELIVERY_CUT;
        break;
    }

    if (t->starved) {
        t->ours = 1;
        return;
    }

    t->unreached = (sent == 0);
}


static void
ngx_nango_curl_next(ngx_nango_peer_t *peer)
{
    ngx_queue_t           *q;
    ngx_nango_transfer_t  *t;

    while (peer->active < peer->environment->api_connections
           && !ngx_queue_empty(&peer->waiting))
    {
        q = ngx_queue_head(&peer->waiting);
        t = ngx_queue_data(q, ngx_nango_transfer_t, queue);

        ngx_queue_remove(q);
        peer->nwaiting--;

        if (ngx_nango_curl_expired(t)) {
            ngx_nango_curl_drop(t, NGX_NANGO_TRANSFER_TIMEOUT, NULL);

        } else if (ngx_nango_curl_add(t) != NGX_OK) {
            ngx_nango_curl_drop(t, NGX_NANGO_TRANSFER_UNAVAILABLE,
                                "no memory");
        }
    }
}


/* Whoever has waited for api_timeout is told, and not sent any more. */

static void
ngx_nango_curl_expiry_handler(ngx_event_t *ev)
{
    ngx_msec_t             left;
    ngx_queue_t           *q;
    ngx_nango_peer_t      *peer;
    ngx_nango_transfer_t  *t;

    peer = (ngx_nango_peer_t *)
               ((u_char *) ev - offsetof(ngx_nango_peer_t, expiry));

    while (!ngx_queue_empty(&peer->waiting)) {
        q = ngx_queue_head(&peer->waiting);
        t = ngx_queue_data(q, ngx_nango_transfer_t, queue);

        if (!ngx_nango_curl_expired(t)) {

            left = t->start + peer->timeout - ngx_current_msec;

            if (!ev->timer_set) {
                ngx_add_timer(ev, left);
            }

            return;
        }

        ngx_queue_remove(q);
        peer->nwaiting--;

        ngx_nango_curl_drop(t, NGX_NANGO_TRANSFER_TIMEOUT, NULL);
    }
}


static ngx_uint_t
ngx_nango_curl_expired(ngx_nango_transfer_t *t)
{
    return ngx_current_msec - t->start >= t->environment->api_timeout;
}


/* Ends a transfer that libcurl never had. */

static void
ngx_nango_curl_drop(ngx_nango_transfer_t *t, ngx_nango_outcome_e outcome,
    const char *error)
{
    t->outcome = outcome;
    t->error = error;
    t->time = ngx_current_msec - t->start;

    if (t->handler) {
        t->handler(t);
    }

    ngx_nango_transfer_free(t);
}
