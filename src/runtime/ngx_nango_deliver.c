/*
 * Copyright (C) nginx-nango authors
 *
 * The event loop's side of deliveries.  Each subscriber has a queue
 * (nango_queue.h), which says what may be sent; this file sends it, tells the
 * queue what came of it, and takes its reports to the courier, which has them
 * committed.
 *
 * What is sent: a POST of the body as it came, with the headers it came with,
 * Nango's signatures among them, and X-Nango-Edge-* ones.  Headers of these
 * names that came with an event are left out: nobody but us says them.
 *
 * A worker that exits lets what is under way come to its end for a second, and
 * then lets another one lead.
 */

#include "ngx_nango_deliver.h"
#include "ngx_nango_body.h"
#include "ngx_nango_courier.h"
#include "ngx_nango_curl.h"
#include "ngx_nango_shared.h"
#include "ngx_nango_store.h"

#include "nango_tags.h"

#include <curl/curl.h>


/* ms */
#define NGX_NANGO_DELIVER_LOOK    100
#define NGX_NANGO_DELIVER_EXPIRE  (10 * 1000)
#define NGX_NANGO_DELIVER_GRACE   1000

/* Lanes of rows that are asked for at a time. */
#define NGX_NANGO_DELIVER_LANES   32

/* A longer X-Nango-Edge-Owner no backend takes; it is left out. */
#define NGX_NANGO_DELIVER_OWNER   (16 * 1024)

/* For all lines that we say ourselves, without names. */
#define NGX_NANGO_DELIVER_LINES   512

/* No libcurl waits for a 100 before it sends a smaller body. */
#define NGX_NANGO_DELIVER_EXPECT  1024


typedef struct ngx_nango_sent_s  ngx_nango_sent_t;

typedef struct {
    ngx_nango_subscriber_t  *subscriber;
    nango_queue_t           *queue;
    uint64_t                 epoch;
    ngx_event_t              timer;
    ngx_event_t              posted;        /* something is to be reported */
    ngx_queue_t              flight;        /* ngx_nango_sent_t */
    ngx_uint_t               nflight;
    ngx_msec_t               expired;
    uint64_t                 down_since;
    unsigned                 active:1;      /* this worker leads */
    unsigned                 parked:1;
} ngx_nango_deliver_t;

/* One that is under way. */
struct ngx_nango_sent_s {
    ngx_queue_t              queue;
    ngx_nango_deliver_t     *deliver;
    nango_queued_t          *event;
    ngx_nango_transfer_t    *transfer;
};


static void ngx_nango_deliver_wake_handler(ngx_event_t *ev);
static void ngx_nango_deliver_timer_handler(ngx_event_t *ev);
static void ngx_nango_deliver_posted_handler(ngx_event_t *ev);
static void ngx_nango_deliver_receive(ngx_nango_deliver_t *dl, ngx_uint_t i);
static void ngx_nango_deliver_begin(ngx_nango_deliver_t *dl,
    ngx_nango_message_t *m);
static void ngx_nango_deliver_go_on(ngx_nango_deliver_t *dl);
static void ngx_nango_deliver_report(ngx_nango_deliver_t *dl);
static void ngx_nango_deliver_after(ngx_nango_deliver_t *dl, uint64_t ms);
static ngx_int_t ngx_nango_deliver_send(ngx_nango_deliver_t *dl,
    nango_queued_t *e);
static struct curl_slist *ngx_nango_deliver_headers(
    ngx_nango_subscriber_t *sub, const nango_delivery_t *d);
static u_char *ngx_nango_deliver_kept(struct curl_slist **list,
    ngx_nango_subscriber_t *sub, const nango_delivery_t *d, u_char *lines);
static u_char *ngx_nango_deliver_kept_line(struct curl_slist **list,
    ngx_nango_subscriber_t *sub, u_char *line, size_t len, u_char *lines);
static u_char *ngx_nango_deliver_line(u_char *dst, u_char *line, size_t len);
static ngx_uint_t ngx_nango_deliver_ours(ngx_nango_subscriber_t *sub,
    u_char *name, size_t len);
static ngx_uint_t ngx_nango_deliver_same(u_char *name, u_char *ours,
    size_t len);
