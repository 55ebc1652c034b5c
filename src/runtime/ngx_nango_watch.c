/*
 * Copyright (C) nginx-nango authors
 *
 * See ngx_nango_watch.h.  Watches are in buckets by their key.  What is to be
 * woken is woken in portions, one in each turn of the loop, so that an owner
 * with thousands of waiting pages does not hold up everybody else.
 */

#include "ngx_nango_watch.h"
#include "ngx_nango_shared.h"


#define NGX_NANGO_WATCH_BUCKETS  1024
#define NGX_NANGO_WATCH_LOOK     10
#define NGX_NANGO_WATCH_PORTION  128


static void ngx_nango_watch_look(ngx_event_t *ev);
static void ngx_nango_watch_visit(void *data,
    const unsigned char key[NANGO_KEY_LEN]);
static void ngx_nango_watch_all(void);
static void ngx_nango_watch_wake(ngx_event_t *ev);
static ngx_queue_t *ngx_nango_watch_bucket(const u_char *key);


static ngx_queue_t       ngx_nango_watches[NGX_NANGO_WATCH_BUCKETS];
static ngx_queue_t       ngx_nango_watch_ready;
static ngx_uint_t        ngx_nango_watch_n;
static uint64_t          ngx_nango_watch_seen;

static ngx_event_t       ngx_nango_watch_timer;
static ngx_event_t       ngx_nango_watch_posted;
static ngx_connection_t  ngx_nango_watch_dummy;


void
ngx_nango_watch(ngx_nango_watch_t *watch, uint64_t sequence)
{
    ngx_uint_t  i;

    if (ngx_nango_watch_timer.handler == NULL) {

        for (i = 0; i < NGX_NANGO_WATCH_BUCKETS; i++) {
            ngx_queue_init(&ngx_nango_watches[i]);
        }

        ngx_queue_init(&ngx_nango_watch_ready);

        ngx_nango_watch_dummy.fd = (ngx_socket_t) -1;

        ngx_nango_watch_timer.handler = ngx_nango_watch_look;
        ngx_nango_watch_timer.log = ngx_cycle->log;
        ngx_nango_watch_timer.data = &ngx_nango_watch_dummy;

        ngx_nango_watch_posted.handler = ngx_nango_watch_wake;
        ngx_nango_watch_posted.log = ngx_cycle->log;
        ngx_nango_watch_posted.data = &ngx_nango_watch_dummy;
    }

    if (ngx_nango_watch_n++ == 0 || sequence < ngx_nango_watch_seen) {
        ngx_nango_watch_seen = sequence;
    }

    ngx_queue_insert_tail(ngx_nango_watch_bucket(watch->key), &watch->queue);

    if (!ngx_nango_watch_timer.timer_set) {
        ngx_add_timer(&ngx_nango_watch_timer, NGX_NANGO_WATCH_LOOK);
    }
}


void
ngx_nango_watch_cancel(ngx_nango_watch_t *watch)
{
    ngx_queue_remove(&watch->queue);

    if (--ngx_nango_watch_n == 0 && ngx_nango_watch_timer.timer_set) {
        ngx_del_timer(&ngx_nango_watch_timer);
    }
}


static void
ngx_nango_watch_look(ngx_event_t *ev)
{
    int              rc;
    uint64_t         applied;
    nango_error_t    err;
    nango_reader_t  *reader;

    if (ngx_exiting || ngx_terminate || ngx_quit) {
        ngx_nango_watch_all();

    } else {
        ngx_nango_watch_fold();

        reader = ngx_nango_store_snapshot();

        if (reader) {
            applied = nango_reader_applied(reader);

            if (applied != ngx_nango_watch_seen) {

                rc = nango_reader_changes(reader, ngx_nango_watch_seen,
                                          ngx_nango_watch_visit, NULL, &err);

                /* Nobody knows: everybody looks. */

                if (rc != 1 || applied < ngx_nango_watch_seen) {
                    ngx_nango_watch_all();
                }

                ngx_nango_watch_seen = applied;
            }

            nango_reader_end(reader);
        }
    }

    if (!ngx_queue_empty(&ngx_nango_watch_ready)
        && !ngx_nango_watch_posted.posted)
    {
        ngx_post_event(&ngx_nango_watch_posted, &ngx_posted_events);
    }

    if (ngx_nango_watch_n) {
        ngx_add_timer(ev, NGX_NANGO_WATCH_LOOK);
    }
}


static void
ngx_nango_watch_visit(void *data, const unsigned char key[NANGO_KEY_LEN])
{
    ngx_queue_t        *q, *bucket;
    ngx_nango_watch_t  *watch;

    bucket = ngx_nango_watch_bucket(key);

    q = ngx_queue_head(bucket);

    while (q != ngx_queue_sentinel(bucket)) {
        watch = ngx_queue_data(q, ngx_nango_watch_t, queue);
        q = ngx_queue_next(q);

        if (ngx_memcmp(watch->key, key, NANGO_KEY_LEN) == 0) {
            ngx_queue_remove(&watch->queue);
            ngx_queue_insert_tail(&ngx_nango_watch_ready, &watch->queue);
        }
    }
}


static void
ngx_nango_watch_all(void)
{
    ngx_uint_t   i;
    ngx_queue_t  *bucket;

    for (i = 0; i < NGX_NANGO_WATCH_BUCKETS; i++) {
        bucket = &ngx_nango_watches[i];

        if (!ngx_queue_empty(bucket)) {
            ngx_queue_add(&ngx_nango_watch_ready, bucket);
            ngx_queue_init(bucket);
        }
    }
}


static void
ngx_nango_watch_wake(ngx_event_t *ev)
{
    ngx_uint_t          n;
    ngx_queue_t        *q;
    ngx_nango_watch_t  *watch;

    for (n = 0; n < NGX_NANGO_WATCH_PORTION; n++) {

        if (ngx_queue_empty(&ngx_nango_watch_ready)) {
            return;
        }

        q = ngx_queue_head(&ngx_nango_watch_ready);
        watch = ngx_queue_data(q, ngx_nango_watch_t, queue);

        ngx_nango_watch_cancel(watch);

        watch->handler(watch);
    }

    if (!ngx_queue_empty(&ngx_nango_watch_ready)) {
        ngx_post_event(ev, &ngx_posted_next_events);
    }
}


static ngx_queue_t *
ngx_nango_watch_bucket(const u_char *key)
{
    ngx_uint_t  n;

    n = (key[0] | key[1] << 8) % NGX_NANGO_WATCH_BUCKETS;

    return &ngx_nango_watches[n];
}
