/*
 * Copyright (C) nginx-nango authors
 *
 * See ngx_http_nango_look.h.  Who asks sees at least what was acknowledged
 * before: if the fold is behind, the request waits for it, a second at most
 * and without holding anything but itself.
 */

#include "ngx_http_nango_look.h"


#define NGX_HTTP_NANGO_FOLD_WAIT  1000


static ngx_int_t ngx_http_nango_look_now(ngx_http_request_t *r,
    ngx_http_nango_look_t *look);
static ngx_uint_t ngx_http_nango_look_wait(ngx_http_nango_look_t *look,
    uint64_t sequence);
static void ngx_http_nango_look_wake(ngx_nango_wait_t *wait);
static void ngx_http_nango_look_cleanup(void *data);
static ngx_int_t ngx_http_nango_keep(ngx_pool_t *pool, nango_connection_t *c);


ngx_int_t
ngx_http_nango_look(ngx_http_request_t *r, ngx_http_nango_look_t *look)
{
    ngx_http_cleanup_t  *cln;

    if (!look->cleanup) {
        cln = ngx_http_cleanup_add(r, 0);
        if (cln == NULL) {
            return NGX_ERROR;
        }

        cln->handler = ngx_http_nango_look_cleanup;
        cln->data = look;

        look->cleanup = 1;
        look->request = r;
    }

    look->wait.sequence = 0;
    look->deadline = ngx_current_msec + NGX_HTTP_NANGO_FOLD_WAIT;

    return ngx_http_nango_look_now(r, look);
}


static ngx_int_t
ngx_http_nango_look_now(ngx_http_request_t *r, ngx_http_nango_look_t *look)
{
    uint64_t         last;
    ngx_int_t        rc;
    nango_reader_t  *reader;

    reader = look->glance ? ngx_nango_store_glance()
                          : ngx_nango_store_snapshot();

    if (reader == NULL) {

        if (ngx_nango_store_opening() && ngx_http_nango_look_wait(look, 0)) {
            return NGX_AGAIN;
        }

        rc = NGX_BUSY;

    } else {

        if (!look->now) {
            last = look->sequence ? look->sequence : nango_reader_last(reader);

            if (last > nango_reader_applied(reader)
                && ngx_http_nango_look_wait(look, last))
            {
                nango_reader_end(reader);
                return NGX_AGAIN;
            }
        }

        rc = look->look(r, reader, look->data);

        nango_reader_end(reader);
    }

    if (rc == NGX_BUSY && !look->busy) {
        return ngx_http_nango_error(r, NGX_HTTP_SERVICE_UNAVAILABLE,
                                    "store_unavailable",
                                    "Connections cannot be read now");
    }

    return ngx_http_nango_rc(r, look->then(r, rc, look->data));
}


/* 0: it has waited long enough, and is answered from what is there. */

static ngx_uint_t
ngx_http_nango_look_wait(ngx_http_nango_look_t *look, uint64_t sequence)
{
    ngx_msec_int_t  left;

    left = (ngx_msec_int_t) (look->deadline - ngx_current_msec);

    if (left <= 0) {
        return 0;
    }

    /* What came while it waited is not waited for. */

    if (look->wait.sequence && sequence > look->wait.sequence) {
        return 0;
    }

    look->wait.handler = ngx_http_nango_look_wake;
    look->wait.data = look;
    look->waiting = 1;

    ngx_nango_store_wait(&look->wait, sequence, left);

    return 1;
}


static void
ngx_http_nango_look_wake(ngx_nango_wait_t *wait)
{
    ngx_int_t               rc;
    ngx_http_request_t     *r;
    ngx_http_nango_look_t  *look;

    look = wait->data;
    r = look->request;

    look->waiting = 0;

    ngx_http_set_log_request(r->connection->log, r);

    rc = ngx_http_nango_look_now(r, look);

    if (rc != NGX_AGAIN) {
        ngx_http_nango_finish(r, rc);
    }
}


static void
ngx_http_nango_look_cleanup(void *data)
{
    ngx_http_nango_look_t *look = data;

    if (look->waiting) {
        ngx_nango_store_wait_cancel(&look->wait);
        look->waiting = 0;
    }
}


ngx_int_t
ngx_http_nango_unreadable(ngx_http_request_t *r, nango_error_t *err)
{
    ngx_nango_store_unreadable(err);

    return NGX_BUSY;
}


ngx_int_t
ngx_http_nango_find(ngx_http_request_t *r, nango_reader_t *reader,
    ngx_nango_environment_t *env, ngx_array_t *owners, u_char *key,
    nango_connection_t *c)
{
    int            rc;
    nango_error_t  err;

    rc = nango_reader_connection(reader, key, c, &err);

    if (rc == -1) {
        return ngx_http_nango_unreadable(r, &err);
    }

    if (rc == 0 || c->status == NANGO_STATUS_DELETED
        || !nango_str_eq(c->environment, ngx_nango_str(&env->name))
        || !ngx_http_nango_owned(c, owners))
    {
        return NGX_DECLINED;
    }

    return NGX_OK;
}


ngx_int_t
ngx_http_nango_find_all(ngx_http_request_t *r, nango_reader_t *reader,
    ngx_nango_environment_t *env, ngx_array_t *owners,
    nango_str_t integration, nango_connection_t *c, ngx_uint_t n,
    ngx_uint_t *found)
{
    int                  rc;
    nango_owned_t       *owned;
    nango_error_t        err;
    nango_connection_t   one;

    *found = 0;

    owned = nango_owned_open(reader, ngx_nango_str(&env->name), owners->elts,
                             owners->nelts, 0, &err);
    if (owned == NULL) {
        return ngx_http_nango_unreadable(r, &err);
    }

    nango_owned_only(owned, integration, NGX_HTTP_NANGO_FIND_MAX);

    rc = 0;

    while (*found <= n) {
        rc = nango_owned_next(owned, &one, &err);

        if (rc != 1) {
            break;
        }

        /* Its strings are those of the reader until it reads the next one. */

        if (*found < n) {
            c[*found] = one;

            if (ngx_http_nango_keep(r->pool, &c[*found]) != NGX_OK) {
                nango_owned_close(owned);
                return NGX_ERROR;
            }
        }

        (*found)++;
    }

    nango_owned_close(owned);

    return (rc == -1) ? ngx_http_nango_unreadable(r, &err) : NGX_OK;
}


static ngx_int_t
ngx_http_nango_keep(ngx_pool_t *pool, nango_connection_t *c)
{
    size_t        i;
    ngx_uint_t    n;
    nango_str_t  *strings[] = {
        &c->environment, &c->integration, &c->connection_id, &c->provider,
        &c->error_type, &c->error_text
    };

    for (n = 0; n < sizeof(strings) / sizeof(strings[0]); n++) {
        if (strings[n]->data
            && ngx_http_nango_copy(pool, strings[n]) != NGX_OK)
        {
            return NGX_ERROR;
        }
    }

    for (i = 0; i < c->ntags; i++) {
        if (ngx_http_nango_copy(pool, &c->tags[i].name) != NGX_OK
            || ngx_http_nango_copy(pool, &c->tags[i].value) != NGX_OK)
        {
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}


ngx_uint_t
ngx_http_nango_owned(nango_connection_t *c, ngx_array_t *owners)
{
    ngx_uint_t    i;
    nango_str_t   value;
    nango_tag_t  *owner;

    owner = owners->elts;

    for (i = 0; i < owners->nelts; i++) {
        value = nango_connection_tag(c, owner[i].name);

        if (value.data == NULL || !nango_str_eq(value, owner[i].value)) {
            return 0;
        }
    }

    return 1;
}
