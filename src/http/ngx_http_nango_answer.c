/*
 * Copyright (C) nginx-nango authors
 *
 * How every endpoint answers: JSON, UTF-8, not to be stored, written by
 * ourselves.  A status that is returned to nginx may be turned into anything
 * by error_page; a 503 that became a redirect is a lost webhook.
 */

#include "ngx_http_nango.h"


ngx_http_nango_ctx_t *
ngx_http_nango_ctx(ngx_http_request_t *r)
{
    ngx_http_nango_ctx_t  *ctx;

    ctx = ngx_http_get_module_ctx(r, ngx_http_nango_module);

    if (ctx == NULL) {
        ctx = ngx_pcalloc(r->pool, sizeof(ngx_http_nango_ctx_t));
        if (ctx == NULL) {
            return NULL;
        }

        ngx_http_set_ctx(r, ctx, ngx_http_nango_module);
    }

    return ctx;
}


ngx_int_t
ngx_http_nango_header(ngx_http_request_t *r, const char *name,
    ngx_str_t *value)
{
    ngx_table_elt_t  *h;

    h = ngx_list_push(&r->headers_out.headers);
    if (h == NULL) {
        return NGX_ERROR;
    }

    h->hash = 1;
#if (nginx_version >= 1023000)
    h->next = NULL;
#endif
    h->key.data = (u_char *) name;
    h->key.len = ngx_strlen(name);
    h->value = *value;

    return NGX_OK;
}


ngx_int_t
ngx_http_nango_answer(ngx_http_request_t *r, ngx_uint_t status,
    ngx_str_t *body)
{
    ngx_int_t              rc;
    ngx_buf_t             *b;
    ngx_chain_t            out;
    ngx_http_nango_ctx_t  *ctx;

    static ngx_str_t  type = ngx_string("application/json");
    static ngx_str_t  charset = ngx_string("utf-8");
    static ngx_str_t  no_store = ngx_string("no-store");

    ctx = ngx_http_nango_ctx(r);
    if (ctx == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    /* No memory is a 500 as long as no header has been sent. */

    b = ngx_calloc_buf(r->pool);
    if (b == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    /* A body that is not wanted is not asked for with a 100 either. */

    r->expect_tested = 1;

    if (ngx_http_discard_request_body(r) != NGX_OK) {
        r->keepalive = 0;
    }

    if (ctx->result.len == 0) {
        ngx_str_set(&ctx->result, "ok");
    }

    ctx->answered = 1;

    /* It has happened: no If-Match makes a 412 of it. */

    r->disable_not_modified = 1;

    r->headers_out.status = status;
    r->headers_out.content_length_n = body->len;

    if (body->len) {
        r->headers_out.content_type = type;
        r->headers_out.content_type_len = type.len;
        r->headers_out.content_type_lowcase = NULL;
        r->headers_out.charset = charset;
    }

    if (ngx_http_nango_header(r, "Cache-Control", &no_store) != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    if (r->method == NGX_HTTP_HEAD) {
        r->header_only = 1;
    }

    rc = ngx_http_send_header(r);

    if (rc == NGX_ERROR || rc > NGX_OK) {
        return rc;
    }

    if (r->header_only) {
        return NGX_OK;
    }

    if (body->len == 0) {
        rc = ngx_http_send_special(r, NGX_HTTP_LAST);
        return (rc == NGX_AGAIN) ? NGX_OK : rc;
    }

    b->pos = body->data;
    b->last = body->data + body->len;
    b->memory = 1;
    b->last_buf = (r == r->main) ? 1 : 0;
    b->last_in_chain = 1;

    out.buf = b;
    out.next = NULL;

    /*
     * What the socket did not take nginx sends when the request is finalized;
     * to our callers NGX_AGAIN would say that there is no answer yet.
     */

    rc = ngx_http_output_filter(r, &out);

    return (rc == NGX_AGAIN) ? NGX_OK : rc;
}


ngx_int_t
ngx_http_nango_error(ngx_http_request_t *r, ngx_uint_t status,
    const char *code, const char *message)
{
    ngx_str_t              body, value;
    ngx_http_nango_ctx_t  *ctx;

    ctx = ngx_http_nango_ctx(r);
    if (ctx == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    value.data = (u_char *) code;
    value.len = ngx_strlen(code);

    ctx->result = value;

    if (ngx_http_nango_header(r, "X-Nango-Error", &value) != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    body.len = sizeof("{\"error\":{\"code\":\"\",\"message\":\"\"}}") - 1
               + value.len + ngx_strlen(message);

    body.data = ngx_pnalloc(r->pool, body.len);
    if (body.data == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    (void) ngx_snprintf(body.data, body.len,
                        "{\"error\":{\"code\":\"%s\",\"message\":\"%s\"}}",
                        code, message);

    return ngx_http_nango_answer(r, status, &body);
}


ngx_int_t
ngx_http_nango_not_allowed(ngx_http_request_t *r, const char *allow)
{
    ngx_str_t  value;

    value.data = (u_char *) allow;
    value.len = ngx_strlen(allow);

    if (ngx_http_nango_header(r, "Allow", &value) != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    return ngx_http_nango_error(r, NGX_HTTP_NOT_ALLOWED, "method_not_allowed",
                                "This method is not allowed here");
}


ngx_int_t
ngx_http_nango_rate_limited(ngx_http_request_t *r, time_t seconds)
{
    ngx_str_t  value;

    value.data = ngx_pnalloc(r->pool, NGX_TIME_T_LEN);
    if (value.data == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    value.len = ngx_sprintf(value.data, "%T", ngx_max(seconds, 1))
                - value.data;

    if (ngx_http_nango_header(r, "Retry-After", &value) != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    return ngx_http_nango_error(r, NGX_HTTP_TOO_MANY_REQUESTS, "rate_limited",
                                "Too many requests, try again later");
}


void
ngx_http_nango_finish(ngx_http_request_t *r, ngx_int_t rc)
{
    ngx_connection_t  *c;

    c = r->connection;

    ngx_http_finalize_request(r, rc);
    ngx_http_run_posted_requests(c);
}


void
ngx_http_nango_hold(ngx_http_request_t *r)
{
    ngx_event_t  *rev;

    r->read_event_handler = ngx_http_test_reading;
    r->write_event_handler = ngx_http_request_empty_handler;

    /* A client that had left before its request was read: told only once. */

    rev = r->connection->read;

    if (rev->ready && rev->pending_eof
#if (NGX_HTTP_V2)
        && r->stream == NULL
#endif
       )
    {
        ngx_post_event(rev, &ngx_posted_events);
    }
}


ngx_int_t
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


ngx_uint_t
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
