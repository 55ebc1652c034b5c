/*
 * Copyright (C) nginx-nango authors
 *
 * nango_environment name { ... }
 *
 * One Nango environment: where its API is, and its secrets.
 */

#include "ngx_http_nango.h"
#include "ngx_nango_secret.h"
#include "ngx_nango_shared.h"

#include <openssl/crypto.h>


typedef struct {
    ngx_nango_environment_t  *env;
    ngx_array_t               signing_keys;     /* ngx_str_t */
    ngx_array_t               api_keys;         /* ngx_str_t */
    uint64_t                  seen;
} ngx_http_nango_environment_ctx_t;


typedef char *(*ngx_http_nango_param_pt)(ngx_conf_t *cf,
    ngx_http_nango_environment_ctx_t *ctx, size_t offset);


typedef struct {
    ngx_str_t                 name;
    ngx_uint_t                max;      /* arguments */
    ngx_http_nango_param_pt   handler;
    size_t                    offset;
} ngx_http_nango_param_t;


static char *ngx_http_nango_environment_param(ngx_conf_t *cf,
    ngx_command_t *dummy, void *conf);
static char *ngx_http_nango_param_url(ngx_conf_t *cf,
    ngx_http_nango_environment_ctx_t *ctx, size_t offset);
static char *ngx_http_nango_param_api_key(ngx_conf_t *cf,
    ngx_http_nango_environment_ctx_t *ctx, size_t offset);
static char *ngx_http_nango_param_signing_key(ngx_conf_t *cf,
    ngx_http_nango_environment_ctx_t *ctx, size_t offset);
static char *ngx_http_nango_param_msec(ngx_conf_t *cf,
    ngx_http_nango_environment_ctx_t *ctx, size_t offset);
static char *ngx_http_nango_param_off(ngx_conf_t *cf,
    ngx_http_nango_environment_ctx_t *ctx, size_t offset);
static char *ngx_http_nango_param_connections(ngx_conf_t *cf,
    ngx_http_nango_environment_ctx_t *ctx, size_t offset);
static char *ngx_http_nango_param_certificate(ngx_conf_t *cf,
    ngx_http_nango_environment_ctx_t *ctx, size_t offset);
static char *ngx_http_nango_param_flag(ngx_conf_t *cf,
    ngx_http_nango_environment_ctx_t *ctx, size_t offset);
static char *ngx_http_nango_param_account(ngx_conf_t *cf,
    ngx_http_nango_environment_ctx_t *ctx, size_t offset);
static char *ngx_http_nango_param_format(ngx_conf_t *cf,
    ngx_http_nango_environment_ctx_t *ctx, size_t offset);
static char *ngx_http_nango_param_deliver(ngx_conf_t *cf,
    ngx_http_nango_environment_ctx_t *ctx, size_t offset);
static char *ngx_http_nango_environment_finish(ngx_conf_t *cf,
    ngx_http_nango_environment_ctx_t *ctx);
static void ngx_http_nango_keys_cleanup(void *data);


#define ngx_http_nango_param(name, max, handler, field)                      \
    { ngx_string(name), max, handler, offsetof(ngx_nango_environment_t, field) }


static ngx_http_nango_param_t  ngx_http_nango_params[] = {

    ngx_http_nango_param("api", 1, ngx_http_nango_param_url, api),
    ngx_http_nango_param("api_public", 1, ngx_http_nango_param_url,
                         api_public),
    ngx_http_nango_param("connect_ui", 1, ngx_http_nango_param_url,
                         connect_ui),
    ngx_http_nango_param("api_key", 1, ngx_http_nango_param_api_key,
                         authorization),
    ngx_http_nango_param("webhook_signing_key", 64,
                         ngx_http_nango_param_signing_key, signing_keys),
    ngx_http_nango_param("api_timeout", 1, ngx_http_nango_param_msec,
                         api_timeout),
    ngx_http_nango_param("api_connect_timeout", 1, ngx_http_nango_param_msec,
                         api_connect_timeout),
    ngx_http_nango_param("api_connections", 1,
                         ngx_http_nango_param_connections, api_connections),
    ngx_http_nango_param("api_trusted_certificate", 1,
                         ngx_http_nango_param_certificate,
                         api_trusted_certificate),
    ngx_http_nango_param("api_verify", 1, ngx_http_nango_param_flag,
                         api_verify),
    ngx_http_nango_param("account", 1, ngx_http_nango_param_account, account),
    ngx_http_nango_param("session_format", 1, ngx_http_nango_param_format,
                         session_format),
    ngx_http_nango_param("reconcile", 1, ngx_http_nango_param_off, reconcile),
    ngx_http_nango_param("dedupe", 1, ngx_http_nango_param_msec, dedupe),
    ngx_http_nango_param("deliver", 64, ngx_http_nango_param_deliver, name),

    { ngx_null_string, 0, NULL, 0 }
};


