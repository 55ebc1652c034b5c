/*
 * Copyright (C) nginx-nango authors
 *
 * Requests on connections that are kept alive, from one thread, so that it
 * costs the same whatever is measured:
 *
 *     client fill PORT FIRST COUNT OWNERS KEY
 *         signed webhooks that create connections FIRST to FIRST + COUNT - 1,
 *         dealt out to owners; prints "seconds bad"
 *
 *     client load PORT PATH CLIENTS SECONDS OWNERS
 *         GET by owners at random; prints "requests/s p50 p99 bad", in us
 *
 *     client hold PORT PATH COUNT
 *         one GET each on COUNT connections; prints "held" and how many were
 *         answered within 2 s, and stays until its input ends
 *
 *     client polls PORT COUNT SECONDS RATE KEY
 *         COUNT owners wait for a change, while so many webhooks a second
 *         bring changes, and as many lists and sessions are asked for; prints
 *         "changes p50 p99 lists50 lists99 sessions50 sessions99 bad", where
 *         changes are timed from the acknowledgement to the answer
 *
 *     client steady PORT auth|sync SECONDS RATE CONNECTIONS KEY
 *         so many webhooks a second, all different, of so many connections in
 *         turn; prints "answered bad"
 *
 *     client beside PORT BACKEND SECONDS RATE KEY
 *         so many webhooks a second, and is the backend at port BACKEND, which
 *         takes each at once, and the one at the next port, which never
 *         answers; prints "delivered p50 p99 hung bad", in us from the
 *         acknowledgement to the arrival at the first, and how many the second
 *         got
 *
 * Addresses of 127.0.0.0/8 are taken in turns, as there are not enough ports.
 */

#define _GNU_SOURCE

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>


#define BUFFER     (16 * 1024)
#define PORTS      20000            /* of one address */
#define SAMPLES    (4 * 1024 * 1024)
#define FILLERS    128
#define PROVIDERS  10


typedef enum {
    WEBHOOK, GET, LIST, SESSION, POLL, TAKES, HANGS, TAKEN, HUNG
} kind_e;


typedef struct {
    int       fd;
    kind_e    kind;
    int       busy;
    long      n;                    /* owner, or number of the connection */
    uint64_t  sent;
    uint64_t  acked;                /* a poll's change */
    size_t    len;
    char      data[BUFFER];
} client_t;


typedef struct {
    uint32_t  *us;
    size_t     n;
} times_t;


static int          port, epoll_fd;
static long         owners, opened, bad;
static const char  *key, *path;
static char         run[32];


static void
die(const char *what)
{
    perror(what);
    exit(1);
}


static uint64_t
now(void)
{
    struct timespec  ts;

    (void) clock_gettime(CLOCK_MONOTONIC, &ts);

    return (uint64_t) ts.tv_sec * 1000000 + (uint64_t) ts.tv_nsec / 1000;
}


static long
any(long n)
{
    static uint64_t  x = 0x9e3779b97f4a7c15;

    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;

    return (long) (x % (uint64_t) n);
}


static void
times_init(times_t *times)
{
    times->n = 0;
    times->us = malloc(SAMPLES * sizeof(uint32_t));

    if (times->us == NULL) {
        die("malloc()");
    }
}


static void
times_add(times_t *times, uint64_t us)
{
    if (times->n < SAMPLES) {
        times->us[times->n++] = (uint32_t) us;
    }
}


static int
times_compare(const void *one, const void *two)
{
    uint32_t  a = *(const uint32_t *) one;
    uint32_t  b = *(const uint32_t *) two;

    return (a > b) - (a < b);
}


static void
times_print(times_t *times)
{
    qsort(times->us, times->n, sizeof(uint32_t), times_compare);

    if (times->n == 0) {
        (void) printf(" 0 0");
        return;
    }

    (void) printf(" %u %u", times->us[times->n / 2],
                  times->us[times->n - 1 - times->n / 100]);
}


/* Takes fd, -1: a new one. */

static client_t *
client_create(kind_e kind, int fd)
{
    client_t  *c;

    c = calloc(1, sizeof(client_t));

    if (c == NULL) {
        die("calloc()");
    }

    c->kind = kind;
    c->fd = (fd == -1) ? socket(AF_INET, SOCK_STREAM, 0) : fd;

    if (c->fd == -1) {
        die("socket()");
    }

    return c;
}


