/*
 * Copyright (C) nginx-nango authors
 *
 * nango_session [environment];
 *
 * Issues a session token through Nango's API.  Whose session it is comes from
 * the configuration's nango_owner alone: nothing in the request can change it.
 */

#include "ngx_http_nango.h"
#include "ngx_nango_curl.h"
#include "ngx_nango_shared.h"

#include <openssl/evp.h>


/* A list of integrations; small enough to be read from a file at once. */
#define NGX_HTTP_NANGO_WISH_MAX   8192

/* Nango's limit is by the minute; one odd value must not stop an account. */
#define NGX_HTTP_NANGO_BLOCK_MAX  3600


typedef struct {
    ngx_http_request_t    *request;
    ngx_nango_transfer_t  *transfer;
    ngx_array_t            tags;            /* nango_tag_t, owners first */
    u_char                 key[NGX_NANGO_SESSION_KEY_LEN];
    time_t                 reuse;
} ngx_http_nango_session_t;


static ngx_int_t ngx_http_nango_session_handler(ngx_http_request_t *r);
static void ngx_http_nango_session_body_handler(ngx_http_request_t *r);
static ngx_int_t ngx_http_nango_session_request(ngx_http_request_t *r);
static ngx_int_t ngx_http_nango_session_integrations(ngx_http_request_t *r,
    nango_session_wish_t *wish, nango_session_t *session);
static ngx_int_t ngx_http_nango_session_start(ngx_http_request_t *r,
    char *body, size_t len);
static ngx_int_t ngx_http_nango_session_key(ngx_nango_environment_t *env,
    char *body, size_t len, u_char *key);
static void ngx_http_nango_session_done(ngx_nango_transfer_t *t);
static ngx_int_t ngx_http_nango_session_answer(ngx_http_request_t *r,
    ngx_nango_transfer_t *t);
static ngx_int_t ngx_http_nango_session_failed(ngx_http_request_t *r,
    ngx_nango_transfer_t *t);
static void ngx_http_nango_session_cleanup(void *data);


char *
ngx_http_nango_session(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_nango_loc_conf_t *nlcf = conf;

    char       *rv;
    ngx_str_t  *value;

    value = cf->args->elts;

    rv = ngx_http_nango_endpoint(cf, nlcf, ngx_http_nango_session_handler);
    if (rv != NGX_CONF_OK) {
        return rv;
    }

    if (cf->args->nelts == 2) {
        nlcf->endpoint.environment_name = value[1];
    }

    nlcf->endpoint.browser = 1;
    nlcf->endpoint.api = 1;

    return NGX_CONF_OK;
}


