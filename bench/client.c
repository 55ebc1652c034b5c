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


typedef enum { WEBHOOK, GET, LIST, SESSION, POLL } kind_e;


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


static client_t *
client_open(kind_e kind)
{
    int                  one;
    client_t            *c;
    struct sockaddr_in   addr;
    struct epoll_event   ev;

    c = calloc(1, sizeof(client_t));

    if (c == NULL) {
        die("calloc()");
    }

    c->kind = kind;
    c->fd = socket(AF_INET, SOCK_STREAM, 0);

    if (c->fd == -1) {
        die("socket()");
    }

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

    if (fcntl(c->fd, F_SETFL, O_NONBLOCK) == -1) {
        die("fcntl()");
    }

    memset(&ev, 0, sizeof(ev));
    ev.events = EPOLLIN;
    ev.data.ptr = c;

    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, c->fd, &ev) == -1) {
        die("epoll_ctl()");
    }

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


/* As Nango builds it, of some 500 bytes. */

static void
client_webhook(client_t *c, long number, long owner)
{
    int             i, len, body_len;
    char            text[2048], body[1024], hex[2 * EVP_MAX_MD_SIZE + 1];
    unsigned int    n;
    unsigned char   mac[EVP_MAX_MD_SIZE];

    body_len = snprintf(body, sizeof(body),
        "{\"authMode\":\"API_KEY\",\"connectionId\":\"%s-%012ld-4f3e-9a1b\","
        "\"endUser\":{\"endUserEmail\":\"ann@example.com\",\"endUserId\":"
        "\"user-%ld\",\"organizationId\":\"org-%ld\",\"tags\":{\"plan\":"
        "\"pro\"}},\"environment\":\"dev\",\"from\":\"nango\",\"operation\":"
        "\"creation\",\"provider\":\"p-%ld\",\"providerConfigKey\":\"p-%ld\","
        "\"success\":true,\"tags\":{\"end_user_display_name\":\"Ann\","
        "\"end_user_email\":\"ann@example.com\",\"end_user_id\":\"user-%ld\","
        "\"organization_id\":\"org-%ld\",\"plan\":\"pro\"},\"type\":"
        "\"auth\"}", run, number, owner, owner % 500,
        number / owners % PROVIDERS, number / owners % PROVIDERS, owner,
        owner % 500);

    if (HMAC(EVP_sha256(), key, (int) strlen(key), (unsigned char *) body,
             (size_t) body_len, mac, &n)
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
                   "X-Nango-Hmac-Sha256: %s\r\nContent-Length: %d\r\n\r\n%s",
                   hex, body_len, body);

    c->n = owner;
    client_send(c, text, (size_t) len);
}


/* The status of a whole answer, 0: there is more to come. */

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
        (void) fprintf(stderr, "a connection was closed\n");
        exit(1);
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

    if (c->len < total) {
        return 0;
    }

    c->busy = 0;

    return atoi(c->data + sizeof("HTTP/1.1 ") - 1);
}


/* Calls what is to be done with each whole answer, until then at most. */

static void
answers(uint64_t until, void (*answered)(client_t *c, int status))
{
    int                 i, n, ms, status;
    uint64_t            t;
    struct epoll_event  events[512];

    t = now();
    ms = (until > t) ? (int) ((until - t + 999) / 1000) : 0;

    n = epoll_wait(epoll_fd, events, 512, ms);

    for (i = 0; i < n; i++) {
        status = client_read(events[i].data.ptr);

        if (status) {
            bad += (status / 100 != 2);
            answered(events[i].data.ptr, status);
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
        client_webhook(c, fill_next, fill_next % owners);
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
        client_webhook(client_open(WEBHOOK), fill_next, fill_next % owners);
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
                client_webhook(c, n, owner);

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


int
main(int argc, char **argv)
{
    const char  *what = argc > 1 ? argv[1] : "";

    if (argc < 5) {
        (void) fprintf(stderr, "usage: client fill|load|hold|polls PORT ...\n");
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

    } else {
        (void) fprintf(stderr, "usage: client fill|load|hold|polls PORT ...\n");
        return 2;
    }

    return 0;
}
