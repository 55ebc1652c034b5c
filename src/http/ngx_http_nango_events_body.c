/*
 * Copyright (C) nginx-nango authors
 *
 * A single event's body as it was received, for nango_events.  One that is a
 * file is opened on a thread and goes out through nginx's own output chain.
 */

#include "ngx_http_nango_events.h"


typedef struct {
    ngx_file_t                file;
    uint64_t                  size;
    unsigned                  found:1;
    u_char                   *path;
} ngx_http_nango_body_t;


static void ngx_http_nango_body_thread(void *data, ngx_log_t *log);
static ngx_int_t ngx_http_nango_body_find(ngx_http_nango_events_t *ev,
    nango_reader_t *reader);
static int ngx_http_nango_body_visit(void *data, const nango_logged_t *event);
static ngx_int_t ngx_http_nango_body_open(ngx_http_nango_events_t *ev,
    ngx_log_t *log);
static void ngx_http_nango_body_done(ngx_http_nango_events_t *ev);
static ngx_int_t ngx_http_nango_body_send(ngx_http_nango_events_t *ev);
static void ngx_http_nango_body_close(void *data);


ngx_int_t
ngx_http_nango_events_body(ngx_http_nango_events_t *ev)
{
    ngx_http_request_t     *r;
    ngx_pool_cleanup_t     *cln;
    ngx_http_nango_body_t  *body;

    r = ev->request;

    /* It cannot be taken apart: it may name what is not to be seen. */

    if (ev->show != (NANGO_SHOW_ID|NANGO_SHOW_TAGS)) {
        return ngx_http_nango_error(r, NGX_HTTP_FORBIDDEN, "not_permitted",
                                    "Bodies are not shown as they are here");
    }

    body = ngx_pcalloc(r->pool, sizeof(ngx_http_nango_body_t));
    cln = ngx_pool_cleanup_add(r->pool, 0);

    if (body == NULL || cln == NULL) {
        return NGX_ERROR;
    }

    body->path = ngx_pnalloc(r->pool, nango_body_path_len(ev->store));
    if (body->path == NULL) {
        return NGX_ERROR;
    }

    body->file.fd = NGX_INVALID_FILE;
    body->file.log = r->connection->log;

    cln->handler = ngx_http_nango_body_close;
    cln->data = body;

    ev->state = body;

    if (ngx_http_nango_events_task(ev, ngx_http_nango_body_thread,
                                   ngx_http_nango_body_done)
        != NGX_OK)
    {
        ev->rc = NGX_BUSY;
        return ngx_http_nango_events_refuse(ev);
    }

    return NGX_AGAIN;
}


static void
ngx_http_nango_body_close(void *data)
{
    ngx_http_nango_body_t *body = data;

    if (body->file.fd != NGX_INVALID_FILE) {
        (void) ngx_close_file(body->file.fd);
    }
}


static void
ngx_http_nango_body_thread(void *data, ngx_log_t *log)
{
    nango_reader_t           *reader;
    ngx_http_nango_body_t    *body;
    ngx_http_nango_events_t  *ev;

    ev = *(ngx_http_nango_events_t **) data;
    body = ev->state;

    ev->rc = NGX_ERROR;

    reader = nango_reader_create(ev->store);
    if (reader == NULL) {
        return;
    }

    if (nango_reader_begin(reader, ev->error) == NANGO_OK) {
        ev->rc = ngx_http_nango_body_find(ev, reader);
        nango_reader_end(reader);

    } else {
        ev->rc = NGX_BUSY;
    }

    nango_reader_free(reader);

    if (ev->rc == NGX_OK && body->found && body->size) {
        ev->rc = ngx_http_nango_body_open(ev, log);
    }
}


static ngx_int_t
ngx_http_nango_body_find(ngx_http_nango_events_t *ev, nango_reader_t *reader)
{
    uint64_t                first, position;
    ngx_http_nango_body_t  *body;

    if (ev->query.body == 0) {
        return NGX_OK;
    }

    if (nango_reader_first(reader, ev->wanted.environment, &first, ev->error)
        != 0)
    {
        return NGX_BUSY;
    }

    position = ev->query.body - 1;
    ev->wanted.max_events = 1;

    if (nango_reader_events(reader, &ev->wanted, &position,
                            ngx_http_nango_body_visit, ev, ev->error)
        == -1)
    {
        return NGX_BUSY;
    }

    /* What somebody is owed is there for longer. */

    body = ev->state;

    if (!body->found && ev->query.body < first) {
        return NGX_DECLINED;
    }

    return ev->text.failed ? NGX_ERROR : NGX_OK;
}