char *
ngx_http_nango_environment(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_nango_main_conf_t *nmcf = conf;

    char                              *rv;
    ngx_str_t                         *value;
    ngx_uint_t                         i;
    ngx_conf_t                         save;
    ngx_nango_environment_t           *env, **e;
    ngx_http_nango_environment_ctx_t   ctx;

    value = cf->args->elts;

    rv = ngx_http_nango_conf_name(cf, &value[1], "environment");
    if (rv != NGX_CONF_OK) {
        return rv;
    }

    e = nmcf->environments.elts;

    for (i = 0; i < nmcf->environments.nelts; i++) {
        if (e[i]->name.len == value[1].len
            && ngx_strncmp(e[i]->name.data, value[1].data, value[1].len) == 0)
        {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "environment \"%V\" is defined twice, first "
                               "in %V:%ui", &value[1], &e[i]->file,
                               e[i]->line);
            return NGX_CONF_ERROR;
        }
    }

    if (nmcf->environments.nelts == NGX_NANGO_ENVIRONMENTS) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "environment \"%V\" is one too many, there may be "
                           "%d; let another nginx have some", &value[1],
                           NGX_NANGO_ENVIRONMENTS);
        return NGX_CONF_ERROR;
    }

    env = ngx_pcalloc(cf->pool, sizeof(ngx_nango_environment_t));
    if (env == NULL) {
        return NGX_CONF_ERROR;
    }

    env->name = value[1];
    env->index = nmcf->environments.nelts;
    env->file = cf->conf_file->file.name;
    env->line = cf->conf_file->line;

    env->api_timeout = NGX_CONF_UNSET_MSEC;
    env->api_connect_timeout = NGX_CONF_UNSET_MSEC;
    env->api_connections = NGX_CONF_UNSET;
    env->api_verify = NGX_CONF_UNSET;
    env->session_format = NGX_CONF_UNSET_UINT;
    env->reconcile = NGX_CONF_UNSET_MSEC;
    env->dedupe = NGX_CONF_UNSET_MSEC;

    if (nango_environment_key(env->key, ngx_nango_str(&env->name)) != 0) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "no memory for libcrypto");
        return NGX_CONF_ERROR;
    }

    ngx_memzero(&ctx, sizeof(ngx_http_nango_environment_ctx_t));

    ctx.env = env;

    if (ngx_array_init(&ctx.signing_keys, cf->temp_pool, 4, sizeof(ngx_str_t))
        != NGX_OK
        || ngx_array_init(&ctx.api_keys, cf->temp_pool, 1, sizeof(ngx_str_t))
           != NGX_OK)
    {
        return NGX_CONF_ERROR;
    }

    save = *cf;
    cf->handler = ngx_http_nango_environment_param;
    cf->handler_conf = (void *) &ctx;

    rv = ngx_conf_parse(cf, NULL);

    *cf = save;

    if (rv != NGX_CONF_OK) {
        return rv;
    }

    rv = ngx_http_nango_environment_finish(cf, &ctx);
    if (rv != NGX_CONF_OK) {
        return rv;
    }

    e = ngx_array_push(&nmcf->environments);
    if (e == NULL) {
        return NGX_CONF_ERROR;
    }

    *e = env;

    return NGX_CONF_OK;
}


static char *
ngx_http_nango_environment_param(ngx_conf_t *cf, ngx_command_t *dummy,
    void *conf)
{
    ngx_str_t                         *value;
    ngx_uint_t                         i;
    ngx_http_nango_param_t            *param;
    ngx_http_nango_environment_ctx_t  *ctx;

    ctx = cf->handler_conf;
    value = cf->args->elts;

    for (i = 0; ngx_http_nango_params[i].name.len; i++) {
        param = &ngx_http_nango_params[i];

        if (param->name.len != value[0].len
            || ngx_strncmp(param->name.data, value[0].data, value[0].len) != 0)
        {
            continue;
        }

        if (cf->args->nelts < 2 || cf->args->nelts > param->max + 1) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "invalid number of arguments in \"%V\"",
                               &value[0]);
            return NGX_CONF_ERROR;
        }

        /* Keys may come on several lines, everything else once. */

        if ((ctx->seen & ((uint64_t) 1 << i)) && param->max == 1) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "\"%V\" is duplicate",
                               &value[0]);
            return NGX_CONF_ERROR;
        }

        ctx->seen |= (uint64_t) 1 << i;

        return param->handler(cf, ctx, param->offset);
    }

    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "unknown parameter \"%V\" of an environment", &value[0]);

    return NGX_CONF_ERROR;
}


