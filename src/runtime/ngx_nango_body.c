/*
 * Copyright (C) nginx-nango authors
 *
 * A file is read a piece at a time by nginx's thread pool, the next piece when
 * libcurl has taken the last one.  While it is read, libcurl is told to wait.
 *
 * A transfer may end while a piece is being read.  What is read into belongs
 * to both, and is freed by whoever is the last.
 */

#include "ngx_nango_body.h"
#include "ngx_nango_store.h"

#include <ngx_thread_pool.h>


#define NGX_NANGO_BODY_PIECE  (128 * 1024)


typedef struct {
    ngx_thread_task_t       task;
    ngx_nango_transfer_t   *transfer;       /* NULL: it has ended */
    char                   *path;
    int                     fd;             /* -1: not opened yet */
    off_t                   offset;
    size_t                  pos;
    size_t                  len;
    ngx_uint_t              reading;        /* the loop's */
    ngx_uint_t              failed;         /* the thread's, while it reads */
    u_char                  piece[NGX_NANGO_BODY_PIECE];
} ngx_nango_body_t;


static size_t ngx_nango_body_take(ngx_nango_transfer_t *t, u_char *buf,
    size_t size);
static void ngx_nango_body_task(void *data, ngx_log_t *log);
static void ngx_nango_body_event_handler(ngx_event_t *ev);
static void ngx_nango_body_end(void *memory);
static void ngx_nango_body_free(ngx_nango_body_t *body);


ngx_int_t
ngx_nango_body_read(ngx_nango_transfer_t *t, nango_str_t name)
{
    nango_store_t     *store;
    ngx_nango_body_t  *body;

    store = ngx_nango_store();

    if (store == NULL) {
        return NGX_ERROR;
    }

    body = calloc(1, sizeof(ngx_nango_body_t));
    if (body == NULL) {
        return NGX_ERROR;
    }

    body->path = malloc(nango_body_path_len(store));
    if (body->path == NULL) {
        free(body);
        return NGX_ERROR;
    }

    nango_body_path(store, name, body->path);

    body->fd = -1;
    body->transfer = t;

    body->task.ctx = body;
    body->task.handler = ngx_nango_body_task;
    body->task.event.handler = ngx_nango_body_event_handler;
    body->task.event.data = body;

    t->read = ngx_nango_body_take;
    t->memory = body;
    t->memory_free = ngx_nango_body_end;

    return NGX_OK;
}


/* For libcurl. */

static size_t
ngx_nango_body_take(ngx_nango_transfer_t *t, u_char *buf, size_t size)
{
    size_t              n;
    ngx_nango_body_t   *body;
    ngx_thread_pool_t  *tp;

    static ngx_str_t  name = ngx_string("default");

    body = t->memory;

    if (body->reading) {
        return NGX_NANGO_READ_LATER;
    }

    if (body->failed) {
        return NGX_NANGO_READ_FAILED;
    }

    n = ngx_min(body->len - body->pos, size);

    if (n) {
        ngx_memcpy(buf, body->piece + body->pos, n);
        body->pos += n;
        return n;
    }

    if ((uint64_t) body->offset == t->body_len) {
        return 0;
    }

    tp = ngx_thread_pool_get((ngx_cycle_t *) ngx_cycle, &name);

    if (tp == NULL) {
        return NGX_NANGO_READ_FAILED;
    }

    body->reading = 1;

    if (ngx_thread_task_post(tp, &body->task) != NGX_OK) {
        body->reading = 0;
        return NGX_NANGO_READ_FAILED;
    }

    return NGX_NANGO_READ_LATER;
}


/* On a thread of the pool. */

static void
ngx_nango_body_task(void *data, ngx_log_t *log)
{
    ngx_nango_body_t *body = data;

    ssize_t  n;

    body->pos = 0;
    body->len = 0;

    if (body->fd == -1) {
        body->fd = open(body->path, O_RDONLY|O_NOFOLLOW|O_CLOEXEC);

        if (body->fd == -1) {
            ngx_log_error(NGX_LOG_CRIT, log, ngx_errno,
                          "nango: open() \"%s\" failed", body->path);
            body->failed = 1;
            return;
        }
    }

    do {
        n = pread(body->fd, body->piece, NGX_NANGO_BODY_PIECE, body->offset);
    } while (n == -1 && ngx_errno == NGX_EINTR);

    if (n <= 0) {
        ngx_log_error(NGX_LOG_CRIT, log, n == -1 ? ngx_errno : 0,
                      "nango: \"%s\" cannot be read to its end", body->path);
        body->failed = 1;
        return;
    }

    body->len = (size_t) n;
    body->offset += n;
}


static void
ngx_nango_body_event_handler(ngx_event_t *ev)
{
    ngx_nango_body_t  *body;

    body = ev->data;

    body->reading = 0;
    ev->complete = 0;

    if (body->transfer == NULL) {
        ngx_nango_body_free(body);
        return;
    }

    ngx_nango_transfer_resume(body->transfer);
}


/* The transfer is over. */

static void
ngx_nango_body_end(void *memory)
{
    ngx_nango_body_t *body = memory;

    body->transfer = NULL;

    if (!body->reading) {
        ngx_nango_body_free(body);
    }
}


static void
ngx_nango_body_free(ngx_nango_body_t *body)
{
    if (body->fd != -1) {
        (void) close(body->fd);
    }

    free(body->path);
    free(body);
}
