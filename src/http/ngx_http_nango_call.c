/*
 * Copyright (C) nginx-nango authors
 *
 * Asking Nango's API on behalf of a request: not while the account is over its
 * rate limit, orphaned when the client leaves, and with one answer for each
 * way in which it can go wrong.
 */

#include "ngx_http_nango.h"
#include "ngx_http_nango_call.h"
#include "ngx_nango_shared.h"


static void ngx_http_nango_call_done(ngx_nango_transfer_t *t);
static ngx_int_t ngx_http_nango_call_failed(ngx_http_request_t *r,
    ngx_http_nango_call_t *call, ngx_nango_transfer_t *t);
static void ngx_http_nango_call_cleanup(void *data);


ngx_int_t
ngx_http_nango_call(ngx_http_request_t *r, ngx_http_nango_call_t *call)
{
    time_t                    blocked;
    ngx_int_t                 rc;
    ngx_uint_t                level;
    ngx_http_cleanup_t       *cln;
    ngx_nango_transfer_t     *t;
    ngx_nango_environment_t  *env;

    env = call->environment;

    blocked = ngx_nango_account_blocked(&env->account);

    if (blocked) {
        free(call->memory);
        free(call->body);
        return ngx_http_nango_rate_limited(r, blocked);
    }

    cln = ngx_http_cleanup_add(r, 0);
    t = ngx_nango_transfer_create();

    if (cln == NULL || t == NULL || ngx_http_nango_ctx(r) == NULL) {
        free(call->memory);
        free(call->body);
        free(t);
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    t->environment = env;
    t->method = call->method;
    t->path = call->memory ? call->memory : call->path;
    t->path_memory = call->memory;
    t->body = call->body;
    t->body_len = call->body_len;
    t->handler = ngx_http_nango_call_done;
    t->data = call;

    rc = ngx_nango_transfer_start(t);

    if (rc != NGX_OK) {
        ngx_nango_transfer_free(t);

        level = (rc == NGX_DECLINED) ? NGX_LOG_INFO : NGX_LOG_ERR;

        ngx_log_error(level, r->connection->log, 0,
                      "nango: the API of environment \"%V\" cannot be asked: "
                      "%s", &env->name,
                      rc == NGX_DECLINED ? "it did not answer lately"
                      : rc == NGX_BUSY ? "too many requests wait for it"
                                       : "no memory");

        return ngx_http_nango_error(r, NGX_HTTP_SERVICE_UNAVAILABLE,
                                    "nango_unavailable",
                                    "Nango cannot be reached now");
    }

    call->request = r;
    call->transfer = t;

    cln->handler = ngx_http_nango_call_cleanup;
    cln->data = call;

    return NGX_AGAIN;
}


static void
ngx_http_nango_call_done(ngx_nango_transfer_t *t)
{
    ngx_int_t               rc;
    ngx_http_request_t     *r;
    ngx_http_nango_ctx_t   *ctx;
    ngx_http_nango_call_t  *call;

    call = t->data;
    r = call->request;

    call->transfer = NULL;

    ngx_http_set_log_request(r->connection->log, r);

    ctx = ngx_http_get_module_ctx(r, ngx_http_nango_module);

    ctx->api = 1;
    ctx->api_status = t->status;
    ctx->api_time = t->time;

    rc = NGX_DECLINED;

    if (t->outcome == NGX_NANGO_TRANSFER_DONE
        && t->status != NGX_HTTP_TOO_MANY_REQUESTS)
    {
        rc = call->handler(r, call, t);
    }

    if (rc == NGX_DECLINED) {
        rc = ngx_http_nango_call_failed(r, call, t);
    }

    if (rc != NGX_AGAIN) {
        ngx_http_nango_finish(r, rc);
    }
}


static ngx_int_t
ngx_http_nango_call_failed(ngx_http_request_t *r, ngx_http_nango_call_t *call,
    ngx_nango_transfer_t *t)
{
    time_t                    seconds;
    nango_api_error_t         error;
    ngx_nango_environment_t  *env;

    env = t->environment;

    if (call->failed) {
        call->failed(r, call);
    }

    switch (t->outcome) {

    case NGX_NANGO_TRANSFER_UNAVAILABLE:
        ngx_log_error(NGX_LOG_ERR, r->connection->log, 0,
                      "nango: %s %V%s failed: %s", t->method, &env->api,
                      call->name, t->error);

        return ngx_http_nango_error(r, NGX_HTTP_SERVICE_UNAVAILABLE,
                                    "nango_unavailable",
                                    "Nango cannot be reached now");

    case NGX_NANGO_TRANSFER_TIMEOUT:
        ngx_log_error(NGX_LOG_ERR, r->connection->log, 0,
                      "nango: %s %V%s: no answer after %M ms%s", t->method,
                      &env->api, call->name, t->time,
                      t->error ? "" : ", all of them spent waiting for one of "
                                      "api_connections");

        return ngx_http_nango_error(r, NGX_HTTP_GATEWAY_TIME_OUT,
                                    "nango_timeout",
                                    "Nango did not answer in time");

    case NGX_NANGO_TRANSFER_MALFORMED:
        ngx_log_error(NGX_LOG_ERR, r->connection->log, 0,
                      "nango: %s %V%s failed: %s", t->method, &env->api,
                      call->name, t->error);
        break;

    default: /* NGX_NANGO_TRANSFER_DONE */

        if (t->status == NGX_HTTP_TOO_MANY_REQUESTS) {

            seconds = ngx_nango_account_limited(&env->account,
                                                t->retry_after,
                                                r->connection->log);

            return ngx_http_nango_rate_limited(r, seconds);
        }

        nango_api_error_parse(&error, ngx_nango_str(&t->reply));

        ngx_log_error(NGX_LOG_ERR, r->connection->log, 0,
                      "nango: %s %V%s answered %ui, not %s: "
                      "\"%s\", \"%s\"%s", t->method, &env->api, call->name,
                      t->status, call->wanted, error.code, error.message,
                      t->status == NGX_HTTP_UNAUTHORIZED
                      ? "; check the api_key of this environment" : "");
        break;
    }

    return ngx_http_nango_error(r, NGX_HTTP_BAD_GATEWAY, "nango_error",
                                call->message);
}


static void
ngx_http_nango_call_cleanup(void *data)
{
    ngx_http_nango_call_t *call = data;

    if (call->transfer) {
        ngx_nango_transfer_abandon(call->transfer);
        call->transfer = NULL;
    }
}