/*
 * http or https, a host, perhaps a port and a path; no user, query or
 * fragment.
 */

static char *
ngx_http_nango_param_url(ngx_conf_t *cf,
    ngx_http_nango_environment_ctx_t *ctx, size_t offset)
{
    u_char      *p, *last;
    ngx_str_t   *value, *url;
    const char  *wrong;

    value = cf->args->elts;
    url = (ngx_str_t *) ((u_char *) ctx->env + offset);

    p = value[1].data;
    last = p + value[1].len;

    if (ngx_strncasecmp(p, (u_char *) "https://", 8) == 0) {
        p += 8;

    } else if (ngx_strncasecmp(p, (u_char *) "http://", 7) == 0) {
        p += 7;

    } else {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid URL \"%V\"; it must begin with "
                           "\"https://\" or \"http://\"", &value[1]);
        return NGX_CONF_ERROR;
    }

    if (p == last || *p == '/' || *p == ':') {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "no host in URL \"%V\"",
                           &value[1]);
        return NGX_CONF_ERROR;
    }

    wrong = ngx_http_nango_url_wrong(p, last);

    for ( /* void */ ; p < last; p++) {

        if (*p <= ' ' || *p >= 0x7f || *p == '?' || *p == '#' || *p == '@'
            || *p == '"' || *p == '\\' || *p == '<' || *p == '>')
        {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "invalid URL \"%V\"; a scheme, a host, a port "
                               "and a path may be in it, and no user, query "
                               "or fragment", &value[1]);
            return NGX_CONF_ERROR;
        }
    }

    if (wrong) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid URL \"%V\": it %s", &value[1], wrong);
        return NGX_CONF_ERROR;
    }

    while (last[-1] == '/') {
        *--last = '\0';
    }

    url->data = value[1].data;
    url->len = last - value[1].data;

    return NGX_CONF_OK;
}


static char *
ngx_http_nango_param_api_key(ngx_conf_t *cf,
    ngx_http_nango_environment_ctx_t *ctx, size_t offset)
{
    char       *rv;
    ngx_str_t  *value, *key, *header;

    value = cf->args->elts;

    rv = ngx_nango_secret_read(cf, &value[1], &ctx->api_keys);
    if (rv != NGX_CONF_OK) {
        return rv;
    }

    if (ctx->api_keys.nelts != 1) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"api_key\" has %ui keys; Nango's API is asked "
                           "with one", ctx->api_keys.nelts);
        return NGX_CONF_ERROR;
    }

    key = ctx->api_keys.elts;
    header = &ctx->env->authorization;

    header->len = sizeof("Authorization: Bearer ") - 1 + key->len;
    header->data = ngx_pnalloc(cf->pool, header->len + 1);
    if (header->data == NULL) {
        return NGX_CONF_ERROR;
    }

    (void) ngx_sprintf(header->data, "Authorization: Bearer %V%Z", key);

    return NGX_CONF_OK;
}


static char *
ngx_http_nango_param_signing_key(ngx_conf_t *cf,
    ngx_http_nango_environment_ctx_t *ctx, size_t offset)
{
    char        *rv;
    ngx_str_t   *value;
    ngx_uint_t   i;

    value = cf->args->elts;

    for (i = 1; i < cf->args->nelts; i++) {
        rv = ngx_nango_secret_read(cf, &value[i], &ctx->signing_keys);
        if (rv != NGX_CONF_OK) {
            return rv;
        }
    }

    if (ctx->signing_keys.nelts > NANGO_KEYS_MAX) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "more than %d signing keys; each costs time for "
                           "every webhook, so remove those rotated out",
                           NANGO_KEYS_MAX);
        return NGX_CONF_ERROR;
    }

    return NGX_CONF_OK;
}


