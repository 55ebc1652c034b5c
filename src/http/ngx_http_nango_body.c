/*
 * Copyright (C) nginx-nango authors
 *
 * The small JSON bodies that endpoints of browsers take.
 */

#include "ngx_http_nango.h"


/* Small enough to be read from a file at once. */
#define NGX_HTTP_NANGO_BODY_MAX  8192


static void ngx_http_nango_read_handler(ngx_http_request_t *r);
static ngx_int_t ngx_http_nango_read_done(ngx_http_request_t *r);
static ngx_int_t ngx_http_nango_body_too_large(ngx_http_request_t *r);
static ngx_int_t ngx_http_nango_body(ngx_http_request_t *r, ngx_str_t *body);
static ngx_uint_t ngx_http_nango_is_json(ngx_http_request_t *r);


ngx_int_t
ngx_http_nango_read(ngx_http_request_t *r, ngx_http_nango_read_pt handler)
{
    ngx_int_t              rc;
    ngx_http_nango_ctx_t  *ctx;

    ctx = ngx_http_nango_ctx(r);
    if (ctx == NULL) {
        return NGX_ERROR;
    }

    ctx->read = handler;

    if (r->headers_in.content_length_n > NGX_HTTP_NANGO_BODY_MAX) {
        return ngx_http_nango_body_too_large(r);
    }

    /* What nginx itself answers while it reads a body stays what it is. */

    r->error_page = 1;

    rc = ngx_http_read_client_request_body(r, ngx_http_nango_read_handler);

    if (rc >= NGX_HTTP_SPECIAL_RESPONSE) {

        /* Nobody knows where in what was sent the next request begins. */

        r->keepalive = 0;

        if (rc == NGX_HTTP_REQUEST_ENTITY_TOO_LARGE) {
            return ngx_http_nango_body_too_large(r);
        }

        if (rc == NGX_HTTP_BAD_REQUEST) {
            return ngx_http_nango_error(r, rc, "invalid_body",
                                        "The request's body could not be "
                                        "read");
        }

        return rc;
    }

    return NGX_DONE;
}


static void
ngx_http_nango_read_handler(ngx_http_request_t *r)
{
    ngx_int_t  rc;

    rc = ngx_http_nango_read_done(r);

    if (rc == NGX_AGAIN) {
        ngx_http_nango_hold(r);
        return;
    }

    ngx_http_finalize_request(r, ngx_http_nango_rc(r, rc));
}


static ngx_int_t
ngx_http_nango_read_done(ngx_http_request_t *r)
{
    off_t                  size;
    ngx_str_t              body;
    ngx_chain_t           *cl;
    ngx_http_nango_ctx_t  *ctx;

    size = 0;

    if (r->request_body) {
        for (cl = r->request_body->bufs; cl; cl = cl->next) {
            size += ngx_buf_size(cl->buf);
        }
    }

    if (size > NGX_HTTP_NANGO_BODY_MAX) {
        return ngx_http_nango_body_too_large(r);
    }

    if (ngx_http_nango_body(r, &body) != NGX_OK) {
        return NGX_ERROR;
    }

    if (body.len && !ngx_http_nango_is_json(r)) {
        return ngx_http_nango_error(r, NGX_HTTP_UNSUPPORTED_MEDIA_TYPE,
                                    "unsupported_media_type",
                                    "The body's type must be "
                                    "application/json");
    }

    ctx = ngx_http_get_module_ctx(r, ngx_http_nango_module);

    return ctx->read(r, ngx_nango_str(&body));
}


static ngx_int_t
ngx_http_nango_body_too_large(ngx_http_request_t *r)
{
    return ngx_http_nango_error(r, NGX_HTTP_REQUEST_ENTITY_TOO_LARGE,
                                "body_too_large",
                                "The request's body is too large");
}


/* As one string, from memory or its file. */

static ngx_int_t
ngx_http_nango_body(ngx_http_request_t *r, ngx_str_t *body)
{
    u_char       *p;
    size_t        len;
    ssize_t       n;
    ngx_buf_t    *b;
    ngx_chain_t  *cl;

    ngx_str_null(body);

    if (r->request_body == NULL || r->request_body->bufs == NULL) {
        return NGX_OK;
    }

    cl = r->request_body->bufs;

    if (cl->next == NULL && ngx_buf_in_memory(cl->buf)) {
        body->data = cl->buf->pos;
        body->len = cl->buf->last - cl->buf->pos;
        return NGX_OK;
    }

    len = 0;

    for ( /* void */ ; cl; cl = cl->next) {
        len += ngx_buf_size(cl->buf);
    }

    if (len == 0) {
        return NGX_OK;
    }

    p = ngx_pnalloc(r->pool, len);
    if (p == NULL) {
        return NGX_ERROR;
    }

    body->data = p;
    body->len = len;

    for (cl = r->request_body->bufs; cl; cl = cl->next) {
        b = cl->buf;

        /* The end of a body may be a buffer that is neither. */

        if (ngx_buf_size(b) == 0) {
            continue;
        }

        if (ngx_buf_in_memory(b)) {
            p = ngx_cpymem(p, b->pos, b->last - b->pos);
            continue;
        }

        n = ngx_read_file(b->file, p, (size_t) (b->file_last - b->file_pos),
                          b->file_pos);
        if (n != b->file_last - b->file_pos) {
            return NGX_ERROR;
        }

        p += n;
    }

    return NGX_OK;
}


static ngx_uint_t
ngx_http_nango_is_json(ngx_http_request_t *r)
{
    u_char     *p, *last;
    ngx_str_t  *type;

    if (r->headers_in.content_type == NULL) {
        return 0;
    }

    type = &r->headers_in.content_type->value;

    p = type->data;
    last = p + type->len;

    if (type->len < sizeof("application/json") - 1
        || ngx_strncasecmp(p, (u_char *) "application/json",
                           sizeof("application/json") - 1)
           != 0)
    {
        return 0;
    }

    p += sizeof("application/json") - 1;

    return p == last || *p == ';' || *p == ' ' || *p == '\t';
}
