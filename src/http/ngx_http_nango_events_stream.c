/*
 * Copyright (C) nginx-nango authors
 *
 * Server-sent events for nango_events.  A stream is at one of three things: it
 * sends a chunk, or waits for a thread that reads the log, or for the tail.
 * The next chunk is made when the one before it has left for the socket
 * entirely, so a client that does not read costs one chunk, and comes back to
 * the log once the tail's ring has gone on without it.
 *
 * Everything that is sent names a position: the beginning and the comments
 * that keep an idle connection open do too, so that a client which comes back
 * continues where it was, whatever it has seen by then.
 */

#include "ngx_http_nango_events.h"


/* Events of the tail's in a chunk, and the buffers of one. */
#define NGX_HTTP_NANGO_STREAM_EVENTS  8
#define NGX_HTTP_NANGO_STREAM_PIECES  3
#define NGX_HTTP_NANGO_STREAM_CHUNK   (64 * 1024)

#define NGX_HTTP_NANGO_STREAM_PING    15000

/* When clients come again, in ms: from there on, within so many more. */
#define NGX_HTTP_NANGO_STREAM_RETRY   1000
#define NGX_HTTP_NANGO_STREAM_SPREAD  2000

/* ":\nid: LOG:SEQUENCE\nretry: 3000\n\n" */
#define NGX_HTTP_NANGO_STREAM_LINE                                            \
    (2 * NANGO_STORE_ID_LEN + NGX_INT64_LEN + 32)


typedef struct {
    ngx_buf_t                bufs[NGX_HTTP_NANGO_STREAM_EVENTS
                                  * NGX_HTTP_NANGO_STREAM_PIECES];
    ngx_chain_t              links[NGX_HTTP_NANGO_STREAM_EVENTS
                                   * NGX_HTTP_NANGO_STREAM_PIECES];
    ngx_uint_t               npieces;

    /* In what is being sent. */
    ngx_nango_tail_event_t  *events[NGX_HTTP_NANGO_STREAM_EVENTS];
    ngx_uint_t               nevents;

    u_char                   line[NGX_HTTP_NANGO_STREAM_LINE];

    unsigned                 sending:1;
    unsigned                 late:1;        /* a ping, for a thread works */
} ngx_http_nango_stream_t;


static ngx_int_t ngx_http_nango_stream_begin(ngx_http_nango_events_t *ev);
static void ngx_http_nango_stream_first(ngx_http_nango_events_t *ev);
static void ngx_http_nango_stream_comment(ngx_http_nango_events_t *ev);
static void ngx_http_nango_stream_line(ngx_http_nango_events_t *ev,
    const char *fmt, ngx_uint_t retry);
static void ngx_http_nango_stream_go(ngx_http_nango_events_t *ev);
static ngx_int_t ngx_http_nango_stream_next(ngx_http_nango_events_t *ev);
static ngx_int_t ngx_http_nango_stream_chunk(ngx_http_nango_events_t *ev);
static ngx_int_t ngx_http_nango_stream_event(ngx_http_nango_events_t *ev,
    ngx_nango_tail_event_t *event, size_t *size);
static void ngx_http_nango_stream_piece(ngx_http_nango_events_t *ev,
    nango_str_t s);
static ngx_int_t ngx_http_nango_stream_read(ngx_http_nango_events_t *ev);
static void ngx_http_nango_stream_read_done(ngx_http_nango_events_t *ev);
static ngx_int_t ngx_http_nango_stream_send(ngx_http_nango_events_t *ev);
static ngx_int_t ngx_http_nango_stream_sent(ngx_http_nango_events_t *ev);
static void ngx_http_nango_stream_writer(ngx_http_request_t *r);
static void ngx_http_nango_stream_wake(ngx_nango_tail_t *tail);
static void ngx_http_nango_stream_ping(ngx_event_t *event);
static void ngx_http_nango_stream_end(ngx_http_nango_events_t *ev);
static void ngx_http_nango_stream_release(ngx_http_nango_events_t *ev);
static void ngx_http_nango_stream_cleanup(void *data);


