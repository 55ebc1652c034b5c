/*
 * Copyright (C) nginx-nango authors
 *
 * A number of requests, as many as asked for and no more, on connections that
 * are kept alive:
 *
 *     press PORT COUNT FIRST CLIENTS METHOD PATH [KEY [PART]] < BODY
 *
 * "############" in path and body is the number of the request, which counts
 * from FIRST on, "%%%%" and a header X-User have it modulo 1000.  With a KEY
 * the body is signed with it.  With a PART, from 0 to 100, this much of each
 * request is sent, in percent, and then the connection is reset.
 * Prints what came of them, as JSON: how many of each status, and of cuts.
 */

#define _GNU_SOURCE

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>


#define HEAD   4096
#define REPLY  (256 * 1024)


typedef struct {
    int     fd;
    char   *request;
    size_t  len;
    char    reply[REPLY];
} client_t;


static int          port, part;
static long         count, first;
static const char  *method, *path, *key;
static char        *body;
static size_t       body_len;

static atomic_long  next_one;
static atomic_long  statuses[600];
static atomic_long  cuts;


static void *
xalloc(size_t size)
{
    void  *p;

    p = calloc(1, size);
    if (p == NULL) {
        perror("press");
        exit(1);
    }

    return p;
}


static void
read_body(void)
{
    size_t   size;
    ssize_t  n;

    size = 0;

    do {
        if (body_len == size) {
            size = size ? size * 2 : 64 * 1024;
            body = realloc(body, size + 1);

            if (body == NULL) {
                perror("press");
                exit(1);
            }
        }

        n = read(STDIN_FILENO, body + body_len, size - body_len);

        if (n == -1) {
            perror("press");
            exit(1);
        }

        body_len += (size_t) n;

    } while (n > 0);

    body[body_len] = '\0';
}


/* All marks, which are as long as what takes their place. */

static void
replace(char *text, const char *mark, const char *format, long n)
{
    char  *p, digits[32];

    (void) snprintf(digits, sizeof(digits), format, n);

    for (p = strstr(text, mark); p; p = strstr(p, mark)) {
        memcpy(p, digits, strlen(mark));
    }
}


static void
number(char *text, long n)
{
    replace(text, "############", "%012ld", n);
    replace(text, "%%%%", "%04ld", n % 1000);
}


static void
sign(const char *text, size_t len, char *hex)
{
    unsigned int   i, n;
    unsigned char  mac[EVP_MAX_MD_SIZE];

    if (HMAC(EVP_sha256(), key, (int) strlen(key),
             (const unsigned char *) text, len, mac, &n)
        == NULL)
    {
        (void) fprintf(stderr, "press: HMAC() failed\n");
        exit(1);
    }

    for (i = 0; i < n; i++) {
        (void) sprintf(hex + 2 * i, "%02x", mac[i]);
    }
}


static void
build(client_t *c, long n)
{
    int   len;
    char  hex[2 * EVP_MAX_MD_SIZE + 1];

    /* Of the head's length only so much is known that there is room. */

    char  *text = c->request + HEAD;

    memcpy(text, body, body_len + 1);
    number(text, n);

    hex[0] = '\0';

    if (key) {
        sign(text, body_len, hex);
    }

    len = snprintf(c->request, HEAD,
                   "%s %s HTTP/1.1\r\n"
                   "Host: localhost\r\n"
                   "Content-Type: application/json\r\n"
                   "Content-Length: %zu\r\n"
                   "X-User: u-%%%%%%%%\r\n"
                   "%s%s%s\r\n",
                   method, path, body_len,
                   key ? "X-Nango-Hmac-Sha256: " : "", hex,
                   key ? "\r\n" : "");

    number(c->request, n);

    memmove(c->request + len, text, body_len);
    c->len = (size_t) len + body_len;
}


static int
connected(void)
{
    int                 fd, one;
    struct timeval      tv;
    struct sockaddr_in  addr;

    one = 1;
    tv.tv_sec = 60;
    tv.tv_usec = 0;

    memset(&addr, 0, sizeof(addr));
    addr.sin_family = AF_INET;
    addr.sin_port = htons((unsigned short) port);
    addr.sin_addr.s_addr = htonl(INADDR_LOOPBACK);

    fd = socket(AF_INET, SOCK_STREAM, 0);

    if (fd == -1
        || setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)) == -1
        || setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv)) == -1
        || connect(fd, (struct sockaddr *) &addr, sizeof(addr)) == -1)
    {
        perror("press: connect()");
        exit(1);
    }

    return fd;
}


