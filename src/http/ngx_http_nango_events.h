/*
 * Copyright (C) nginx-nango authors
 *
 * The parts of nango_events: pages, the reading of the log on a thread, event
 * streams, and single bodies.
 */

#ifndef _NGX_HTTP_NANGO_EVENTS_H_INCLUDED_
#define _NGX_HTTP_NANGO_EVENTS_H_INCLUDED_


#include "ngx_http_nango.h"
#include "ngx_http_nango_look.h"
#include "ngx_nango_tail.h"

#include "nango_query.h"


typedef struct ngx_http_nango_events_s  ngx_http_nango_events_t;

struct ngx_http_nango_events_s {
    ngx_http_request_t        *request;
    ngx_http_nango_look_t      look;
    ngx_array_t                owners;      /* nango_tag_t */
    nango_events_query_t       query;
    ngx_nango_tail_t           tail;
    ngx_event_t                timer;
    void                      *state;       /* a stream's */

    uint64_t                   applied;     /* when it was asked */

    /* Read by the thread too, and so no neighbour of what changes meanwhile. */
    ngx_uint_t                 streaming;

    unsigned                   joined:1;    /* the tail */
    unsigned                   waiting:1;   /* there is time left for it */
    unsigned                   working:1;   /* a thread is */
    unsigned                   gone:1;      /* the client is */

    ngx_msec_t                 started;
    uint64_t                   stuck;

    /* The thread's while it works. */
    ngx_thread_task_t         *task;
    nango_store_t             *store;
    nango_wanted_t             wanted;
    nango_str_t                owner;       /* shown; absent: each one's own */
    ngx_uint_t                 show;
    uint64_t                   position;    /* in and out */
    ngx_uint_t                 limit;
    size_t                     max_text;
    unsigned                   oldest:1;    /* from there, wherever it is */

    /*
     * What came of it.  NGX_OK; NGX_DECLINED: position is older than the
     * oldest event; NGX_ABORT: or newer than the newest; NGX_BUSY: the store
     * cannot be read, *error says why; NGX_ERROR: no memory.
     */
    ngx_int_t                  rc;
    nango_text_t               text;
    ngx_uint_t                 n;           /* events in it */
    unsigned                   more:1;
    unsigned                   full:1;
    nango_error_t             *error;
};


/* Prepared in the request's pool, whose end is theirs.  NGX_OK, NGX_ERROR. */
ngx_int_t ngx_http_nango_events_prepare(ngx_http_nango_events_t *ev);

/*
 * Appends what is wanted after position to text: elements of a page's array,
 * or blocks of an event stream.  done is called on the loop, unless the client
 * has left.  NGX_ERROR: there is no room in the thread pool's queue.
 */
ngx_int_t ngx_http_nango_events_read(ngx_http_nango_events_t *ev,
    void (*done)(ngx_http_nango_events_t *ev));

/* Another task for the thread, in its place. */
ngx_int_t ngx_http_nango_events_task(ngx_http_nango_events_t *ev,
    void (*handler)(void *data, ngx_log_t *log),
    void (*done)(ngx_http_nango_events_t *ev));

/* The answer to an rc that is not NGX_OK. */
ngx_int_t ngx_http_nango_events_refuse(ngx_http_nango_events_t *ev);

/* Both begin after the look, and return what its then() does. */
ngx_int_t ngx_http_nango_events_stream(ngx_http_nango_events_t *ev);
ngx_int_t ngx_http_nango_events_body(ngx_http_nango_events_t *ev);

/* Joins the tail, once, at ev->position. */
void ngx_http_nango_events_join(ngx_http_nango_events_t *ev,
    void (*handler)(ngx_nango_tail_t *tail));

/*
 * Leaves the tail and stops the timer: the answer is complete, though it may
 * be on its way for a while.  The second one does that and finalizes.
 */
void ngx_http_nango_events_leave(ngx_http_nango_events_t *ev);
void ngx_http_nango_events_finish(ngx_http_nango_events_t *ev, ngx_int_t rc);

/*
 * Whether the log has been read to its end for the second time without getting
 * to where the tail is: the state is being made anew.
 */
ngx_uint_t ngx_http_nango_events_stuck(ngx_http_nango_events_t *ev);


#endif /* _NGX_HTTP_NANGO_EVENTS_H_INCLUDED_ */