static u_char *ngx_nango_deliver_edge(const nango_delivery_t *d, u_char *p);
static size_t ngx_nango_deliver_owner_len(const nango_delivery_t *d);
static u_char *ngx_nango_deliver_owner(const nango_delivery_t *d, size_t len,
    u_char *p);
static ngx_int_t ngx_nango_deliver_header(struct curl_slist **list,
    const char *line);
static void ngx_nango_deliver_done(ngx_nango_transfer_t *t);
static void ngx_nango_deliver_look(ngx_nango_deliver_t *dl,
    ngx_nango_transfer_t *t);
static nango_sent_e ngx_nango_deliver_outcome(ngx_nango_transfer_t *t);
static void ngx_nango_deliver_told(ngx_nango_deliver_t *dl,
    ngx_nango_transfer_t *t, nango_sent_e sent);
static void ngx_nango_deliver_abandon(ngx_nango_deliver_t *dl);
static void ngx_nango_deliver_free(void *memory);
static void ngx_nango_deliver_leave_handler(ngx_event_t *ev);


static ngx_nango_deliver_t  *ngx_nango_delivers;
static ngx_uint_t            ngx_nango_ndelivers;
static ngx_connection_t     *ngx_nango_deliver_wake;
static ngx_event_t           ngx_nango_deliver_leave;
static ngx_uint_t            ngx_nango_deliver_leaves;
static ngx_msec_t            ngx_nango_deliver_leaving;     /* since */
static ngx_connection_t      ngx_nango_deliver_dummy;


ngx_int_t
ngx_nango_deliver_init(ngx_cycle_t *cycle,
    ngx_nango_subscriber_t **subscribers, ngx_uint_t n)
{
    ngx_uint_t            i;
    ngx_connection_t     *c;
    ngx_nango_deliver_t  *dl;

    if (n == 0) {
        return NGX_OK;
    }

    if (ngx_nango_courier_init(subscribers, n, cycle->log) != NGX_OK) {
        return NGX_ERROR;
    }

    ngx_nango_ndelivers = 0;

    ngx_nango_delivers = ngx_calloc(n * sizeof(ngx_nango_deliver_t),
                                    cycle->log);
    if (ngx_nango_delivers == NULL) {
        goto failed;
    }

    ngx_nango_deliver_dummy.fd = (ngx_socket_t) -1;
    ngx_nango_deliver_leaves = 0;

    for (i = 0; i < n; i++) {
        dl = &ngx_nango_delivers[i];

        dl->subscriber = subscribers[i];

        dl->queue = nango_queue_create(subscribers[i]->concurrency,
                                       subscribers[i]->max_age);
        if (dl->queue == NULL) {
            goto failed;
        }

        ngx_nango_ndelivers = i + 1;

        ngx_queue_init(&dl->flight);

        dl->timer.handler = ngx_nango_deliver_timer_handler;
        dl->timer.log = cycle->log;
        dl->timer.data = &ngx_nango_deliver_dummy;
        dl->timer.cancelable = 1;

        dl->posted.handler = ngx_nango_deliver_posted_handler;
        dl->posted.log = cycle->log;
        dl->posted.data = &ngx_nango_deliver_dummy;
    }

    c = ngx_get_connection(ngx_nango_courier_loop_fd(), cycle->log);
    if (c == NULL) {
        goto failed;
    }

    c->read->handler = ngx_nango_deliver_wake_handler;
    c->read->log = cycle->log;
    c->write->log = cycle->log;

    if (ngx_add_event(c->read, NGX_READ_EVENT, 0) != NGX_OK) {
        ngx_free_connection(c);
        c->fd = (ngx_socket_t) -1;
        goto failed;
    }

    ngx_nango_deliver_wake = c;

    ngx_nango_deliver_leave.handler = ngx_nango_deliver_leave_handler;
    ngx_nango_deliver_leave.log = cycle->log;
    ngx_nango_deliver_leave.data = &ngx_nango_deliver_dummy;
    ngx_nango_deliver_leave.cancelable = 1;

    ngx_add_timer(&ngx_nango_deliver_leave, NGX_NANGO_DELIVER_LOOK);

    return NGX_OK;

failed:

    ngx_nango_deliver_exit();

    return NGX_ERROR;
}


/* What is under way is given up: who leads next sends it again. */