static void
client_watch(client_t *c)
{
    struct epoll_event  ev;

    if (fcntl(c->fd, F_SETFL, O_NONBLOCK) == -1) {
        die("fcntl()");
    }

    memset(&ev, 0, sizeof(ev));
    ev.events = EPOLLIN;
    ev.data.ptr = c;

    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, c->fd, &ev) == -1) {
        die("epoll_ctl()");
    }
}


static client_t *
client_open(kind_e kind)
{
    int                  one;
    client_t            *c;
    struct sockaddr_in   addr;

    c = client_create(kind, -1);

    one = 1;

    (void) setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    (void) setsockopt(c->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one,
                      sizeof(one));

    memset(&addr, 0, sizeof(addr));
    addr.sin_family = AF_INET;
    addr.sin_addr.s_addr = htonl(INADDR_LOOPBACK + (uint32_t) opened / PORTS);

    if (bind(c->fd, (struct sockaddr *) &addr, sizeof(addr)) == -1) {
        die("bind()");
    }

    addr.sin_port = htons((uint16_t) port);
    addr.sin_addr.s_addr = htonl(INADDR_LOOPBACK);

    if (connect(c->fd, (struct sockaddr *) &addr, sizeof(addr)) == -1) {
        die("connect()");
    }

    client_watch(c);
    opened++;

    return c;
}


/* Small enough for any socket's buffer. */

static void
client_send(client_t *c, const char *text, size_t len)
{
    if (send(c->fd, text, len, MSG_NOSIGNAL) != (ssize_t) len) {
        die("send()");
    }

    c->busy = 1;
    c->len = 0;
    c->sent = now();
}


static void
client_get(client_t *c, const char *uri, long owner)
{
    int   len;
    char  text[1024];

    c->n = owner;
    len = snprintf(text, sizeof(text), "GET %s HTTP/1.1\r\nHost: localhost\r\n"
                   "X-User: user-%ld\r\n\r\n", uri, owner);
    client_send(c, text, (size_t) len);
}


static void
client_session(client_t *c, long owner)
{
    int   len;
    char  text[1024];

    len = snprintf(text, sizeof(text), "POST /session HTTP/1.1\r\n"
                   "Host: localhost\r\nX-User: user-%ld\r\n"
                   "Content-Length: 0\r\n\r\n", owner);
    client_send(c, text, (size_t) len);
}


static void
client_signed(client_t *c, const char *body)
{
    int             i, len;
    char            text[2048], hex[2 * EVP_MAX_MD_SIZE + 1];
    size_t          body_len;
    unsigned int    n;
    unsigned char   mac[EVP_MAX_MD_SIZE];

    body_len = strlen(body);

    if (HMAC(EVP_sha256(), key, (int) strlen(key), (unsigned char *) body,
             body_len, mac, &n)
        == NULL)
    {
        (void) fprintf(stderr, "HMAC() failed\n");
        exit(1);
    }

    for (i = 0; i < (int) n; i++) {
        (void) sprintf(hex + 2 * i, "%02x", mac[i]);
    }

    len = snprintf(text, sizeof(text), "POST /webhook HTTP/1.1\r\n"
                   "Host: localhost\r\nContent-Type: application/json\r\n"
                   "X-Nango-Hmac-Sha256: %s\r\nContent-Length: %zu\r\n\r\n%s",
                   hex, body_len, body);

    client_send(c, text, (size_t) len);
}


/* As Nango builds it, of some 500 bytes; turn is what makes it another one. */

static void
client_webhook(client_t *c, long number, long owner, long turn)
{
    char  body[1024];

    (void) snprintf(body, sizeof(body),
        "{\"authMode\":\"API_KEY\",\"connectionId\":\"%s-%012ld-4f3e-9a1b\","
        "\"endUser\":{\"endUserEmail\":\"ann@example.com\",\"endUserId\":"
        "\"user-%ld\",\"organizationId\":\"org-%ld\",\"tags\":{\"plan\":"
        "\"pro\"}},\"environment\":\"dev\",\"from\":\"nango\",\"operation\":"
        "\"creation\",\"provider\":\"p-%ld\",\"providerConfigKey\":\"p-%ld\","
        "\"success\":true,\"tags\":{\"end_user_display_name\":\"Ann\","
        "\"end_user_email\":\"ann@example.com\",\"end_user_id\":\"user-%ld\","
        "\"organization_id\":\"org-%ld\",\"plan\":\"pro\"},\"turn\":%ld,"
        "\"type\":\"auth\"}", run, number, owner, owner % 500,
        number / owners % PROVIDERS, number / owners % PROVIDERS, owner,
        owner % 500, turn);

    c->n = owner;
    client_signed(c, body);
}