static ngx_int_t
ngx_http_nango_session_handler(ngx_http_request_t *r)
{
    ngx_int_t                   rc;
    ngx_http_nango_ctx_t       *ctx;
    ngx_http_nango_session_t   *s;

    if (r->method != NGX_HTTP_POST) {
        return ngx_http_nango_not_allowed(r, "POST");
    }

    ctx = ngx_http_nango_ctx(r);
    s = ngx_pcalloc(r->pool, sizeof(ngx_http_nango_session_t));

    if (ctx == NULL || s == NULL
        || ngx_array_init(&s->tags, r->pool, NANGO_TAGS_MAX,
                          sizeof(nango_tag_t))
           != NGX_OK)
    {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    s->request = r;
    ctx->state = s;

    if (ngx_http_nango_owners(r, &s->tags, &rc) != NGX_OK) {
        return rc;
    }

    if (r->headers_in.content_length_n > NGX_HTTP_NANGO_WISH_MAX) {
        return ngx_http_nango_error(r, NGX_HTTP_REQUEST_ENTITY_TOO_LARGE,
                                    "body_too_large",
                                    "The request's body is too large");
    }

    /* What nginx itself answers while it reads a body stays what it is. */

    r->error_page = 1;

    rc = ngx_http_read_client_request_body(r,
                                          ngx_http_nango_session_body_handler);

    if (rc >= NGX_HTTP_SPECIAL_RESPONSE) {

        /* Nobody knows where in what was sent the next request begins. */

        r->keepalive = 0;

        if (rc == NGX_HTTP_REQUEST_ENTITY_TOO_LARGE) {
            return ngx_http_nango_error(r, rc, "body_too_large",
                                        "The request's body is too large");
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
ngx_http_nango_session_body_handler(ngx_http_request_t *r)
{
    ngx_int_t  rc;

    rc = ngx_http_nango_session_request(r);

    if (rc == NGX_AGAIN) {
        ngx_http_nango_hold(r);
        return;
    }

    ngx_http_finalize_request(r, rc);
}


/* NGX_AGAIN: Nango has been asked. */

static ngx_int_t
ngx_http_nango_session_request(ngx_http_request_t *r)
{
    int                         wrc;
    char                       *body;
    off_t                       size;
    size_t                      len;
    ngx_int_t                   rc;
    ngx_str_t                   text;
    ngx_chain_t                *cl;
    const char                 *error;
    nango_session_t             session;
    nango_session_wish_t        wish;
    ngx_http_nango_ctx_t       *ctx;
    ngx_http_nango_session_t   *s;
    ngx_http_nango_loc_conf_t  *nlcf;

    ctx = ngx_http_get_module_ctx(r, ngx_http_nango_module);
    nlcf = ngx_http_get_module_loc_conf(r, ngx_http_nango_module);
    s = ctx->state;

    size = 0;

    if (r->request_body) {
        for (cl = r->request_body->bufs; cl; cl = cl->next) {
            size += ngx_buf_size(cl->buf);
        }
    }

    if (size > NGX_HTTP_NANGO_WISH_MAX) {
        return ngx_http_nango_error(r, NGX_HTTP_REQUEST_ENTITY_TOO_LARGE,
                                    "body_too_large",
                                    "The request's body is too large");
    }

    if (ngx_http_nango_body(r, &text) != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    if (text.len && !ngx_http_nango_is_json(r)) {
        return ngx_http_nango_error(r, NGX_HTTP_UNSUPPORTED_MEDIA_TYPE,
                                    "unsupported_media_type",
                                    "The body's type must be "
                                    "application/json");
    }

    wrc = nango_session_wish_parse(&wish, ngx_nango_str(&text), &error);

    if (wrc == -2) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    if (wrc == -1) {
        return ngx_http_nango_error(r, NGX_HTTP_BAD_REQUEST, "invalid_body",
                                    error);
    }

    ngx_memzero(&session, sizeof(nango_session_t));

    rc = ngx_http_nango_session_integrations(r, &wish, &session);

    if (rc == NGX_OK && ngx_http_nango_tags(r, &s->tags) != NGX_OK) {
        rc = NGX_ERROR;
    }

    if (rc != NGX_OK) {
        nango_session_wish_free(&wish);

        if (rc == NGX_DECLINED) {
            return ngx_http_nango_error(r, NGX_HTTP_FORBIDDEN,
                                        "integration_not_allowed",
                                        "This integration is not allowed "
                                        "here");
        }

        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    session.format = nlcf->endpoint.environment->session_format;
    session.tags = s->tags.elts;
    session.ntags = s->tags.nelts;

    body = nango_session_body(&session, &len, &error);

    nango_session_wish_free(&wish);

    if (body == NULL) {

        if (error == NULL) {
            return NGX_HTTP_INTERNAL_SERVER_ERROR;
        }

        ngx_log_error(NGX_LOG_ERR, r->connection->log, 0,
                      "nango: the session cannot be asked for: %s", error);

        return ngx_http_nango_error(r, NGX_HTTP_BAD_REQUEST, "invalid_tag",
                                    "The caller's tags cannot be sent to "
                                    "Nango");
    }

    return ngx_http_nango_session_start(r, body, len);
}


/*
 * What is asked for, if all of it is allowed, else what is allowed.  NGX_OK,
 * NGX_DECLINED: not allowed, NGX_ERROR.
 */

static ngx_int_t
ngx_http_nango_session_integrations(ngx_http_request_t *r,
    nango_session_wish_t *wish, nango_session_t *session)
{
    ngx_uint_t                  i, n;
    ngx_array_t                 allowed;
    nango_str_t                *id;
    ngx_http_nango_loc_conf_t  *nlcf;

    nlcf = ngx_http_get_module_loc_conf(r, ngx_http_nango_module);

    session->integrations = wish->integrations;
    session->nintegrations = wish->nintegrations;

    if (nlcf->integrations == NULL) {
        return NGX_OK;
    }

    if (ngx_array_init(&allowed, r->pool, nlcf->integrations->nelts,
                       sizeof(nango_str_t))
        != NGX_OK
        || ngx_http_nango_integrations(r, &allowed) != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (allowed.nelts == 0) {
        return NGX_DECLINED;
    }

    id = allowed.elts;

    if (wish->nintegrations == 0) {
        session->integrations = id;
        session->nintegrations = allowed.nelts;
        return NGX_OK;
    }

    for (n = 0; n < wish->nintegrations; n++) {

        for (i = 0; i < allowed.nelts; i++) {
            if (nango_str_eq(wish->integrations[n], id[i])) {
                break;
            }
        }

        if (i == allowed.nelts) {
            return NGX_DECLINED;
        }
    }

    return NGX_OK;
}


/* Takes body over. */

static ngx_int_t
ngx_http_nango_session_start(ngx_http_request_t *r, char *body, size_t len)
{
    time_t                      blocked;
    ngx_int_t                   rc;
    ngx_str_t                   answer;
    ngx_http_cleanup_t         *cln;
    ngx_http_nango_ctx_t       *ctx;
    ngx_nango_transfer_t       *t;
    ngx_nango_environment_t    *env;
    ngx_http_nango_session_t   *s;
    ngx_http_nango_loc_conf_t  *nlcf;

    ctx = ngx_http_get_module_ctx(r, ngx_http_nango_module);
    nlcf = ngx_http_get_module_loc_conf(r, ngx_http_nango_module);
    env = nlcf->endpoint.environment;
    s = ctx->state;

    if (nlcf->session_reuse
        && ngx_http_nango_session_key(env, body, len, s->key) == NGX_OK)
    {
        s->reuse = nlcf->session_reuse;

        answer.data = ngx_pnalloc(r->pool, NGX_NANGO_SESSION_ANSWER_MAX);
        if (answer.data == NULL) {
            free(body);
            return NGX_HTTP_INTERNAL_SERVER_ERROR;
        }

        if (ngx_nango_session_find(s->key, answer.data, &answer.len)
            == NGX_OK)
        {
            free(body);
            ngx_nango_count(NGX_NANGO_SESSIONS_REUSED);
            ngx_str_set(&ctx->result, "reused");

            return ngx_http_nango_answer(r, NGX_HTTP_OK, &answer);
        }
    }

    blocked = ngx_nango_account_blocked(&env->account);

    if (blocked) {
        free(body);
        ngx_nango_count(NGX_NANGO_SESSIONS_FAILED);
        return ngx_http_nango_rate_limited(r, blocked);
    }

    cln = ngx_http_cleanup_add(r, 0);
    t = ngx_nango_transfer_create();

    if (cln == NULL || t == NULL) {
        free(body);
        free(t);
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    t->environment = env;
    t->method = "POST";
    t->path = "/connect/sessions";
    t->body = body;
    t->body_len = len;
    t->handler = ngx_http_nango_session_done;
    t->data = s;

    rc = ngx_nango_transfer_start(t);

    if (rc != NGX_OK) {
        ngx_nango_transfer_free(t);
        ngx_nango_count(NGX_NANGO_SESSIONS_FAILED);

        ngx_log_error(NGX_LOG_ERR, r->connection->log, 0,
                      "nango: the API of environment \"%V\" cannot be asked: "
                      "%s", &env->name,
                      rc == NGX_BUSY ? "too many requests wait for it"
                                     : "no memory");

        return ngx_http_nango_error(r, NGX_HTTP_SERVICE_UNAVAILABLE,
                                    "nango_unavailable",
                                    "Nango cannot be reached now");
    }

    s->transfer = t;

    cln->handler = ngx_http_nango_session_cleanup;
    cln->data = s;

    return NGX_AGAIN;
}


static ngx_int_t
ngx_http_nango_session_key(ngx_nango_environment_t *env, char *body,
    size_t len, u_char *key)
{
    ngx_int_t    rc;
    EVP_MD_CTX  *md;

    md = EVP_MD_CTX_new();
    if (md == NULL) {
        return NGX_ERROR;
    }

    rc = NGX_ERROR;

    if (EVP_DigestInit_ex(md, EVP_sha256(), NULL) == 1
        && EVP_DigestUpdate(md, env->key, NANGO_KEY_LEN) == 1
        && EVP_DigestUpdate(md, env->api.data, env->api.len) == 1
        && EVP_DigestUpdate(md, "\n", 1) == 1
        && EVP_DigestUpdate(md, env->api_public.data, env->api_public.len)
           == 1
        && EVP_DigestUpdate(md, "\n", 1) == 1
        && EVP_DigestUpdate(md, env->connect_ui.data, env->connect_ui.len)
           == 1
        && EVP_DigestUpdate(md, "\n", 1) == 1
        && EVP_DigestUpdate(md, env->authorization.data,
                            env->authorization.len)
           == 1
        && EVP_DigestUpdate(md, "\n", 1) == 1
        && EVP_DigestUpdate(md, body, len) == 1
        && EVP_DigestFinal_ex(md, key, NULL) == 1)
    {
        rc = NGX_OK;
    }

    EVP_MD_CTX_free(md);

    return rc;
}


static void
ngx_http_nango_session_done(ngx_nango_transfer_t *t)
{
    ngx_int_t                  rc;
    ngx_http_request_t        *r;
    ngx_http_nango_ctx_t      *ctx;
    ngx_http_nango_session_t  *s;

    s = t->data;
    r = s->request;

    s->transfer = NULL;

    ctx = ngx_http_get_module_ctx(r, ngx_http_nango_module);

    ctx->api = 1;
    ctx->api_status = t->status;
    ctx->api_time = t->time;

    if (t->outcome == NGX_NANGO_TRANSFER_DONE && t->status == 201) {
        rc = ngx_http_nango_session_answer(r, t);

    } else {
        rc = NGX_DECLINED;
    }

    if (rc == NGX_DECLINED) {
        ngx_nango_count(NGX_NANGO_SESSIONS_FAILED);
        rc = ngx_http_nango_session_failed(r, t);
    }

    ngx_http_nango_finish(r, rc);
}


/* NGX_DECLINED: this is no session. */

static ngx_int_t
ngx_http_nango_session_answer(ngx_http_request_t *r, ngx_nango_transfer_t *t)
{
    int                        prc;
    char                      *p;
    size_t                     len;
    ngx_str_t                  answer;
    nango_session_reply_t      reply;
    ngx_http_nango_ctx_t      *ctx;
    ngx_nango_environment_t   *env;
    ngx_http_nango_session_t  *s;

    if (!t->json) {
        return NGX_DECLINED;
    }

    prc = nango_session_reply_parse(&reply, ngx_nango_str(&t->reply));

    if (prc == -2) {
        goto no_memory;
    }

    if (prc != 0) {
        return NGX_DECLINED;
    }

    ctx = ngx_http_get_module_ctx(r, ngx_http_nango_module);
    env = t->environment;
    s = ctx->state;

    p = nango_session_answer(&reply, ngx_nango_str(&env->api_public),
                             ngx_nango_str(&env->connect_ui),
                             ngx_strcmp(env->api_public.data,
                                        NGX_NANGO_CLOUD_API)
                             != 0,
                             &len);

    nango_session_reply_free(&reply);

    if (p == NULL) {
        goto no_memory;
    }

    answer.len = len;
    answer.data = ngx_pnalloc(r->pool, len);

    if (answer.data) {
        ngx_memcpy(answer.data, p, len);
    }

    free(p);

    if (answer.data == NULL) {
        goto no_memory;
    }

    if (s->reuse) {
        ngx_nango_session_store(s->key, answer.data, answer.len, s->reuse);
    }

    ngx_nango_count(NGX_NANGO_SESSIONS_ISSUED);

    return ngx_http_nango_answer(r, NGX_HTTP_OK, &answer);

no_memory:

    ngx_nango_count(NGX_NANGO_SESSIONS_FAILED);

    ngx_log_error(NGX_LOG_ERR, r->connection->log, 0,
                  "nango: no memory to answer with the session");

    return NGX_HTTP_INTERNAL_SERVER_ERROR;
}


static ngx_int_t
ngx_http_nango_session_failed(ngx_http_request_t *r, ngx_nango_transfer_t *t)
{
    time_t                    seconds;
    nango_api_error_t         error;
    ngx_nango_environment_t  *env;

    env = t->environment;

    switch (t->outcome) {

    case NGX_NANGO_TRANSFER_UNAVAILABLE:
        ngx_log_error(NGX_LOG_ERR, r->connection->log, 0,
                      "nango: POST %V%s failed: %s", &env->api, t->path,
                      t->error);

        return ngx_http_nango_error(r, NGX_HTTP_SERVICE_UNAVAILABLE,
                                    "nango_unavailable",
                                    "Nango cannot be reached now");

    case NGX_NANGO_TRANSFER_TIMEOUT:
        ngx_log_error(NGX_LOG_ERR, r->connection->log, 0,
                      "nango: POST %V%s: no answer after %M ms%s", &env->api,
                      t->path, t->time,
                      t->error ? "" : ", all of them spent waiting for one of "
                                      "api_connections");

        return ngx_http_nango_error(r, NGX_HTTP_GATEWAY_TIME_OUT,
                                    "nango_timeout",
                                    "Nango did not answer in time");

    case NGX_NANGO_TRANSFER_MALFORMED:
        ngx_log_error(NGX_LOG_ERR, r->connection->log, 0,
                      "nango: POST %V%s failed: %s", &env->api, t->path,
                      t->error);
        break;

    default: /* NGX_NANGO_TRANSFER_DONE */

        if (t->status == NGX_HTTP_TOO_MANY_REQUESTS) {

            seconds = ngx_max(t->retry_after, 1);
            seconds = ngx_min(seconds, NGX_HTTP_NANGO_BLOCK_MAX);

            ngx_log_error(NGX_LOG_WARN, r->connection->log, 0,
                          "nango: account \"%V\" is over its rate limit; "
                          "nothing is sent to it for %T s", &env->account,
                          seconds);

            ngx_nango_account_block(&env->account, seconds);

            return ngx_http_nango_rate_limited(r, seconds);
        }

        nango_api_error_parse(&error, ngx_nango_str(&t->reply));

        ngx_log_error(NGX_LOG_ERR, r->connection->log, 0,
                      "nango: POST %V%s answered %ui, not a session: "
                      "\"%s\", \"%s\"%s", &env->api, t->path, t->status,
                      error.code, error.message,
                      t->status == NGX_HTTP_UNAUTHORIZED
                      ? "; check the api_key of this environment" : "");
        break;
    }

    return ngx_http_nango_error(r, NGX_HTTP_BAD_GATEWAY, "nango_error",
                                "Nango did not issue a session");
}


static void
ngx_http_nango_session_cleanup(void *data)
{
    ngx_http_nango_session_t *s = data;

    if (s->transfer) {
        ngx_nango_transfer_abandon(s->transfer);
        s->transfer = NULL;
    }
}