static char *
ngx_http_nango_param_msec(ngx_conf_t *cf,
    ngx_http_nango_environment_ctx_t *ctx, size_t offset)
{
    ngx_str_t   *value;
    ngx_msec_t  *msec;

    value = cf->args->elts;
    msec = (ngx_msec_t *) ((u_char *) ctx->env + offset);

    *msec = ngx_parse_time(&value[1], 0);

    if (*msec == (ngx_msec_t) NGX_ERROR || *msec == 0) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid time \"%V\" in \"%V\"; write it as "
                           "\"10s\" or \"500ms\"", &value[1], &value[0]);
        return NGX_CONF_ERROR;
    }

    if (*msec > NGX_HTTP_NANGO_MSEC_MAX) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "the time \"%V\" in \"%V\" is too long; it must "
                           "be 24d at most", &value[1], &value[0]);
        return NGX_CONF_ERROR;
    }

    return NGX_CONF_OK;
}


static char *
ngx_http_nango_param_off(ngx_conf_t *cf,
    ngx_http_nango_environment_ctx_t *ctx, size_t offset)
{
    char        *rv;
    ngx_str_t   *value;
    ngx_msec_t  *msec;

    value = cf->args->elts;

    msec = (ngx_msec_t *) ((u_char *) ctx->env + offset);

    if (ngx_strcmp(value[1].data, "off") == 0) {
        *msec = 0;
        return NGX_CONF_OK;
    }

    rv = ngx_http_nango_param_msec(cf, ctx, offset);

    if (rv == NGX_CONF_OK && *msec < 1000) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "the time \"%V\" in \"%V\" is too short; it must "
                           "be 1s at least", &value[1], &value[0]);
        return NGX_CONF_ERROR;
    }

    return rv;
}


static char *
ngx_http_nango_param_connections(ngx_conf_t *cf,
    ngx_http_nango_environment_ctx_t *ctx, size_t offset)
{
    ngx_int_t   n;
    ngx_str_t  *value;

    value = cf->args->elts;
    n = ngx_atoi(value[1].data, value[1].len);

    if (n == NGX_ERROR || n < 1 || n > 10000) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid number \"%V\" of connections; 1 to 10000",
                           &value[1]);
        return NGX_CONF_ERROR;
    }

    ctx->env->api_connections = n;

    return NGX_CONF_OK;
}


static char *
ngx_http_nango_param_certificate(ngx_conf_t *cf,
    ngx_http_nango_environment_ctx_t *ctx, size_t offset)
{
    ngx_str_t  *value, *path;

    value = cf->args->elts;

    path = (ngx_str_t *) ((u_char *) ctx->env + offset);
    *path = value[1];

    return ngx_http_nango_conf_certificate(cf, path);
}


static char *
ngx_http_nango_param_flag(ngx_conf_t *cf,
    ngx_http_nango_environment_ctx_t *ctx, size_t offset)
{
    ngx_str_t   *value;
    ngx_flag_t  *flag;

    value = cf->args->elts;
    flag = (ngx_flag_t *) ((u_char *) ctx->env + offset);

    if (ngx_strcmp(value[1].data, "on") == 0) {
        *flag = 1;

    } else if (ngx_strcmp(value[1].data, "off") == 0) {
        *flag = 0;

    } else {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid value \"%V\" in \"%V\"; it must be \"on\" "
                           "or \"off\"", &value[1], &value[0]);
        return NGX_CONF_ERROR;
    }

    return NGX_CONF_OK;
}


static char *
ngx_http_nango_param_account(ngx_conf_t *cf,
    ngx_http_nango_environment_ctx_t *ctx, size_t offset)
{
    ngx_str_t  *value;

    value = cf->args->elts;

    if (value[1].len == 0) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "an account needs a name");
        return NGX_CONF_ERROR;
    }

    ctx->env->account = value[1];

    return NGX_CONF_OK;
}


static char *
ngx_http_nango_param_format(ngx_conf_t *cf,
    ngx_http_nango_environment_ctx_t *ctx, size_t offset)
{
    ngx_str_t  *value;

    value = cf->args->elts;

    if (ngx_strcmp(value[1].data, "tags") == 0) {
        ctx->env->session_format = NANGO_SESSION_TAGS;

    } else if (ngx_strcmp(value[1].data, "end_user") == 0) {
        ctx->env->session_format = NANGO_SESSION_END_USER;

    } else if (ngx_strcmp(value[1].data, "both") == 0) {
        ctx->env->session_format = NANGO_SESSION_BOTH;

    } else {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid session format \"%V\"; it must be "
                           "\"tags\", \"end_user\" or \"both\"", &value[1]);
        return NGX_CONF_ERROR;
    }

    return NGX_CONF_OK;
}