static void
client_sync(client_t *c, long number, long turn)
{
    char  body[1024];

    (void) snprintf(body, sizeof(body),
        "{\"checkpoint\":null,\"connectionId\":\"%s-%012ld-4f3e-9a1b\","
        "\"environment\":\"dev\",\"from\":\"nango\",\"model\":\"Issue\","
        "\"modifiedAfter\":\"2026-07-01T12:00:00.000Z\",\"provider\":"
        "\"p-%ld\",\"providerConfigKey\":\"p-%ld\",\"queryTimeStamp\":"
        "\"2026-07-01T12:00:00.000Z\",\"responseResults\":{\"added\":%ld,"
        "\"deleted\":0,\"updated\":0},\"success\":true,\"syncName\":"
        "\"issues\",\"syncType\":\"INCREMENTAL\",\"syncVariant\":\"base\","
        "\"type\":\"sync\"}", run, number, number % PROVIDERS,
        number % PROVIDERS, turn);

    client_signed(c, body);
}


/* Whether a message is whole; -1: the connection is closed. */

static int
client_read(client_t *c)
{
    char     *end, *p;
    size_t    total;
    ssize_t   n;

    n = recv(c->fd, c->data + c->len, BUFFER - 1 - c->len, 0);

    if (n == -1 && errno == EAGAIN) {
        return 0;
    }

    if (n <= 0) {
        return -1;
    }

    c->len += (size_t) n;
    c->data[c->len] = '\0';

    end = strstr(c->data, "\r\n\r\n");

    if (end == NULL) {
        return 0;
    }

    total = (size_t) (end - c->data) + 4;
    p = strcasestr(c->data, "\r\nContent-Length:");

    if (p && p < end) {
        total += strtoul(p + 17, NULL, 10);
    }

    return c->len >= total;
}


/* The status of a whole answer, 0: there is more to come. */

static int
client_status(client_t *c)
{
    switch (client_read(c)) {

    case 0:
        return 0;

    case 1:
        c->busy = 0;
        return atoi(c->data + sizeof("HTTP/1.1 ") - 1);

    default:
        (void) fprintf(stderr, "a connection was closed\n");
        exit(1);
    }
}


static void  served(client_t *c);


/* Calls what is to be done with each whole answer, until then at most. */

static void
answers(uint64_t until, void (*answered)(client_t *c, int status))
{
    int                 i, n, ms, status;
    client_t           *c;
    uint64_t            t;
    struct epoll_event  events[512];

    t = now();
    ms = (until > t) ? (int) ((until - t + 999) / 1000) : 0;

    n = epoll_wait(epoll_fd, events, 512, ms);

    for (i = 0; i < n; i++) {
        c = events[i].data.ptr;

        if (c->kind >= TAKES) {
            served(c);
            continue;
        }

        status = client_status(c);

        if (status) {
            bad += (status / 100 != 2);
            answered(c, status);
        }
    }
}


/* fill */

static long  fill_next, fill_end, fill_left;


static void
fill_answered(client_t *c, int status)
{
    (void) status;

    fill_left--;

    if (fill_next < fill_end) {
        client_webhook(c, fill_next, fill_next % owners, 0);
        fill_next++;
    }
}


static void
fill(long first, long count)
{
    int       i;
    uint64_t  start;

    start = now();
    fill_next = first;
    fill_end = first + count;
    fill_left = count;

    for (i = 0; i < FILLERS && fill_next < fill_end; i++, fill_next++) {
        client_webhook(client_open(WEBHOOK), fill_next, fill_next % owners,
                       0);
    }

    while (fill_left) {
        answers(now() + 1000000, fill_answered);
    }

    (void) printf("%.1f %ld\n", (double) (now() - start) / 1e6, bad);
}


/* load */

static times_t   load_times;
static uint64_t  load_end;