static int
ngx_http_nango_body_visit(void *data, const nango_logged_t *event)
{
    ngx_http_nango_events_t *ev = data;

    u_char                  raw[NANGO_BODY_NAME_LEN / 2];
    ngx_http_nango_body_t  *body;

    body = ev->state;

    /* A damaged name is no path. */

    if (event->sequence != ev->query.body
        || (event->record->body_file
            && nango_unhex(raw, sizeof(raw), event->record->body) != 0))
    {
        return 1;
    }

    body->found = 1;

    if (!event->record->body_file) {
        nango_text_add(&ev->text, event->record->body);
        return 1;
    }

    body->size = event->record->body_len;
    nango_body_path(ev->store, event->record->body, (char *) body->path);

    return 1;
}


static ngx_int_t
ngx_http_nango_body_open(ngx_http_nango_events_t *ev, ngx_log_t *log)
{
    ngx_file_info_t         fi;
    ngx_http_nango_body_t  *body;

    body = ev->state;

    body->file.fd = ngx_open_file(body->path, NGX_FILE_RDONLY, NGX_FILE_OPEN,
                                  0);

    if (body->file.fd == NGX_INVALID_FILE) {
        ngx_log_error(NGX_LOG_CRIT, log, ngx_errno,
                      ngx_open_file_n " \"%s\" failed", body->path);
        return NGX_ERROR;
    }

    if (ngx_fd_info(body->file.fd, &fi) == NGX_FILE_ERROR
        || (uint64_t) ngx_file_size(&fi) != body->size)
    {
        ngx_log_error(NGX_LOG_CRIT, log, 0,
                      "nango: \"%s\" is not as long as the body that it is of",
                      body->path);
        return NGX_ERROR;
    }

    return NGX_OK;
}


static void
ngx_http_nango_body_done(ngx_http_nango_events_t *ev)
{
    ngx_int_t               rc;
    ngx_http_nango_body_t  *body;

    body = ev->state;

    if (ev->rc != NGX_OK) {

        /* Whatever it was, it has been logged and may pass. */

        if (ev->rc == NGX_ERROR) {
            ev->rc = NGX_BUSY;
        }

        rc = ngx_http_nango_events_refuse(ev);

    } else if (!body->found) {
        rc = ngx_http_nango_error(ev->request, NGX_HTTP_NOT_FOUND,
                                  "event_not_found",
                                  "There is no such event");

    } else {
        rc = ngx_http_nango_body_send(ev);
    }

    ngx_http_nango_events_finish(ev, rc);
}


static ngx_int_t
ngx_http_nango_body_send(ngx_http_nango_events_t *ev)
{
    off_t                   len;
    ngx_int_t               rc;
    ngx_buf_t              *b;
    ngx_http_request_t     *r;
    ngx_http_nango_body_t  *body;

    static ngx_str_t  nosniff = ngx_string("nosniff");

    r = ev->request;
    body = ev->state;

    b = ngx_calloc_buf(r->pool);

    if (b == NULL
        || ngx_http_nango_header(r, "X-Content-Type-Options", &nosniff)
           != NGX_OK)
    {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    len = body->size ? (off_t) body->size : (off_t) ev->text.len;

    rc = ngx_http_nango_answer_begin(r, NGX_HTTP_OK, &ngx_http_nango_type_raw,
                                     len);
    if (rc != NGX_OK) {
        return (rc == NGX_DONE) ? NGX_OK : rc;
    }

    if (len == 0) {
        rc = ngx_http_send_special(r, NGX_HTTP_LAST);
        return (rc == NGX_AGAIN) ? NGX_OK : rc;
    }

    if (body->size) {
        b->file = &body->file;
        b->file_last = len;
        b->in_file = 1;

    } else {
        b->pos = ev->text.data;
        b->last = ev->text.data + ev->text.len;
        b->memory = 1;
    }

    return ngx_http_nango_answer_end(r, b);
}