void
ngx_nango_deliver_stop(void)
{
    ngx_uint_t            i;
    ngx_nango_deliver_t  *dl;

    for (i = 0; i < ngx_nango_ndelivers; i++) {
        dl = &ngx_nango_delivers[i];

        nango_queue_stop(dl->queue);

        if (dl->active) {
            ngx_nango_deliver_report(dl);
        }

        ngx_nango_deliver_abandon(dl);
    }
}


void
ngx_nango_deliver_exit(void)
{
    ngx_uint_t            i;
    ngx_connection_t     *c;
    ngx_nango_deliver_t  *dl;

    c = ngx_nango_deliver_wake;

    if (c) {
        (void) ngx_del_event(c->read, NGX_READ_EVENT, 0);

        if (c->read->posted) {
            ngx_delete_posted_event(c->read);
        }

        ngx_free_connection(c);
        c->fd = (ngx_socket_t) -1;

        ngx_nango_deliver_wake = NULL;
    }

    if (ngx_nango_deliver_leave.timer_set) {
        ngx_del_timer(&ngx_nango_deliver_leave);
    }

    for (i = 0; i < ngx_nango_ndelivers; i++) {
        dl = &ngx_nango_delivers[i];

        if (dl->timer.timer_set) {
            ngx_del_timer(&dl->timer);
        }

        if (dl->posted.posted) {
            ngx_delete_posted_event(&dl->posted);
        }

        nango_queue_free(dl->queue);
    }

    if (ngx_nango_delivers) {
        ngx_free(ngx_nango_delivers);
    }

    ngx_nango_delivers = NULL;
    ngx_nango_ndelivers = 0;

    ngx_nango_courier_exit();
}


static void
ngx_nango_deliver_wake_handler(ngx_event_t *ev)
{
    uint64_t              n;
    ngx_uint_t            i;
    ngx_connection_t     *c;

    c = ev->data;

    if (read(c->fd, &n, sizeof(n)) != sizeof(n)) {
        /* only a hint */
    }

    for (i = 0; i < ngx_nango_ndelivers; i++) {
        ngx_nango_deliver_receive(&ngx_nango_delivers[i], i);
    }
}


static void
ngx_nango_deliver_receive(ngx_nango_deliver_t *dl, ngx_uint_t i)
{
    int                   rc;
    ngx_uint_t            n;
    ngx_nango_message_t  *m;

    for (n = 0; (m = ngx_nango_courier_receive(i)) != NULL; n++) {

        if (m->begin || m->end) {
            ngx_nango_deliver_begin(dl, m);

        } else if (dl->active && m->epoch == dl->epoch) {

            rc = nango_queue_feed(dl->queue, m->number, m->deliveries,
                                  m->settled, m->nsettled, m->position);

            m->deliveries = NULL;

            if (rc != 0) {

                /* The report will say so. */

                ngx_log_error(NGX_LOG_ERR, ngx_cycle->log, 0,
                              "nango: no memory for what is to be delivered "
                              "to \"%V\"", &dl->subscriber->name);
            }

            if (m->parked != dl->parked) {
                dl->parked = m->parked;
                nango_queue_park(dl->queue, dl->parked);
            }
        }

        ngx_nango_courier_free(m);
    }

    if (n && dl->active) {
        ngx_nango_deliver_go_on(dl);
    }
}


static void
ngx_nango_deliver_begin(ngx_nango_deliver_t *dl, ngx_nango_message_t *m)
{
    if (dl->active) {
        ngx_nango_deliver_abandon(dl);
    }

    dl->epoch = m->epoch;
    dl->active = m->begin;
    dl->parked = m->parked;
    dl->expired = ngx_current_msec;

    nango_queue_reset(dl->queue, m->position);
    nango_queue_park(dl->queue, dl->parked);

    dl->down_since = 0;

    if (dl->active) {
        ngx_nango_delivery_in_flight(dl->subscriber->key, dl->nflight);
        ngx_nango_delivery_down(dl->subscriber->key, 0);
    }

    if (dl->timer.timer_set) {
        ngx_del_timer(&dl->timer);
    }
}


/* Sends what may be sent, and reports. */