ngx_int_t
ngx_http_nango_events_stream(ngx_http_nango_events_t *ev)
{
    ngx_int_t                 rc;
    ngx_http_request_t       *r;
    ngx_pool_cleanup_t       *cln;
    ngx_http_nango_ctx_t     *ctx;
    ngx_http_nango_stream_t  *s;

    r = ev->request;

    s = ngx_pcalloc(r->pool, sizeof(ngx_http_nango_stream_t));
    cln = ngx_pool_cleanup_add(r->pool, 0);
    ctx = ngx_http_nango_ctx(r);

    if (s == NULL || cln == NULL || ctx == NULL) {
        return NGX_ERROR;
    }

    ctx->state = ev;

    /* With the pool, when nothing is being sent any more. */

    cln->handler = ngx_http_nango_stream_cleanup;
    cln->data = ev;

    ev->state = s;
    ev->max_text = NGX_HTTP_NANGO_STREAM_CHUNK;

    if (ev->query.has_after) {

        /* Whether it can be continued is to be known before the header. */

        if (ngx_http_nango_stream_read(ev) != NGX_OK) {
            ev->rc = NGX_BUSY;
            return ngx_http_nango_events_refuse(ev);
        }

        return NGX_AGAIN;
    }

    ev->position = ev->applied;

    rc = ngx_http_nango_stream_begin(ev);

    if (rc != NGX_OK) {
        return (rc == NGX_DONE) ? NGX_OK : rc;
    }

    /* The request may not have been held yet, as it has to be for the rest. */

    ngx_post_event(&ev->timer, &ngx_posted_events);

    return NGX_AGAIN;
}


/* The header and the first lines, which are sent with what comes next. */

