/*
 * Copyright (C) nginx-nango authors
 *
 * Reading the log for nango_events.  What is not new may have to come from the
 * disk, so that is done on a thread of nginx's pool, with a reader of the
 * task's own.  A snapshot is held for some thousand events at most, and a task
 * goes through a bounded number of them: an owner of few events in a log of
 * millions does not hold the thread, which others wait for.
 */

#include "ngx_http_nango_events.h"
#include "ngx_http_nango_thread.h"


/* In one snapshot. */
#define NGX_HTTP_NANGO_EVENTS_STEP   4096
#define NGX_HTTP_NANGO_EVENTS_BYTES  (16 * 1024 * 1024)

/* Snapshots in one task. */
#define NGX_HTTP_NANGO_EVENTS_STEPS  16


static void ngx_http_nango_events_thread(void *data, ngx_log_t *log);
static ngx_int_t ngx_http_nango_events_step(ngx_http_nango_events_t *ev,
    nango_reader_t *reader);
static int ngx_http_nango_events_visit(void *data,
    const nango_logged_t *event);
static void ngx_http_nango_events_thread_done(ngx_event_t *event);
static void ngx_http_nango_events_free(void *data);


typedef struct {
    ngx_http_nango_events_t  *events;
    void                    (*done)(ngx_http_nango_events_t *ev);
    nango_error_t             error;
} ngx_http_nango_events_task_t;


ngx_int_t
ngx_http_nango_events_prepare(ngx_http_nango_events_t *ev)
{
    ngx_pool_t                    *pool;
    ngx_pool_cleanup_t            *cln;
    ngx_http_nango_events_task_t  *t;

    pool = ev->request->pool;

    ev->task = ngx_thread_task_alloc(pool,
                                     sizeof(ngx_http_nango_events_task_t));
    cln = ngx_pool_cleanup_add(pool, 0);

    if (ev->task == NULL || cln == NULL) {
        return NGX_ERROR;
    }

    cln->handler = ngx_http_nango_events_free;
    cln->data = ev;

    t = ev->task->ctx;
    t->events = ev;

    ev->error = &t->error;
    ev->store = ngx_nango_store();

    return NGX_OK;
}


/* Not earlier: what is being sent may be part of the text. */

static void
ngx_http_nango_events_free(void *data)
{
    ngx_http_nango_events_t *ev = data;

    nango_text_free(&ev->text);
}


ngx_int_t
ngx_http_nango_events_read(ngx_http_nango_events_t *ev,
    void (*done)(ngx_http_nango_events_t *ev))
{
    return ngx_http_nango_events_task(ev, ngx_http_nango_events_thread, done);
}


ngx_int_t
ngx_http_nango_events_task(ngx_http_nango_events_t *ev,
    void (*handler)(void *data, ngx_log_t *log),
    void (*done)(ngx_http_nango_events_t *ev))
{
    ngx_http_nango_events_task_t  *t;

    t = ev->task->ctx;
    t->done = done;

    ev->task->handler = handler;
    ev->task->event.data = t;
    ev->task->event.handler = ngx_http_nango_events_thread_done;

    if (ngx_http_nango_thread_post(ev->request, ev->task) != NGX_OK) {
        return NGX_ERROR;
    }

    ev->working = 1;

    return NGX_OK;
}


static void
ngx_http_nango_events_thread_done(ngx_event_t *event)
{
    ngx_http_request_t            *r;
    ngx_http_nango_events_t       *ev;
    ngx_http_nango_events_task_t  *t;

    t = event->data;
    ev = t->events;
    r = ev->request;

    if (ngx_http_nango_thread_done(r, event) != NGX_OK) {
        return;
    }

    ev->working = 0;

    if (ev->rc == NGX_BUSY && ev->error->code != NANGO_EBUSY) {
        ngx_nango_store_unreadable(ev->error);
    }

    if (ev->gone) {
        ngx_http_nango_thread_gone(r);
        return;
    }

    t->done(ev);
}


static void
ngx_http_nango_events_thread(void *data, ngx_log_t *log)
{
    ngx_uint_t                     i;
    nango_reader_t                *reader;
    ngx_http_nango_events_t       *ev;
    ngx_http_nango_events_task_t  *t = data;

    ev = t->events;

    ev->rc = NGX_ERROR;
    ev->more = 0;
    ev->full = 0;

    reader = nango_reader_create(ev->store);
    if (reader == NULL) {
        return;
    }

    for (i = 0; i < NGX_HTTP_NANGO_EVENTS_STEPS; i++) {

        if (nango_reader_begin(reader, ev->error) != NANGO_OK) {
            ev->rc = NGX_BUSY;
            break;
        }

        ev->rc = ngx_http_nango_events_step(ev, reader);

        nango_reader_end(reader);

        if (ev->rc != NGX_OK || !ev->more || ev->full) {
            break;
        }
    }

    nango_reader_free(reader);

    if (ev->rc == NGX_OK && ev->text.failed) {
        ev->rc = NGX_ERROR;
    }
}


static ngx_int_t
ngx_http_nango_events_step(ngx_http_nango_events_t *ev, nango_reader_t *reader)
{
    int       rc;
    uint64_t  first, last;

    if (nango_reader_first(reader, ev->wanted.environment, &first, ev->error)
        != 0)
    {
        return NGX_BUSY;
    }

    last = ngx_max(nango_reader_last(reader), nango_reader_applied(reader));

    if (ev->oldest) {
        ev->position = first - 1;
        ev->oldest = 0;
    }

    if (ev->position + 1 < first) {
        return NGX_DECLINED;
    }

    if (ev->position > last) {
        return NGX_ABORT;
    }

    ev->wanted.max_events = NGX_HTTP_NANGO_EVENTS_STEP;
    ev->wanted.max_bytes = NGX_HTTP_NANGO_EVENTS_BYTES;

    rc = nango_reader_events(reader, &ev->wanted, &ev->position,
                             ngx_http_nango_events_visit, ev, ev->error);

    ev->more = (rc == 1);

    return (rc == -1) ? NGX_BUSY : NGX_OK;
}


static int
ngx_http_nango_events_visit(void *data, const nango_logged_t *event)
{
    ngx_http_nango_events_t *ev = data;

    unsigned       show;
    nango_text_t  *text;

    text = &ev->text;
    show = ev->show;

    if (ev->n && text->len >= ev->max_text) {
        ev->full = 1;
        return 2;
    }

    if (ev->streaming) {
        show |= NANGO_SHOW_LINES;
        nango_show_lines(text, nango_store_id(ev->store), event);

    } else if (ev->n) {
        nango_text_string(text, ",");
    }

    nango_show_head(text, event, show);

    if (ev->owner.data) {
        nango_text_add(text, ev->owner);

    } else {
        nango_show_owner(text,
                         event->connection ? event->connection->tags : NULL,
                         event->connection ? event->connection->ntags : 0);
    }

    nango_show_body(text, event->record, show);

    if (ev->streaming) {
        nango_text_string(text, "\n\n");
    }

    ev->n++;

    if (ev->n == ev->limit || text->failed) {
        ev->full = 1;
        return 1;
    }

    return 0;
}