static void
ngx_nango_deliver_go_on(ngx_nango_deliver_t *dl)
{
    uint64_t         wait;
    nango_queued_t  *e;

    for ( ;; ) {
        e = nango_queue_next(dl->queue, ngx_nango_now(), &wait);

        if (e == NULL) {
            break;
        }

        if (ngx_nango_deliver_send(dl, e) != NGX_OK) {
            nango_queue_done(dl->queue, e, NANGO_SENT_NOT, 0, 0,
                             ngx_nango_now(), ngx_random());
        }
    }

    ngx_nango_deliver_after(dl, wait);

    if (!dl->posted.posted) {
        ngx_post_event(&dl->posted, &ngx_posted_events);
    }
}


static void
ngx_nango_deliver_posted_handler(ngx_event_t *ev)
{
    ngx_nango_deliver_t  *dl;

    dl = (ngx_nango_deliver_t *)
             ((u_char *) ev - offsetof(ngx_nango_deliver_t, posted));

    if (dl->active) {
        ngx_nango_deliver_report(dl);
    }
}


static void
ngx_nango_deliver_timer_handler(ngx_event_t *ev)
{
    ngx_nango_deliver_t  *dl;

    dl = (ngx_nango_deliver_t *)
             ((u_char *) ev - offsetof(ngx_nango_deliver_t, timer));

    if (dl->active) {
        ngx_nango_deliver_go_on(dl);
    }
}


/* The timer is for the sooner of several reasons. */

static void
ngx_nango_deliver_after(ngx_nango_deliver_t *dl, uint64_t ms)
{
    if (ms == 0) {
        return;
    }

    ms = ngx_min(ms, NGX_NANGO_DELIVER_EXPIRE);

    if (dl->timer.timer_set) {

        if ((ngx_msec_int_t) (dl->timer.timer.key
                              - (ngx_current_msec + (ngx_msec_t) ms))
            <= 0)
        {
            return;
        }

        ngx_del_timer(&dl->timer);
    }

    ngx_add_timer(&dl->timer, (ngx_msec_t) ms);
}


static void
ngx_nango_deliver_report(ngx_nango_deliver_t *dl)
{
    size_t              room;
    uint64_t            wait;
    ngx_uint_t          rows, expire;
    nango_queue_stat_t  stat;

    nango_queue_stat(dl->queue, &stat);

    expire = 0;

    if (stat.down_since || stat.parked) {

        /* What it does not get in time is not to be kept for ever. */

        if (ngx_current_msec - dl->expired >= NGX_NANGO_DELIVER_EXPIRE) {
            dl->expired = ngx_current_msec;
            expire = 1;

            nango_queue_expire(dl->queue, ngx_nango_now());
        }

        ngx_nango_deliver_after(dl, NGX_NANGO_DELIVER_EXPIRE);
    }

    room = nango_queue_room(dl->queue);

    if (stat.down_since) {
        rows = (stat.queued == 0);

    } else {
        rows = stat.parked ? 0 : ngx_min(NGX_NANGO_DELIVER_LANES, room);
    }

    if (ngx_nango_courier_report(dl - ngx_nango_delivers, dl->epoch,
                                 dl->queue, room, rows, expire, &wait)
        != NGX_OK)
    {
        ngx_log_error(NGX_LOG_ERR, ngx_cycle->log, 0,
                      "nango: no memory for what was delivered to \"%V\"; "
                      "some of it will be delivered again",
                      &dl->subscriber->name);

        ngx_nango_courier_restart();
    }

    ngx_nango_deliver_after(dl, wait);
}


static ngx_int_t
ngx_nango_deliver_send(ngx_nango_deliver_t *dl, nango_queued_t *e)
{
    ngx_nango_sent_t        *sent;
    ngx_nango_transfer_t    *t;
    const nango_delivery_t  *d;

    d = nango_queued_delivery(e);

    sent = malloc(sizeof(ngx_nango_sent_t));
    t = ngx_nango_transfer_create();

    if (sent == NULL || t == NULL) {
        goto failed;
    }

    t->subscriber = dl->subscriber;
    t->method = "POST";
    t->handler = ngx_nango_deliver_done;
    t->data = sent;
    t->body_len = d->record.body_len;
    t->lines = ngx_nango_deliver_headers(dl->subscriber, d);

    if (t->lines == NULL) {
        goto failed;
    }

    if (d->record.body_file) {

        if (ngx_nango_body_read(t, d->record.body) != NGX_OK) {
            goto failed;
        }

    } else {
        t->lent = d->record.body.len ? d->record.body.data : (u_char *) "";
    }

    sent->deliver = dl;
    sent->event = e;
    sent->transfer = t;

    if (ngx_nango_transfer_start(t) != NGX_OK) {
        goto failed;
    }

    ngx_queue_insert_tail(&dl->flight, &sent->queue);
    dl->nflight++;

    ngx_nango_delivery_started(dl->subscriber->key, dl->nflight);

    return NGX_OK;

failed:

    if (t) {
        ngx_nango_transfer_free(t);
    }

    free(sent);

    return NGX_ERROR;
}