static ngx_int_t
ngx_http_nango_stream_begin(ngx_http_nango_events_t *ev)
{
    ngx_int_t            rc;
    ngx_http_request_t  *r;

    static ngx_str_t  type = ngx_string("text/event-stream");
    static ngx_str_t  no = ngx_string("no");

    r = ev->request;

    if (ngx_http_nango_header(r, "X-Accel-Buffering", &no) != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

#if (NGX_HTTP_GZIP)

    /* It would gather what is to be seen at once. */

    r->gzip_tested = 1;
    r->gzip_ok = 0;

#endif

    rc = ngx_http_nango_answer_begin(r, NGX_HTTP_OK, &type, -1);

    if (rc != NGX_OK) {
        return rc;
    }

    ngx_http_nango_events_join(ev, ngx_http_nango_stream_wake);

    ev->timer.handler = ngx_http_nango_stream_ping;
    ev->timer.data = r->connection;
    ev->timer.log = r->connection->log;

    ngx_add_timer(&ev->timer, NGX_HTTP_NANGO_STREAM_PING);

    return NGX_OK;
}


/* Thousands that a reload has ended do not come again all at once. */

static void
ngx_http_nango_stream_first(ngx_http_nango_events_t *ev)
{
    ngx_uint_t  retry;

    retry = NGX_HTTP_NANGO_STREAM_RETRY
            + ngx_random() % NGX_HTTP_NANGO_STREAM_SPREAD;

    ngx_http_nango_stream_line(ev, "id: %V:%uL\nretry: %ui\n\n", retry);
}


static void
ngx_http_nango_stream_comment(ngx_http_nango_events_t *ev)
{
    ngx_http_nango_stream_line(ev, ":\nid: %V:%uL\n\n", 0);
}


/* Where the client would go on if it knew nothing more. */

static void
ngx_http_nango_stream_line(ngx_http_nango_events_t *ev, const char *fmt,
    ngx_uint_t retry)
{
    u_char                    id[2 * NANGO_STORE_ID_LEN], *last;
    uint64_t                  position;
    ngx_str_t                 hex;
    ngx_http_nango_stream_t  *s;

    s = ev->state;

    nango_hex(id, nango_store_id(ev->store), NANGO_STORE_ID_LEN);

    hex.len = sizeof(id);
    hex.data = id;

    position = ngx_nango_tail_position(&ev->tail);

    last = ngx_snprintf(s->line, sizeof(s->line), fmt, &hex, position,
                        retry);

    ngx_http_nango_stream_piece(ev, nango_str(s->line, last - s->line));
}


/* Until there is something to wait for.  The request may be gone after it. */

static void
ngx_http_nango_stream_go(ngx_http_nango_events_t *ev)
{
    ngx_int_t                 rc;
    ngx_http_nango_stream_t  *s;

    s = ev->state;

    while (!ev->working && !s->sending) {

        if (ngx_exiting || ngx_terminate) {
            ngx_http_nango_stream_end(ev);
            return;
        }

        rc = ngx_http_nango_stream_next(ev);

        if (rc == NGX_DECLINED) {
            return;
        }

        if (rc == NGX_OK) {
            rc = ngx_http_nango_stream_send(ev);
        }

        if (rc == NGX_ABORT) {
            ngx_http_nango_stream_end(ev);
            return;
        }

        if (rc == NGX_ERROR) {
            ngx_http_nango_events_finish(ev, NGX_ERROR);
            return;
        }
    }
}


/*
 * NGX_OK: there is something to send; NGX_AGAIN: a thread looks for it;
 * NGX_DECLINED: there is nothing; NGX_ABORT: the client shall come again.
 */

static ngx_int_t
ngx_http_nango_stream_next(ngx_http_nango_events_t *ev)
{
    ngx_int_t                 rc;
    ngx_http_nango_stream_t  *s;

    s = ev->state;

    /* Something is left from the beginning, or a ping. */

    if (s->npieces) {
        return NGX_OK;
    }

    rc = ngx_http_nango_stream_chunk(ev);

    if (rc != NGX_AGAIN) {
        return rc;
    }

    ev->position = ev->tail.position;

    return (ngx_http_nango_stream_read(ev) == NGX_OK) ? NGX_AGAIN : NGX_ABORT;
}


static ngx_int_t
ngx_http_nango_stream_chunk(ngx_http_nango_events_t *ev)
{
    size_t                    size;
    ngx_int_t                 rc;
    ngx_nango_tail_event_t   *event;
    ngx_http_nango_stream_t  *s;

    s = ev->state;
    size = 0;

    while (s->nevents < NGX_HTTP_NANGO_STREAM_EVENTS
           && size < NGX_HTTP_NANGO_STREAM_CHUNK)
    {
        rc = ngx_nango_tail_next(&ev->tail, &event);

        if (rc != NGX_OK) {
            return s->nevents ? NGX_OK : rc;
        }

        s->events[s->nevents++] = event;

        if (ngx_http_nango_stream_event(ev, event, &size) != NGX_OK) {
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_nango_stream_event(ngx_http_nango_events_t *ev,
    ngx_nango_tail_event_t *event, size_t *size)
{
    ngx_uint_t   i;
    nango_str_t  pieces[NGX_HTTP_NANGO_STREAM_PIECES];

    pieces[0] = ngx_nango_tail_head(event, ev->show);
    pieces[1] = ev->owner.data ? ev->owner : ngx_nango_tail_owner(event);
    pieces[2] = ngx_nango_tail_body(event, ev->show);

    for (i = 0; i < NGX_HTTP_NANGO_STREAM_PIECES; i++) {

        if (pieces[i].data == NULL) {
            return NGX_ERROR;
        }

        ngx_http_nango_stream_piece(ev, pieces[i]);
        *size += pieces[i].len;
    }

    return NGX_OK;
}


static void
ngx_http_nango_stream_piece(ngx_http_nango_events_t *ev, nango_str_t piece)
{
    ngx_buf_t                *b;
    ngx_uint_t                n;
    ngx_http_nango_stream_t  *s;

    s = ev->state;
    n = s->npieces++;
    b = &s->bufs[n];

    ngx_memzero(b, sizeof(ngx_buf_t));

    b->pos = (u_char *) piece.data;
    b->last = b->pos + piece.len;
    b->memory = 1;

    s->links[n].buf = b;
    s->links[n].next = NULL;

    if (n) {
        s->links[n - 1].next = &s->links[n];
    }
}


static ngx_int_t
ngx_http_nango_stream_read(ngx_http_nango_events_t *ev)
{
    nango_text_free(&ev->text);
    ev->n = 0;

    return ngx_http_nango_events_read(ev, ngx_http_nango_stream_read_done);
}


static void
ngx_http_nango_stream_read_done(ngx_http_nango_events_t *ev)
{
    ngx_int_t                 rc;
    ngx_http_request_t       *r;
    ngx_http_nango_stream_t  *s;

    r = ev->request;
    s = ev->state;

    if (!r->header_sent) {

        if (ev->rc != NGX_OK) {
            ngx_http_nango_events_finish(ev, ngx_http_nango_events_refuse(ev));
            return;
        }

        rc = ngx_http_nango_stream_begin(ev);

        if (rc != NGX_OK) {
            ngx_http_nango_events_finish(ev, (rc == NGX_DONE) ? NGX_OK : rc);
            return;
        }

        r->write_event_handler = ngx_http_nango_stream_writer;

        ev->tail.position = ev->query.after;
        ngx_http_nango_stream_first(ev);
    }

    if (ev->rc == NGX_ERROR) {
        ngx_http_nango_events_finish(ev, NGX_ERROR);
        return;
    }

    /* It is told why when it comes again. */

    if (ev->rc != NGX_OK) {
        ngx_http_nango_stream_end(ev);
        return;
    }

    ev->tail.position = ev->position;

    /* Who comes again need not look through it from the beginning. */

    if (s->late && ev->n == 0 && s->npieces == 0) {
        ngx_http_nango_stream_comment(ev);
    }

    if (ev->n) {
        ngx_http_nango_stream_piece(ev, nango_str(ev->text.data,
                                                  ev->text.len));

    } else if (!ev->more && s->npieces == 0
               && ngx_http_nango_events_stuck(ev))
    {
        ngx_http_nango_stream_end(ev);
        return;
    }

    ngx_http_nango_stream_go(ev);
}


/* NGX_OK, NGX_ERROR.  sending tells whether something is left. */

static ngx_int_t
ngx_http_nango_stream_send(ngx_http_nango_events_t *ev)
{
    ngx_http_request_t       *r;
    ngx_http_nango_stream_t  *s;

    r = ev->request;
    s = ev->state;

    s->bufs[s->npieces - 1].flush = 1;
    s->sending = 1;
    s->late = 0;

    ngx_add_timer(&ev->timer, NGX_HTTP_NANGO_STREAM_PING);

    if (ngx_http_output_filter(r, s->links) == NGX_ERROR) {
        return NGX_ERROR;
    }

    return ngx_http_nango_stream_sent(ev);
}


static ngx_int_t
ngx_http_nango_stream_sent(ngx_http_nango_events_t *ev)
{
    ngx_event_t               *wev;
    ngx_connection_t          *c;
    ngx_http_request_t        *r;
    ngx_http_nango_stream_t   *s;
    ngx_http_core_loc_conf_t  *clcf;

    r = ev->request;
    c = r->connection;
    s = ev->state;
    wev = c->write;

    if (r->buffered || c->buffered) {
        clcf = ngx_http_get_module_loc_conf(r, ngx_http_core_module);

        if (!wev->delayed) {
            ngx_add_timer(wev, clcf->send_timeout);
        }

        return (ngx_handle_write_event(wev, clcf->send_lowat) == NGX_OK)
               ? NGX_OK : NGX_ERROR;
    }

    if (wev->timer_set && !wev->delayed) {
        ngx_del_timer(wev);
    }

    s->sending = 0;

    ngx_http_nango_stream_release(ev);

    return ngx_handle_write_event(wev, 0);
}


static void
ngx_http_nango_stream_writer(ngx_http_request_t *r)
{
    ngx_event_t              *wev;
    ngx_http_nango_ctx_t     *ctx;
    ngx_http_nango_events_t  *ev;
    ngx_http_nango_stream_t  *s;

    ctx = ngx_http_get_module_ctx(r, ngx_http_nango_module);
    ev = ctx->state;
    s = ev->state;
    wev = r->connection->write;

    if (!s->sending) {
        return;
    }

    if (wev->timedout) {
        ngx_log_error(NGX_LOG_INFO, r->connection->log, NGX_ETIMEDOUT,
                      "client timed out");

        r->connection->timedout = 1;
        ngx_http_nango_events_finish(ev, NGX_HTTP_REQUEST_TIME_OUT);
        return;
    }

    if (ngx_http_output_filter(r, NULL) == NGX_ERROR
        || ngx_http_nango_stream_sent(ev) != NGX_OK)
    {
        ngx_http_nango_events_finish(ev, NGX_ERROR);
        return;
    }

    ngx_http_nango_stream_go(ev);
}


static void
ngx_http_nango_stream_wake(ngx_nango_tail_t *tail)
{
    ngx_http_nango_events_t *ev = tail->data;

    ngx_http_nango_stream_t  *s;

    s = ev->state;

    ngx_http_set_log_request(ev->request->connection->log, ev->request);

    /* What is left of the chunk nginx sends. */

    if (ngx_exiting && s->sending) {
        ngx_http_nango_stream_end(ev);
        return;
    }

    ngx_http_nango_stream_go(ev);
}


static void
ngx_http_nango_stream_ping(ngx_event_t *event)
{
    ngx_http_request_t       *r;
    ngx_http_nango_events_t  *ev;
    ngx_http_nango_stream_t  *s;

    ev = (ngx_http_nango_events_t *)
             ((u_char *) event - offsetof(ngx_http_nango_events_t, timer));
    r = ev->request;
    s = ev->state;

    ngx_http_set_log_request(r->connection->log, r);

    if (!event->timedout) {

        /* The beginning, posted, now that the request is held. */

        r->write_event_handler = ngx_http_nango_stream_writer;

        ngx_http_nango_stream_first(ev);
        ngx_http_nango_stream_go(ev);
        return;
    }

    if (ev->working || s->sending) {
        s->late = ev->working;
        ngx_add_timer(event, NGX_HTTP_NANGO_STREAM_PING);
        return;
    }

    ngx_http_nango_stream_comment(ev);
    ngx_http_nango_stream_go(ev);
}


static void
ngx_http_nango_stream_end(ngx_http_nango_events_t *ev)
{
    ngx_int_t            rc;
    ngx_http_request_t  *r;

    r = ev->request;

    rc = ngx_http_send_special(r, NGX_HTTP_LAST);

    ngx_http_nango_events_finish(ev, (rc == NGX_AGAIN) ? NGX_OK : rc);
}


static void
ngx_http_nango_stream_release(ngx_http_nango_events_t *ev)
{
    ngx_http_nango_stream_t  *s;

    s = ev->state;

    while (s->nevents) {
        ngx_nango_tail_release(s->events[--s->nevents]);
    }

    s->npieces = 0;

    nango_text_free(&ev->text);
}


static void
ngx_http_nango_stream_cleanup(void *data)
{
    ngx_http_nango_stream_release(data);
}