static void
load_answered(client_t *c, int status)
{
    (void) status;

    times_add(&load_times, now() - c->sent);

    if (c->sent < load_end) {
        client_get(c, path, any(owners));
    }
}


static void
load(long clients, double seconds)
{
    long      i;
    uint64_t  start;

    times_init(&load_times);

    start = now();
    load_end = start + (uint64_t) (seconds * 1e6);

    for (i = 0; i < clients; i++) {
        client_get(client_open(GET), path, any(owners));
    }

    while (now() < load_end) {
        answers(load_end, load_answered);
    }

    (void) printf("%.0f", (double) load_times.n / ((double) (now() - start)
                                                   / 1e6));
    times_print(&load_times);
    (void) printf(" %ld\n", bad);
}


/* hold */

static long  hold_answers;


static void
hold_answered(client_t *c, int status)
{
    (void) c;
    (void) status;

    hold_answers++;
}


static void
hold(long count)
{
    long      i;
    char      c;
    uint64_t  end;

    for (i = 0; i < count; i++) {
        client_get(client_open(GET), path, i);

        if (i % 100 == 0) {
            answers(0, hold_answered);
        }
    }

    end = now() + 2000000;

    while (now() < end && hold_answers < count) {
        answers(end, hold_answered);
    }

    (void) printf("held %ld\n", hold_answers);
    (void) fflush(stdout);

    while (read(STDIN_FILENO, &c, 1) > 0) { /* void */ }
}


/* polls */

static times_t     poll_times, list_times, session_times;
static client_t  **polls;
static uint64_t    acks, changes;


static unsigned long
poll_sequence(const char *data)
{
    const char  *p = strstr(data, "\"sequence\":");

    return p ? strtoul(p + 11, NULL, 10) : 0;
}


static void
poll_again(client_t *c, unsigned long sequence)
{
    char  uri[128];

    c->acked = 0;
    (void) snprintf(uri, sizeof(uri), "/connections?since=%lu&wait=55",
                    sequence);
    client_get(c, uri, c->n);
}


static void
poll_answered(client_t *c, int status)
{
    uint64_t   t;
    client_t  *one;

    (void) status;

    t = now();

    switch (c->kind) {

    case WEBHOOK:
        acks++;
        one = polls ? polls[c->n] : NULL;

        if (one && one->acked == 1) {
            /* It was told before the one who brought the change was. */
            times_add(&poll_times, 0);
            poll_again(one, poll_sequence(one->data));

        } else if (one) {
            one->acked = t;
        }

        break;

    case POLL:

        if (strstr(c->data, "\"changed\":true") == NULL) {
            poll_again(c, poll_sequence(c->data));
            break;
        }

        changes++;

        if (c->acked == 0) {
            c->acked = 1;
            break;
        }

        times_add(&poll_times, t - c->acked);
        poll_again(c, poll_sequence(c->data));
        break;

    case LIST:
        times_add(&list_times, t - c->sent);
        break;

    default: /* SESSION */
        times_add(&session_times, t - c->sent);
    }
}


/* One that has nothing to do; more of them where Nango's side is slow. */

static client_t *
idle(client_t **all, kind_e kind)
{
    int  i;

    for (i = 0; i < 256; i++) {
        if (all[i] == NULL) {
            all[i] = client_open(kind);
        }

        if (!all[i]->busy) {
            return all[i];
        }
    }

    bad++;

    return NULL;
}