/*
 * NULL if there is no memory.  libcurl looks for a dozen names in each entry
 * of the list, and copies each; so nearly all is one entry of many lines, which
 * it sends as it is.  It has to find by itself what it would say otherwise:
 * Accept, and Content-Type, which comes first in that entry.
 */

static struct curl_slist *
ngx_nango_deliver_headers(ngx_nango_subscriber_t *sub,
    const nango_delivery_t *d)
{
    char               *lines;
    size_t              owner;
    u_char             *p;
    ngx_str_t          *header;
    ngx_int_t           rc;
    ngx_uint_t          i;
    struct curl_slist  *list;

    list = NULL;

    owner = ngx_nango_deliver_owner_len(d);

    lines = malloc(NGX_NANGO_DELIVER_LINES + d->record.headers.len
                   + d->record.environment.len + owner);
    if (lines == NULL) {
        return NULL;
    }

    p = ngx_nango_deliver_kept(&list, sub, d, (u_char *) lines);

    if (p != NULL) {
        p = ngx_nango_deliver_edge(d, p);
        p = ngx_nango_deliver_owner(d, owner, p);

        /* The last line's end is libcurl's. */

        p[-2] = '\0';
    }

    rc = (p != NULL) ? ngx_nango_deliver_header(&list, lines) : NGX_ERROR;

    free(lines);

    if (rc != NGX_OK
        || (d->record.body_len >= NGX_NANGO_DELIVER_EXPECT
            && ngx_nango_deliver_header(&list, "Expect:") != NGX_OK))
    {
        goto failed;
    }

    if (sub->headers) {
        header = sub->headers->elts;

        for (i = 0; i < sub->headers->nelts; i++) {

            if (ngx_nango_deliver_header(&list, (char *) header[i].data)
                != NGX_OK)
            {
                goto failed;
            }
        }
    }

    return list;

failed:

    curl_slist_free_all(list);

    return NULL;
}


/* As they came with the event.  Returns the end of lines, or NULL. */

static u_char *
ngx_nango_deliver_kept(struct curl_slist **list, ngx_nango_subscriber_t *sub,
    const nango_delivery_t *d, u_char *lines)
{
    u_char      *p, *last, *end, *type;
    ngx_uint_t   agent;

    type = NULL;
    agent = 0;

    p = (u_char *) d->record.headers.data;
    last = p + d->record.headers.len;

    while (p < last) {
        end = ngx_strlchr(p, last, CR);

        if (end == NULL) {
            break;
        }

        if (end - p >= 13
            && ngx_strncasecmp(p, (u_char *) "Content-Type:", 13) == 0
            && !ngx_nango_deliver_ours(sub, p, 12))
        {
            type = p;
            lines = ngx_nango_deliver_line(lines, p, end - p);
            break;
        }

        p = end + 2;
    }

    /* libcurl would say that it is a form. */

    if (type == NULL
        && !ngx_nango_deliver_ours(sub, (u_char *) "Content-Type", 12)
        && ngx_nango_deliver_header(list, "Content-Type:") != NGX_OK)
    {
        return NULL;
    }

    p = (u_char *) d->record.headers.data;

    while (p < last) {
        end = ngx_strlchr(p, last, CR);

        if (end == NULL) {
            break;
        }

        if (p == type) {
            p = end + 2;
            continue;
        }

        if (end - p >= 11
            && ngx_strncasecmp(p, (u_char *) "User-Agent:", 11) == 0)
        {
            agent = 1;
        }

        lines = ngx_nango_deliver_kept_line(list, sub, p, end - p, lines);

        if (lines == NULL) {
            return NULL;
        }

        p = end + 2;
    }

    if (!agent) {
        lines = ngx_cpymem(lines, "User-Agent: nginx-nango/" NGX_NANGO_VERSION
                                  CRLF,
                           sizeof("User-Agent: nginx-nango/" NGX_NANGO_VERSION
                                  CRLF) - 1);
    }

    return lines;
}


