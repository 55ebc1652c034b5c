/*
 * Copyright (C) nginx-nango authors
 *
 * A session token from Nango, for nango_session and nango_reconnect: what the
 * configuration adds to a session, the reuse of a recent token, the owner's
 * limit, the call and its answer.
 */

#include "ngx_http_nango.h"
#include "ngx_http_nango_call.h"
#include "ngx_nango_shared.h"

#include <openssl/evp.h>


typedef struct {
    ngx_http_nango_call_t  call;
    u_char                 key[NGX_NANGO_SESSION_KEY_LEN];
    time_t                 reuse;
} ngx_http_nango_issue_t;


static ngx_int_t ngx_http_nango_issue_key(ngx_nango_environment_t *env,
    const char *path, char *body, size_t len, u_char *key);
static ngx_int_t ngx_http_nango_issue_done(ngx_http_request_t *r,
    ngx_http_nango_call_t *call, ngx_nango_transfer_t *t);
static void ngx_http_nango_issue_failed(ngx_http_request_t *r,
    ngx_http_nango_call_t *call);


ngx_int_t
ngx_http_nango_issue(ngx_http_request_t *r, nango_session_t *session,
    ngx_uint_t nowners)
{
    char                       *body;
    size_t                      len;
    ngx_int_t                   rc;
    ngx_str_t                   answer;
    const char                 *error;
    nango_tag_t                 owners[NANGO_TAGS_MAX];
    ngx_http_nango_ctx_t       *ctx;
    ngx_http_nango_issue_t     *issue;
    ngx_nango_environment_t    *env;
    ngx_http_nango_loc_conf_t  *nlcf;

    nlcf = ngx_http_get_module_loc_conf(r, ngx_http_nango_module);
    env = nlcf->endpoint.environment;

    ctx = ngx_http_nango_ctx(r);
    issue = ngx_pcalloc(r->pool, sizeof(ngx_http_nango_issue_t));

    if (ctx == NULL || issue == NULL
        || ngx_http_nango_session_extras(r, session) != NGX_OK)
    {
        return NGX_ERROR;
    }

    session->format = env->session_format;

    body = nango_session_body(session, &len, &error);

    if (body == NULL) {

        if (error == NULL) {
            return NGX_ERROR;
        }

        ngx_log_error(NGX_LOG_ERR, r->connection->log, 0,
                      "nango: the session cannot be asked for: %s", error);

        return ngx_http_nango_error(r, NGX_HTTP_BAD_REQUEST, "invalid_tag",
                                    "The caller's tags cannot be sent to "
                                    "Nango");
    }

    issue->call.path = session->connection_id.data
                       ? "/connect/sessions/reconnect" : "/connect/sessions";

    if (nlcf->session_reuse
        && ngx_http_nango_issue_key(env, issue->call.path, body, len,
                                    issue->key)
           == NGX_OK)
    {
        issue->reuse = nlcf->session_reuse;

        answer.data = ngx_pnalloc(r->pool, NGX_NANGO_SESSION_ANSWER_MAX);
        if (answer.data == NULL) {
            free(body);
            return NGX_ERROR;
        }

        if (ngx_nango_session_find(issue->key, answer.data, &answer.len)
            == NGX_OK)
        {
            free(body);
            ngx_nango_count(NGX_NANGO_SESSIONS_REUSED);
            ngx_str_set(&ctx->result, "reused");

            return ngx_http_nango_answer(r, NGX_HTTP_OK, &answer);
        }
    }

    ngx_memcpy(owners, session->tags, nowners * sizeof(nango_tag_t));

    if (ngx_http_nango_limited(r, env, owners, nowners, &rc) != NGX_OK) {
        free(body);
        return rc;
    }

    issue->call.environment = env;
    issue->call.method = "POST";
    issue->call.name = issue->call.path;
    issue->call.wanted = "a session";
    issue->call.message = "Nango did not issue a session";
    issue->call.body = body;
    issue->call.body_len = len;
    issue->call.handler = ngx_http_nango_issue_done;
    issue->call.failed = ngx_http_nango_issue_failed;
    issue->call.data = issue;

    rc = ngx_http_nango_call(r, &issue->call);

    if (rc != NGX_AGAIN) {
        ngx_nango_count(NGX_NANGO_SESSIONS_FAILED);
    }

    return rc;
}


static ngx_int_t
ngx_http_nango_issue_key(ngx_nango_environment_t *env, const char *path,
    char *body, size_t len, u_char *key)
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
        && EVP_DigestUpdate(md, path, ngx_strlen(path)) == 1
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


static ngx_int_t
ngx_http_nango_issue_done(ngx_http_request_t *r, ngx_http_nango_call_t *call,
    ngx_nango_transfer_t *t)
{
    int                       rc;
    char                     *p;
    size_t                    len;
    ngx_str_t                 answer;
    nango_session_reply_t     reply;
    ngx_http_nango_issue_t   *issue;
    ngx_nango_environment_t  *env;

    if (t->status != 201 || !t->json) {
        return NGX_DECLINED;
    }

    rc = nango_session_reply_parse(&reply, ngx_nango_str(&t->reply));

    if (rc == -2) {
        goto no_memory;
    }

    if (rc != 0) {
        return NGX_DECLINED;
    }

    env = t->environment;
    issue = call->data;

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

    if (issue->reuse) {
        ngx_nango_session_store(issue->key, answer.data, answer.len,
                                issue->reuse);
    }

    ngx_nango_count(NGX_NANGO_SESSIONS_ISSUED);

    return ngx_http_nango_answer(r, NGX_HTTP_OK, &answer);

no_memory:

    ngx_nango_count(NGX_NANGO_SESSIONS_FAILED);

    ngx_log_error(NGX_LOG_ERR, r->connection->log, 0,
                  "nango: no memory to answer with the session");

    return NGX_HTTP_INTERNAL_SERVER_ERROR;
}


static void
ngx_http_nango_issue_failed(ngx_http_request_t *r, ngx_http_nango_call_t *call)
{
    ngx_nango_count(NGX_NANGO_SESSIONS_FAILED);
}