static char *
ngx_http_nango_param_deliver(ngx_conf_t *cf,
    ngx_http_nango_environment_ctx_t *ctx, size_t offset)
{
    return ngx_http_nango_deliver(cf, ctx->env);
}


static char *
ngx_http_nango_environment_finish(ngx_conf_t *cf,
    ngx_http_nango_environment_ctx_t *ctx)
{
    ngx_str_t                *key;
    ngx_uint_t                i;
    ngx_pool_cleanup_t       *cln;
    ngx_nango_environment_t  *env;

    static ngx_str_t  api = ngx_string(NGX_NANGO_CLOUD_API);
    static ngx_str_t  connect_ui = ngx_string(NGX_NANGO_CLOUD_UI);

    env = ctx->env;

    if (env->authorization.len == 0 && ctx->signing_keys.nelts == 0) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "environment \"%V\" has neither an \"api_key\" nor "
                           "a \"webhook_signing_key\"", &env->name);
        return NGX_CONF_ERROR;
    }

    if (env->api.len == 0) {
        env->api = api;

    } else if (ngx_http_nango_private(&env->api)) {

        if (env->api_public.len == 0) {
            ngx_conf_log_error(NGX_LOG_WARN, cf, 0,
                               "browsers cannot reach the private \"api\" "
                               "\"%V\" of environment \"%V\"; set "
                               "\"api_public\"", &env->api, &env->name);
        }

    } else if (ngx_strncasecmp(env->api.data, (u_char *) "http://", 7) == 0
               && env->authorization.len)
    {
        ngx_conf_log_error(NGX_LOG_WARN, cf, 0,
                           "the API key of environment \"%V\" crosses the "
                           "network in the clear; use https in \"api\"",
                           &env->name);
    }

    if (env->api_public.len == 0) {
        env->api_public = env->api;
    }

    if (env->connect_ui.len == 0) {

        if (env->authorization.len
            && (env->api.len != api.len
                || ngx_strncmp(env->api.data, api.data, api.len) != 0))
        {
            ngx_conf_log_error(NGX_LOG_WARN, cf, 0,
                               "environment \"%V\" has an \"api\" of its own "
                               "and no \"connect_ui\"; browsers are sent to "
                               "that of Nango's cloud, \"%V\"", &env->name,
                               &connect_ui);
        }

        env->connect_ui = connect_ui;
    }

    if (env->account.len == 0) {
        env->account = env->api;
    }

    ngx_conf_init_msec_value(env->api_timeout, 10000);
    ngx_conf_init_msec_value(env->api_connect_timeout, 3000);
    ngx_conf_init_value(env->api_connections, 32);
    ngx_conf_init_value(env->api_verify, 1);
    ngx_conf_init_uint_value(env->session_format, NANGO_SESSION_TAGS);
    ngx_conf_init_msec_value(env->reconcile, 300000);
    ngx_conf_init_msec_value(env->dedupe, 120000);

    if (!env->api_verify) {
        ngx_conf_log_error(NGX_LOG_WARN, cf, 0,
                           "the certificate of environment \"%V\" is not "
                           "verified: whoever answers gets its API key",
                           &env->name);
    }

    if (ctx->signing_keys.nelts == 0) {
        return NGX_CONF_OK;
    }

    cln = ngx_pool_cleanup_add(cf->pool, 0);
    if (cln == NULL) {
        return NGX_CONF_ERROR;
    }

    env->signing_keys = nango_keys_create();
    if (env->signing_keys == NULL) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "no memory for signing keys");
        return NGX_CONF_ERROR;
    }

    cln->handler = ngx_http_nango_keys_cleanup;
    cln->data = env->signing_keys;

    key = ctx->signing_keys.elts;

    for (i = 0; i < ctx->signing_keys.nelts; i++) {

        if (nango_keys_add(env->signing_keys, ngx_nango_str(&key[i])) != 0) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "a signing key of environment \"%V\" could not "
                               "be used", &env->name);
            return NGX_CONF_ERROR;
        }

        /* The prepared key is enough. */

        OPENSSL_cleanse(key[i].data, key[i].len);
    }

    return NGX_CONF_OK;
}


static void
ngx_http_nango_keys_cleanup(void *data)
{
    nango_keys_free(data);
}