static u_char *
ngx_nango_deliver_kept_line(struct curl_slist **list,
    ngx_nango_subscriber_t *sub, u_char *line, size_t len, u_char *lines)
{
    u_char  *colon, *p;

    colon = ngx_strlchr(line, line + len, ':');

    if (colon == NULL || colon == line
        || ngx_nango_deliver_ours(sub, line, colon - line))
    {
        return lines;
    }

    p = ngx_nango_deliver_line(lines, line, len);

    if (colon - line != 6 || ngx_strncasecmp(line, (u_char *) "Accept", 6) != 0)
    {
        return p;
    }

    /* As an entry; without a value it would mean that there is to be none. */

    p[-2] = '\0';

    for (colon++; colon < line + len && *colon == ' '; colon++) {
        /* void */
    }

    if (colon == line + len) {
        (void) ngx_cpystrn(lines + 6, (u_char *) ";", 2);
    }

    return ngx_nango_deliver_header(list, (char *) lines) == NGX_OK ? lines
                                                                    : NULL;
}


static u_char *
ngx_nango_deliver_line(u_char *dst, u_char *line, size_t len)
{
    dst = ngx_cpymem(dst, line, len);

    *dst++ = CR;
    *dst++ = LF;

    return dst;
}


/*
 * Whether the header is one that we say ourselves, that belongs to the
 * connection it came by, or that the configuration gives.
 */

static ngx_uint_t
ngx_nango_deliver_ours(ngx_nango_subscriber_t *sub, u_char *name, size_t len)
{
    ngx_str_t   *header;
    ngx_uint_t   i;

    static ngx_str_t  ours[] = {
        ngx_string("Accept-Encoding"),
        ngx_string("Connection"),
        ngx_string("Content-Length"),
        ngx_string("Expect"),
        ngx_string("Host"),
        ngx_string("Keep-Alive"),
        ngx_string("Proxy-Authorization"),
        ngx_string("Proxy-Connection"),
        ngx_string("TE"),
        ngx_string("Trailer"),
        ngx_string("Transfer-Encoding"),
        ngx_string("Upgrade")
    };

    static ngx_str_t  edge = ngx_string("X-Nango-Edge-");

    if (len >= edge.len && ngx_nango_deliver_same(name, edge.data, edge.len)) {
        return 1;
    }

    for (i = 0; i < sizeof(ours) / sizeof(ours[0]); i++) {

        if (len == ours[i].len
            && ngx_nango_deliver_same(name, ours[i].data, len))
        {
            return 1;
        }
    }

    if (sub->headers == NULL) {
        return 0;
    }

    header = sub->headers->elts;

    for (i = 0; i < sub->headers->nelts; i++) {

        if (header[i].len > len && header[i].data[len] == ':'
            && ngx_nango_deliver_same(name, header[i].data, len))
        {
            return 1;
        }
    }

    return 0;
}


/* Backends that make variables of headers do not tell "_" from "-". */

static ngx_uint_t
ngx_nango_deliver_same(u_char *name, u_char *ours, size_t len)
{
    size_t  i;
    u_char  c, d;

    for (i = 0; i < len; i++) {
        c = (name[i] == '_') ? '-' : ngx_tolower(name[i]);
        d = (ours[i] == '_') ? '-' : ngx_tolower(ours[i]);

        if (c != d) {
            return 0;
        }
    }

    return 1;
}


/* Into NGX_NANGO_DELIVER_LINES bytes and the environment's name. */

static u_char *
ngx_nango_deliver_edge(const nango_delivery_t *d, u_char *p)
{
    ngx_tm_t   tm;
    ngx_str_t  environment;

    static const char  *sources[] = { "nango", "repair", "edge" };

    ngx_gmtime((time_t) (d->record.received_at / 1000), &tm);

    environment.data = (u_char *) d->record.environment.data;
    environment.len = d->record.environment.len;

    return ngx_sprintf(p, "X-Nango-Edge-Sequence: %uL" CRLF
                          "X-Nango-Edge-Attempt: %uD" CRLF
                          "X-Nango-Edge-Received-At: "
                          "%4d-%02d-%02dT%02d:%02d:%02d.%03uLZ" CRLF
                          "X-Nango-Edge-Environment: %V" CRLF
                          "X-Nango-Edge-Source: %s" CRLF,
                       d->sequence, d->attempts + 1,
                       tm.ngx_tm_year, tm.ngx_tm_mon, tm.ngx_tm_mday,
                       tm.ngx_tm_hour, tm.ngx_tm_min, tm.ngx_tm_sec,
                       d->record.received_at % 1000, &environment,
                       sources[ngx_min(d->record.source, 2)]);
}