static void
polls_run(long count, double seconds, long rate)
{
    long       i, n, owner;
    uint64_t   start, next, end;
    client_t  *c, *webhooks[256], *lists[256], *sessions[256];

    memset(webhooks, 0, sizeof(webhooks));
    memset(lists, 0, sizeof(lists));
    memset(sessions, 0, sizeof(sessions));

    times_init(&poll_times);
    times_init(&list_times);
    times_init(&session_times);

    /* From now on; what is held before the first webhook stays held. */

    c = idle(lists, LIST);
    client_get(c, "/connections", owners);

    while (c->busy) {
        answers(now() + 1000000, hold_answered);
    }

    if (count) {
        polls = calloc((size_t) count, sizeof(client_t *));

        if (polls == NULL) {
            die("calloc()");
        }

        for (i = 0; i < count; i++) {
            polls[i] = client_open(POLL);
            polls[i]->n = i;
            poll_again(polls[i], poll_sequence(c->data));

            if (i % 100 == 0) {
                answers(0, poll_answered);
            }
        }
    }

    next = now() + 2000000;

    while (now() < next) {
        answers(next, poll_answered);
    }

    start = next;
    end = start + (uint64_t) (seconds * 1e6);
    n = 0;

    while (next < end || acks < (uint64_t) n
           || (count && changes < (uint64_t) n))
    {
        if (now() > end + 20000000) {
            (void) fprintf(stderr, "%lu of %ld changes were told\n",
                           (unsigned long) changes, n);
            bad++;
            break;
        }

        while (next < end && now() >= next) {
            owner = (n * 7919) % owners;
            next = start + (uint64_t) ++n * 1000000 / (uint64_t) rate;

            c = idle(webhooks, WEBHOOK);

            if (c) {
                client_webhook(c, n, owner, 0);

            } else {
                acks++;
                changes++;
            }

            c = idle(lists, LIST);

            if (c) {
                client_get(c, "/connections", any(owners));
            }

            c = idle(sessions, SESSION);

            if (c) {
                client_session(c, any(owners));
            }
        }

        answers(next < end ? next : now() + 100000, poll_answered);
    }

    (void) printf("%lu", (unsigned long) changes);
    times_print(&poll_times);
    times_print(&list_times);
    times_print(&session_times);
    (void) printf(" %ld\n", bad);
}


/* steady */

static uint64_t  steady_answers;


static void
steady_answered(client_t *c, int status)
{
    (void) c;
    (void) status;

    steady_answers++;
}


static void
steady(int sync, double seconds, long rate, long connections)
{
    long       n;
    uint64_t   start, next, end;
    client_t  *c, *all[256];

    memset(all, 0, sizeof(all));

    start = now();
    next = start;
    end = start + (uint64_t) (seconds * 1e6);
    n = 0;

    while (next < end || steady_answers < (uint64_t) n) {

        if (now() > end + 20000000) {
            (void) fprintf(stderr, "not all webhooks were answered\n");
            exit(1);
        }

        while (next < end && now() >= next) {
            c = idle(all, WEBHOOK);

            /* Later, rather than not at all. */

            if (c == NULL) {
                bad--;
                break;
            }

            if (sync) {
                client_sync(c, n % connections, n);

            } else {
                client_webhook(c, n % connections, n % owners, n);
            }

            next = start + (uint64_t) ++n * 1000000 / (uint64_t) rate;
        }

        answers(next > now() && next < end ? next : now() + 1000,
                steady_answered);
    }

    (void) printf("%lu %ld\n", (unsigned long) steady_answers, bad);
}


/* beside */

typedef struct {
    uint64_t  acked;
    uint64_t  arrived;
} delivery_t;


static delivery_t  *deliveries;
static long         delivered, sent, hung;


static void
serve(kind_e kind, int at)
{
    int                  one;
    client_t            *c;
    struct sockaddr_in   addr;

    c = client_create(kind, -1);
    one = 1;

    (void) setsockopt(c->fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));

    memset(&addr, 0, sizeof(addr));
    addr.sin_family = AF_INET;
    addr.sin_port = htons((uint16_t) at);
    addr.sin_addr.s_addr = htonl(INADDR_LOOPBACK);

    if (bind(c->fd, (struct sockaddr *) &addr, sizeof(addr)) == -1
        || listen(c->fd, 1024) == -1)
    {
        die("listen()");
    }

    client_watch(c);
}


static void
served_arrived(const char *data, uint64_t t)
{
    long         n;
    const char  *p;

    static const char  before[] = "\"connectionId\":\"";

    p = strstr(data, before);
    p = p ? strchr(p + sizeof(before) - 1, '-') : NULL;
    n = p ? strtol(p + 1, NULL, 10) : -1;

    if (n < 0 || n >= sent) {
        bad++;
        return;
    }

    if (deliveries[n].arrived == 0) {
        deliveries[n].arrived = t;
        delivered++;
    }
}