static int
send_all(int fd, const char *data, size_t len)
{
    ssize_t  n;

    while (len) {
        n = send(fd, data, len, MSG_NOSIGNAL);

        if (n == -1) {
            return -1;
        }

        data += n;
        len -= (size_t) n;
    }

    return 0;
}


/* The status, and whether the connection may be used again; -1: cut. */

static int
receive(client_t *c, int *keep)
{
    char     *end, *p;
    size_t    len, total;
    ssize_t   n;

    len = 0;
    total = 0;

    do {
        n = recv(c->fd, c->reply + len, REPLY - 1 - len, 0);

        if (n <= 0) {
            return -1;
        }

        len += (size_t) n;
        c->reply[len] = '\0';

        end = strstr(c->reply, "\r\n\r\n");

        if (end && total == 0) {
            total = (size_t) (end - c->reply) + 4;

            p = strcasestr(c->reply, "\r\nContent-Length:");

            if (p && p < end) {
                total += strtoul(p + 17, NULL, 10);
            }
        }

    } while (total == 0 || len < total);

    p = strcasestr(c->reply, "\r\nConnection: close");
    *keep = !(p && p < end);

    return atoi(c->reply + sizeof("HTTP/1.1 ") - 1);
}


static void
reset(int fd)
{
    struct linger  linger;

    linger.l_onoff = 1;
    linger.l_linger = 0;

    (void) setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
    (void) close(fd);
}


static void
request(client_t *c, long n)
{
    int  status, keep, fresh;

    build(c, n);

    for ( ;; ) {
        fresh = (c->fd == -1);

        if (fresh) {
            c->fd = connected();
        }

        if (part >= 0) {
            (void) send_all(c->fd, c->request, c->len * (size_t) part / 100);

            /* Long enough to be seen, too short for an answer, mostly. */
            (void) usleep(300 + (useconds_t) (n % 4) * 400);

            reset(c->fd);
            c->fd = -1;
            atomic_fetch_add(&cuts, 1);

            /* Connections that are gone have to be accepted, too. */
            (void) usleep(1000);
            return;
        }

        status = send_all(c->fd, c->request, c->len);

        if (status == 0) {
            status = receive(c, &keep);
        }

        if (status > 0 && keep) {
            break;
        }

        (void) close(c->fd);
        c->fd = -1;

        if (status > 0) {
            break;
        }

        if (fresh) {
            atomic_fetch_add(&cuts, 1);
            return;
        }

        /* A kept connection may have been closed meanwhile. */
    }

    atomic_fetch_add(&statuses[status < 600 ? status : 0], 1);
}


static void *
run(void *data)
{
    long       n;
    client_t  *c;

    (void) data;

    c = xalloc(sizeof(client_t));
    c->request = xalloc(HEAD + body_len + 1);
    c->fd = -1;

    for (n = atomic_fetch_add(&next_one, 1); n < count;
         n = atomic_fetch_add(&next_one, 1))
    {
        request(c, first + n);
    }

    if (c->fd != -1) {
        (void) close(c->fd);
    }

    free(c->request);
    free(c);

    return NULL;
}


int
main(int argc, char **argv)
{
    int         i, clients;
    pthread_t  *threads;

    if (argc < 7) {
        (void) fprintf(stderr, "usage: press PORT COUNT FIRST CLIENTS METHOD "
                       "PATH [KEY [PART]] < BODY\n");
        return 2;
    }

    port = atoi(argv[1]);
    count = atol(argv[2]);
    first = atol(argv[3]);
    clients = atoi(argv[4]);
    method = argv[5];
    path = argv[6];
    key = (argc > 7 && argv[7][0]) ? argv[7] : NULL;
    part = (argc > 8) ? atoi(argv[8]) : -1;

    read_body();

    threads = xalloc((size_t) clients * sizeof(pthread_t));

    for (i = 0; i < clients; i++) {
        if (pthread_create(&threads[i], NULL, run, NULL) != 0) {
            perror("press: pthread_create()");
            return 1;
        }
    }

    for (i = 0; i < clients; i++) {
        (void) pthread_join(threads[i], NULL);
    }

    free(threads);
    free(body);

    (void) printf("{\"cut\":%ld", atomic_load(&cuts));

    for (i = 0; i < 600; i++) {
        if (atomic_load(&statuses[i])) {
            (void) printf(",\"%d\":%ld", i, atomic_load(&statuses[i]));
        }
    }

    (void) printf("}\n");

    return 0;
}