/* The value's; 0: there is to be no such header. */

static size_t
ngx_nango_deliver_owner_len(const nango_delivery_t *d)
{
    size_t  len;

    if (d->nowner == 0) {
        return 0;
    }

    len = nango_tags_header(d->owner, d->nowner, NULL);

    if (len > NGX_NANGO_DELIVER_OWNER) {
        ngx_log_error(NGX_LOG_WARN, ngx_cycle->log, 0,
                      "nango: the owner of event %uL is too long for a "
                      "header", d->sequence);
        return 0;
    }

    return len;
}


static u_char *
ngx_nango_deliver_owner(const nango_delivery_t *d, size_t len, u_char *p)
{
    static const char  prefix[] = "X-Nango-Edge-Owner: ";

    if (len == 0) {
        return p;
    }

    p = ngx_cpymem(p, prefix, sizeof(prefix) - 1);

    (void) nango_tags_header(d->owner, d->nowner, (char *) p);
    p += len;

    *p++ = CR;
    *p++ = LF;

    return p;
}


static ngx_int_t
ngx_nango_deliver_header(struct curl_slist **list, const char *line)
{
    struct curl_slist  *longer;

    longer = curl_slist_append(*list, line);

    if (longer == NULL) {
        return NGX_ERROR;
    }

    *list = longer;

    return NGX_OK;
}


static void
ngx_nango_deliver_done(ngx_nango_transfer_t *t)
{
    uint64_t              retry_after;
    nango_sent_e          outcome;
    ngx_nango_sent_t     *sent;
    ngx_nango_deliver_t  *dl;

    sent = t->data;
    dl = sent->deliver;

    ngx_queue_remove(&sent->queue);
    dl->nflight--;

    outcome = ngx_nango_deliver_outcome(t);
    retry_after = (t->retry_after > 0)
                  ? (uint64_t) ngx_min(t->retry_after,
                                       NANGO_QUEUE_RETRY_MAX / 1000) * 1000
                  : 0;

    ngx_nango_deliver_told(dl, t, outcome);

    nango_queue_done(dl->queue, sent->event, outcome,
                     t->outcome == NGX_NANGO_TRANSFER_DONE
                     ? (unsigned) t->status : 0,
                     retry_after, ngx_nango_now(), ngx_random());

    free(sent);

    if (dl->active) {
        ngx_nango_deliver_look(dl, t);
        ngx_nango_deliver_go_on(dl);
    }
}


/* Whether it is down now, or up again. */

static void
ngx_nango_deliver_look(ngx_nango_deliver_t *dl, ngx_nango_transfer_t *t)
{
    nango_queue_stat_t  stat;

    nango_queue_stat(dl->queue, &stat);

    if ((stat.down_since != 0) == (dl->down_since != 0)) {
        return;
    }

    dl->down_since = stat.down_since;

    ngx_nango_delivery_down(dl->subscriber->key, dl->down_since);

    if (dl->down_since) {
        ngx_log_error(NGX_LOG_ERR, ngx_cycle->log, 0,
                      "nango: \"%V\" of environment \"%V\" does not take "
                      "events (%s, status %ui): it gets one at a time until "
                      "it does", &dl->subscriber->name,
                      &dl->subscriber->environment->name,
                      t->outcome == NGX_NANGO_TRANSFER_DONE ? "answered"
                                                            : t->error,
                      t->status);
        return;
    }

    ngx_log_error(NGX_LOG_NOTICE, ngx_cycle->log, 0,
                  "nango: \"%V\" of environment \"%V\" takes events again",
                  &dl->subscriber->name, &dl->subscriber->environment->name);
}