static void
served(client_t *c)
{
    int       fd;
    uint64_t  t;

    static const char  answer[] = "HTTP/1.1 204 No Content\r\n\r\n";

    t = now();

    if (c->kind == TAKES || c->kind == HANGS) {
        fd = accept(c->fd, NULL, NULL);

        if (fd != -1) {
            client_watch(client_create(c->kind == TAKES ? TAKEN : HUNG, fd));
        }

        return;
    }

    switch (client_read(c)) {

    case 0:
        return;

    case 1:
        break;

    default:
        (void) close(c->fd);
        free(c);
        return;
    }

    if (c->kind == HUNG) {
        c->len = 0;
        hung++;
        return;
    }

    served_arrived(c->data, t);
    client_send(c, answer, sizeof(answer) - 1);
}


static void
beside_answered(client_t *c, int status)
{
    (void) status;

    deliveries[c->acked].acked = now();
}


static void
beside(int backend, double seconds, long rate)
{
    long         i, all;
    uint64_t     start, next, end;
    times_t      times;
    client_t    *c, *webhooks[256];
    delivery_t  *d;

    memset(webhooks, 0, sizeof(webhooks));
    times_init(&times);

    all = (long) (seconds * (double) rate);
    deliveries = calloc((size_t) all, sizeof(delivery_t));

    if (deliveries == NULL) {
        die("calloc()");
    }

    serve(TAKES, backend);
    serve(HANGS, backend + 1);

    start = now();
    next = start;
    end = start + (uint64_t) (seconds * 1e6) + 20000000;

    while ((sent < all || delivered < sent) && now() < end) {

        while (sent < all && now() >= next) {
            c = idle(webhooks, WEBHOOK);

            /* Later, rather than not at all. */

            if (c == NULL) {
                bad--;
                break;
            }

            c->acked = (uint64_t) sent;
            client_webhook(c, sent, sent % owners, 0);

            next = start + (uint64_t) ++sent * 1000000 / (uint64_t) rate;
        }

        answers(sent < all && next > now() ? next : now() + 1000,
                beside_answered);
    }

    bad += sent - delivered;

    /* The first second is for connections, caches and a full set of slots. */

    for (i = rate; i < sent; i++) {
        d = &deliveries[i];

        if (d->arrived) {
            times_add(&times, d->arrived > d->acked ? d->arrived - d->acked
                                                    : 0);
        }
    }

    (void) printf("%ld", delivered);
    times_print(&times);
    (void) printf(" %ld %ld\n", hung, bad);
}


int
main(int argc, char **argv)
{
    const char  *what = argc > 1 ? argv[1] : "";

    if (argc < 5) {
        (void) fprintf(stderr, "usage: client WHAT PORT ...\n");
        return 2;
    }

    port = atoi(argv[2]);
    epoll_fd = epoll_create1(0);

    if (epoll_fd == -1) {
        die("epoll_create1()");
    }

    if (strcmp(what, "fill") == 0 && argc == 7) {
        (void) snprintf(run, sizeof(run), "fill");
        owners = atol(argv[5]);
        key = argv[6];
        fill(atol(argv[3]), atol(argv[4]));

    } else if (strcmp(what, "load") == 0 && argc == 7) {
        path = argv[3];
        owners = atol(argv[6]);
        load(atol(argv[4]), atof(argv[5]));

    } else if (strcmp(what, "hold") == 0 && argc == 5) {
        path = argv[3];
        hold(atol(argv[4]));

    } else if (strcmp(what, "polls") == 0 && argc == 7) {
        (void) snprintf(run, sizeof(run), "%llu", (unsigned long long) now());
        key = argv[6];
        owners = atol(argv[3]) ? atol(argv[3]) : 10000;
        polls_run(atol(argv[3]), atof(argv[4]), atol(argv[5]));

    } else if (strcmp(what, "steady") == 0 && argc == 8) {
        (void) snprintf(run, sizeof(run), "steady");
        key = argv[7];
        owners = atol(argv[6]) / 10 + 1;
        steady(strcmp(argv[3], "sync") == 0, atof(argv[4]), atol(argv[5]),
               atol(argv[6]));

    } else if (strcmp(what, "beside") == 0 && argc == 7) {
        (void) snprintf(run, sizeof(run), "beside");
        key = argv[6];
        owners = 1000;
        beside(atoi(argv[3]), atof(argv[4]), atol(argv[5]));

    } else {
        (void) fprintf(stderr, "usage: client WHAT PORT ...\n");
        return 2;
    }

    return 0;
}
