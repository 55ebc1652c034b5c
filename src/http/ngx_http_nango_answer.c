/*
 * Copyright (C) nginx-nango authors
 *
 * How every endpoint answers: JSON, UTF-8, not to be stored, written by
 * ourselves.  A status that is returned to nginx may be turned into anything
 * by error_page; a 503 that became a redirect is a lost webhook.
 */

#include "ngx_http_nango.h"


ngx_str_t  ngx_http_nango_type_raw = ngx_string("application/octet-stream");


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
ngx_http_nango_answer_begin(ngx_http_request_t *r, ngx_uint_t status,
    ngx_str_t *type, off_t len)
{
    ngx_int_t              rc;
    ngx_http_nango_ctx_t  *ctx;

    static ngx_str_t  charset = ngx_string("utf-8");
    static ngx_str_t  no_store = ngx_string("no-store");

    ctx = ngx_http_nango_ctx(r);
    if (ctx == NULL) {
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
    r->headers_out.content_length_n = len;

    if (type) {
        r->headers_out.content_type = *type;
        r->headers_out.content_type_len = type->len;
        r->headers_out.content_type_lowcase = NULL;

        if (type != &ngx_http_nango_type_raw) {
            r->headers_out.charset = charset;
        }
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

    return r->header_only ? NGX_DONE : NGX_OK;
}


ngx_int_t
ngx_http_nango_answer_end(ngx_http_request_t *r, ngx_buf_t *b)
{
    ngx_int_t    rc;
    ngx_chain_t  out;

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
ngx_http_nango_answer(ngx_http_request_t *r, ngx_uint_t status,
    ngx_str_t *body)
{
    static ngx_str_t  type = ngx_string("application/json");

    return ngx_http_nango_answer_as(r, status, &type, body);
}


ngx_int_t
ngx_http_nango_answer_as(ngx_http_request_t *r, ngx_uint_t status,
    ngx_str_t *type, ngx_str_t *body)
{
    ngx_int_t   rc;
    ngx_buf_t  *b;

    /* No memory is a 500 as long as no header has been sent. */

    b = ngx_calloc_buf(r->pool);
    if (b == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    rc = ngx_http_nango_answer_begin(r, status, body->len ? type : NULL,
                                     body->len);
    if (rc != NGX_OK) {
        return (rc == NGX_DONE) ? NGX_OK : rc;
    }

    if (body->len == 0) {
        rc = ngx_http_send_special(r, NGX_HTTP_LAST);
        return (rc == NGX_AGAIN) ? NGX_OK : rc;
    }

    b->pos = body->data;
    b->last = body->data + body->len;
    b->memory = 1;

    return ngx_http_nango_answer_end(r, b);
}


ngx_int_t
ngx_http_nango_error(ngx_http_request_t *r, ngx_uint_t status,
    const char *code, const char *message)
{
    ngx_str_t  body;

    body.len = sizeof("{\"error\":{\"code\":\"\",\"message\":\"\"}}") - 1
               + ngx_strlen(code) + ngx_strlen(message);

    body.data = ngx_pnalloc(r->pool, body.len);
    if (body.data == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    (void) ngx_snprintf(body.data, body.len,
                        "{\"error\":{\"code\":\"%s\",\"message\":\"%s\"}}",
                        code, message);

    return ngx_http_nango_error_body(r, status, code, &body);
}


ngx_int_t
ngx_http_nango_error_body(ngx_http_request_t *r, ngx_uint_t status,
    const char *code, ngx_str_t *body)
{
    ngx_str_t              value;
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

    return ngx_http_nango_answer(r, status, body);
}


ngx_int_t
ngx_http_nango_not_allowed(ngx_http_request_t *r)
{
    ngx_http_nango_loc_conf_t  *nlcf;

    nlcf = ngx_http_get_module_loc_conf(r, ngx_http_nango_module);

    if (ngx_http_nango_header(r, "Allow", &nlcf->endpoint.methods) != NGX_OK) {
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


ngx_int_t
ngx_http_nango_rc(ngx_http_request_t *r, ngx_int_t rc)
{
    return (rc == NGX_ERROR && !r->header_sent)
           ? NGX_HTTP_INTERNAL_SERVER_ERROR : rc;
}


void
ngx_http_nango_finish(ngx_http_request_t *r, ngx_int_t rc)
{
    ngx_connection_t  *c;

    c = r->connection;

    ngx_http_finalize_request(r, ngx_http_nango_rc(r, rc));
    ngx_http_run_posted_requests(c);
}


void
ngx_http_nango_hold(ngx_http_request_t *r)
{
    ngx_event_t           *rev;
    ngx_http_nango_ctx_t  *ctx;

    ctx = ngx_http_get_module_ctx(r, ngx_http_nango_module);

    /* Else nobody would read on: the rest of a body that is discarded. */

    if (!r->discard_body) {
        r->read_event_handler = (ctx && ctx->insist) ? ngx_http_block_reading
                                                     : ngx_http_test_reading;
    }

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
ngx_http_nango_held(ngx_http_request_t *r)
{
    r->main->count++;

    ngx_http_nango_hold(r);

    return NGX_DONE;
}


ngx_int_t
ngx_http_nango_api_needed(ngx_http_request_t *r, ngx_int_t *rc)
{
    ngx_http_nango_loc_conf_t  *nlcf;

    nlcf = ngx_http_get_module_loc_conf(r, ngx_http_nango_module);

    if (nlcf->endpoint.environment->authorization.len) {
        return NGX_OK;
    }

    ngx_log_error(NGX_LOG_ERR, r->connection->log, 0,
                  "nango: environment \"%V\" has no api_key",
                  &nlcf->endpoint.environment->name);

    *rc = ngx_http_nango_error(r, NGX_HTTP_SERVICE_UNAVAILABLE,
                               "nango_unavailable",
                               "Nango cannot be asked here");
    return NGX_DECLINED;
}