static nango_sent_e
ngx_nango_deliver_outcome(ngx_nango_transfer_t *t)
{
    if (t->ours) {
        return NANGO_SENT_NOT;
    }

    if (t->unreached) {
        return NANGO_SENT_UNREACHED;
    }

    if (t->outcome != NGX_NANGO_TRANSFER_DONE) {

        /* An answer whose body nobody reads is an answer, however long. */

        return (t->headers && t->outcome == NGX_NANGO_TRANSFER_MALFORMED
                && t->status >= 200 && t->status < 300)
               ? NANGO_SENT_OK : NANGO_SENT_FAILED;
    }

    if (t->status >= 200 && t->status < 300) {
        return NANGO_SENT_OK;
    }

    return (t->status == 410) ? NANGO_SENT_GONE : NANGO_SENT_FAILED;
}


/* To those who look at how it goes. */

static void
ngx_nango_deliver_told(ngx_nango_deliver_t *dl, ngx_nango_transfer_t *t,
    nango_sent_e sent)
{
    ngx_uint_t                  status;
    ngx_nango_delivery_error_e  error;

    status = 0;

    if (sent == NANGO_SENT_OK) {
        error = NGX_NANGO_DELIVERY_NONE;

    } else if (t->outcome == NGX_NANGO_TRANSFER_DONE) {
        error = NGX_NANGO_DELIVERY_STATUS;
        status = t->status;

    } else if (sent == NANGO_SENT_NOT) {
        error = NGX_NANGO_DELIVERY_LOCAL;

    } else {
        error = t->failure;
    }

    ngx_nango_delivery_ended(dl->subscriber->key, dl->nflight, error, status);

    if (sent == NANGO_SENT_GONE) {
        ngx_log_error(NGX_LOG_ERR, ngx_cycle->log, 0,
                      "nango: \"%V\" of environment \"%V\" answered 410: "
                      "nothing more is delivered to it until it is resumed "
                      "by hand", &dl->subscriber->name,
                      &dl->subscriber->environment->name);
    }
}


static void
ngx_nango_deliver_abandon(ngx_nango_deliver_t *dl)
{
    ngx_queue_t       *q;
    nango_delivery_t  *d;
    ngx_nango_sent_t  *sent;

    while (!ngx_queue_empty(&dl->flight)) {
        q = ngx_queue_head(&dl->flight);
        sent = ngx_queue_data(q, ngx_nango_sent_t, queue);

        ngx_queue_remove(q);
        dl->nflight--;

        d = nango_queue_orphan(dl->queue, sent->event);

        if (sent->transfer->lent) {

            /* It lives as long as libcurl sends it. */

            sent->transfer->memory = d;
            sent->transfer->memory_free = ngx_nango_deliver_free;

        } else {
            nango_delivery_free(d);
        }

        ngx_nango_transfer_abandon(sent->transfer);

        free(sent);
    }

    ngx_nango_delivery_in_flight(dl->subscriber->key, 0);
}


static void
ngx_nango_deliver_free(void *memory)
{
    nango_delivery_free(memory);
}


/* With what is in flight gone, others may lead. */

static void
ngx_nango_deliver_leave_handler(ngx_event_t *ev)
{
    ngx_uint_t            i, flight;
    ngx_nango_deliver_t  *dl;

    if (!ngx_exiting) {
        ngx_add_timer(ev, NGX_NANGO_DELIVER_LOOK);
        return;
    }

    if (!ngx_nango_deliver_leaves) {
        ngx_nango_deliver_leaves = 1;
        ngx_nango_deliver_leaving = ngx_current_msec;

        for (i = 0; i < ngx_nango_ndelivers; i++) {
            nango_queue_stop(ngx_nango_delivers[i].queue);
        }
    }

    flight = 0;

    for (i = 0; i < ngx_nango_ndelivers; i++) {
        flight += ngx_nango_delivers[i].nflight;
    }

    if (flight && ngx_current_msec - ngx_nango_deliver_leaving
                  < NGX_NANGO_DELIVER_GRACE)
    {
        ngx_add_timer(ev, NGX_NANGO_DELIVER_LOOK / 5);
        return;
    }

    for (i = 0; i < ngx_nango_ndelivers; i++) {
        dl = &ngx_nango_delivers[i];

        if (dl->active) {
            ngx_nango_deliver_report(dl);
            ngx_nango_deliver_abandon(dl);

            dl->active = 0;
        }
    }

    ngx_nango_courier_leave();
}
