/*
 * Copyright (C) nginx-nango authors
 *
 * deliver name url [types=...] [timeout=20s] [connect_timeout=5s]
 *         [concurrency=16] [max_age=3d] [repairs=on|off] [from=start|now]
 *         [header=Name:SECRET]... [trusted_certificate=path] [verify=on|off];
 *
 * In a nango_environment: a backend that its events are sent to.
 *
 * A URL may have somebody's token in it, and what stands beside a misspelt
 * name may be a secret.  So no message here repeats more of a line than the
 * names in it.
 */

#include "ngx_http_nango.h"
#include "ngx_nango_secret.h"

#include "nango_delivery.h"

#include <sys/un.h>

#include <openssl/crypto.h>


#define NGX_HTTP_NANGO_DELIVER_TIMEOUT          20000
#define NGX_HTTP_NANGO_DELIVER_CONNECT_TIMEOUT  5000
#define NGX_HTTP_NANGO_DELIVER_CONCURRENCY      16
#define NGX_HTTP_NANGO_DELIVER_CONCURRENCY_MAX  1024
#define NGX_HTTP_NANGO_DELIVER_MAX_AGE          (3 * 24 * 60 * 60 * 1000ULL)


typedef struct {
    ngx_nango_subscriber_t   *subscriber;
    ngx_str_t                 value;        /* of the option */
    ngx_uint_t                https;
    ngx_uint_t                seen;         /* options, by their number */
} ngx_http_nango_deliver_ctx_t;


typedef char *(*ngx_http_nango_option_pt)(ngx_conf_t *cf,
    ngx_http_nango_deliver_ctx_t *ctx, size_t offset);


typedef struct {
    ngx_str_t                 name;
    ngx_http_nango_option_pt  handler;
    size_t                    offset;
    ngx_uint_t                several;
} ngx_http_nango_option_t;


static char *ngx_http_nango_deliver_url(ngx_conf_t *cf,
    ngx_http_nango_deliver_ctx_t *ctx, ngx_str_t *url);
static char *ngx_http_nango_deliver_unix(ngx_conf_t *cf,
    ngx_http_nango_deliver_ctx_t *ctx, ngx_str_t *scheme, ngx_str_t *rest);
static char *ngx_http_nango_deliver_option(ngx_conf_t *cf,
    ngx_http_nango_deliver_ctx_t *ctx, ngx_str_t *arg);
static char *ngx_http_nango_deliver_types(ngx_conf_t *cf,
    ngx_http_nango_deliver_ctx_t *ctx, size_t offset);
static char *ngx_http_nango_deliver_msec(ngx_conf_t *cf,
    ngx_http_nango_deliver_ctx_t *ctx, size_t offset);
static char *ngx_http_nango_deliver_concurrency(ngx_conf_t *cf,
    ngx_http_nango_deliver_ctx_t *ctx, size_t offset);
static char *ngx_http_nango_deliver_max_age(ngx_conf_t *cf,
    ngx_http_nango_deliver_ctx_t *ctx, size_t offset);
static char *ngx_http_nango_deliver_flag(ngx_conf_t *cf,
    ngx_http_nango_deliver_ctx_t *ctx, size_t offset);
static char *ngx_http_nango_deliver_from(ngx_conf_t *cf,
    ngx_http_nango_deliver_ctx_t *ctx, size_t offset);
static char *ngx_http_nango_deliver_header(ngx_conf_t *cf,
    ngx_http_nango_deliver_ctx_t *ctx, size_t offset);
static const char *ngx_http_nango_deliver_header_name(ngx_str_t *name);
static char *ngx_http_nango_deliver_certificate(ngx_conf_t *cf,
    ngx_http_nango_deliver_ctx_t *ctx, size_t offset);
static void ngx_http_nango_deliver_finish(ngx_conf_t *cf,
    ngx_http_nango_deliver_ctx_t *ctx);
static ngx_uint_t ngx_http_nango_deliver_upstream(ngx_conf_t *cf,
    ngx_nango_subscriber_t *s);


#define ngx_http_nango_option(name, handler, field)                          \
    { ngx_string(name), handler, offsetof(ngx_nango_subscriber_t, field), 0 }


static ngx_http_nango_option_t  ngx_http_nango_options[] = {

    ngx_http_nango_option("types", ngx_http_nango_deliver_types, types),
    ngx_http_nango_option("timeout", ngx_http_nango_deliver_msec, timeout),
    ngx_http_nango_option("connect_timeout", ngx_http_nango_deliver_msec,
                          connect_timeout),
    ngx_http_nango_option("concurrency", ngx_http_nango_deliver_concurrency,
                          concurrency),
    ngx_http_nango_option("max_age", ngx_http_nango_deliver_max_age, max_age),
    ngx_http_nango_option("repairs", ngx_http_nango_deliver_flag, repairs),
    ngx_http_nango_option("from", ngx_http_nango_deliver_from, from_start),
    { ngx_string("header"), ngx_http_nango_deliver_header, 0, 1 },
    ngx_http_nango_option("trusted_certificate",
                          ngx_http_nango_deliver_certificate,
                          trusted_certificate),
    ngx_http_nango_option("verify", ngx_http_nango_deliver_flag, verify),

    { ngx_null_string, NULL, 0, 0 }
};


static const struct {
    ngx_str_t     name;
    nango_type_e  type;
} ngx_http_nango_deliver_type[] = {
    { ngx_string("auth"), NANGO_TYPE_AUTH },
    { ngx_string("sync"), NANGO_TYPE_SYNC },
    { ngx_string("async_action"), NANGO_TYPE_ASYNC_ACTION },
    { ngx_string("forward"), NANGO_TYPE_FORWARD },
    { ngx_string("other"), NANGO_TYPE_OTHER },
    { ngx_null_string, 0 }
};


/* In lower case: what a delivery sets itself, or what frames it. */

static ngx_str_t  ngx_http_nango_deliver_own[] = {
    ngx_string("content-length"),
    ngx_string("content-type"),
    ngx_string("content-encoding"),
    ngx_string("transfer-encoding"),
    ngx_string("connection"),
    ngx_string("keep-alive"),
    ngx_string("proxy-connection"),
    ngx_string("te"),
    ngx_string("trailer"),
    ngx_string("upgrade"),
    ngx_string("expect"),
    ngx_null_string
};


char *
ngx_http_nango_deliver(ngx_conf_t *cf, ngx_nango_environment_t *env)
{
    char                          *rv;
    ngx_str_t                     *value;
    ngx_uint_t                     i;
    ngx_nango_subscriber_t        *s, **sp;
    ngx_http_nango_main_conf_t    *nmcf;
    ngx_http_nango_deliver_ctx_t   ctx;

    value = cf->args->elts;
    nmcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_nango_module);

    if (cf->args->nelts < 3) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"deliver\" needs a name and a URL");
        return NGX_CONF_ERROR;
    }

    rv = ngx_http_nango_conf_name(cf, &value[1], "subscriber");
    if (rv != NGX_CONF_OK) {
        return rv;
    }

    sp = nmcf->subscribers.elts;

    for (i = 0; i < nmcf->subscribers.nelts; i++) {
        if (sp[i]->environment == env
            && sp[i]->name.len == value[1].len
            && ngx_strncmp(sp[i]->name.data, value[1].data, value[1].len) == 0)
        {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "subscriber \"%V\" of environment \"%V\" is "
                               "defined twice, first in %V:%ui", &value[1],
                               &env->name, &sp[i]->file, sp[i]->line);
            return NGX_CONF_ERROR;
        }
    }

    /* Bodies that are files are read there. */

    if (nmcf->subscribers.nelts == 0 && ngx_thread_pool_add(cf, NULL) == NULL)
    {
        return NGX_CONF_ERROR;
    }

    s = ngx_pcalloc(cf->pool, sizeof(ngx_nango_subscriber_t));
    if (s == NULL) {
        return NGX_CONF_ERROR;
    }

    /*
     * set by ngx_pcalloc():
     *
     *     s->socket = { 0 };
     *     s->trusted_certificate = { 0 };
     *     s->headers = NULL;
     *     s->types = 0;
     *     s->from_start = 0;
     */

    s->name = value[1];
    s->index = nmcf->subscribers.nelts;
    s->environment = env;
    s->verify = 1;
    s->repairs = 1;
    s->timeout = NGX_HTTP_NANGO_DELIVER_TIMEOUT;
    s->connect_timeout = NGX_HTTP_NANGO_DELIVER_CONNECT_TIMEOUT;
    s->concurrency = NGX_HTTP_NANGO_DELIVER_CONCURRENCY;
    s->max_age = NGX_HTTP_NANGO_DELIVER_MAX_AGE;
    s->file = cf->conf_file->file.name;
    s->line = cf->conf_file->line;

    if (nango_subscriber_key(s->key, ngx_nango_str(&env->name),
                             ngx_nango_str(&s->name))
        != 0)
    {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "no memory for libcrypto");
        return NGX_CONF_ERROR;
    }

    ngx_memzero(&ctx, sizeof(ngx_http_nango_deliver_ctx_t));

    ctx.subscriber = s;

    rv = ngx_http_nango_deliver_url(cf, &ctx, &value[2]);

    for (i = 3; rv == NGX_CONF_OK && i < cf->args->nelts; i++) {
        rv = ngx_http_nango_deliver_option(cf, &ctx, &value[i]);
    }

    if (rv != NGX_CONF_OK) {
        return rv;
    }

    ngx_http_nango_deliver_finish(cf, &ctx);

    sp = ngx_array_push(&nmcf->subscribers);
    if (sp == NULL) {
        return NGX_CONF_ERROR;
    }

    *sp = s;

    return NGX_CONF_OK;
}


static char *
ngx_http_nango_deliver_url(ngx_conf_t *cf, ngx_http_nango_deliver_ctx_t *ctx,
    ngx_str_t *url)
{
    u_char                  *p, *last;
    ngx_str_t                scheme, rest;
    const char              *wrong;
    ngx_nango_subscriber_t  *s;

    s = ctx->subscriber;
    scheme.data = url->data;
    last = url->data + url->len;

    if (ngx_strncasecmp(url->data, (u_char *) "https://", 8) == 0) {
        scheme.len = 8;
        ctx->https = 1;

    } else if (ngx_strncasecmp(url->data, (u_char *) "http://", 7) == 0) {
        scheme.len = 7;

    } else {
        wrong = "must begin with \"https://\" or \"http://\"";
        goto invalid;
    }

    rest.data = url->data + scheme.len;
    rest.len = url->len - scheme.len;

    for (p = rest.data; p < last; p++) {

        if (*p <= ' ' || *p >= 0x7f || *p == '"' || *p == '<' || *p == '>'
            || *p == '\\' || *p == '^' || *p == '`' || *p == '{' || *p == '|'
            || *p == '}')
        {
            wrong = "has a character that must be percent-encoded in it";
            goto invalid;
        }

        if (*p == '$') {
            wrong = "cannot have variables in it; \"$\" is \"%24\"";
            goto invalid;
        }

        if (*p == '#') {
            wrong = "cannot have a fragment";
            goto invalid;
        }
    }

    if (rest.len >= 5 && ngx_strncmp(rest.data, "unix:", 5) == 0) {
        rest.data += 5;
        rest.len -= 5;

        return ngx_http_nango_deliver_unix(cf, ctx, &scheme, &rest);
    }

    for (p = rest.data; p < last && *p != '/' && *p != '?'; p++) {

        if (*p == '@') {
            wrong = "cannot have a user in it; use "
                    "\"header=Authorization:SECRET\"";
            goto invalid;
        }
    }

    wrong = ngx_http_nango_url_wrong(rest.data, last);

    if (wrong == NULL) {
        s->url = *url;
        return NGX_CONF_OK;
    }

invalid:

    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "the URL of subscriber \"%V\" %s", &s->name, wrong);

    return NGX_CONF_ERROR;
}


/* As nginx writes it: http://unix:/run/app.sock:/path */

static char *
ngx_http_nango_deliver_unix(ngx_conf_t *cf, ngx_http_nango_deliver_ctx_t *ctx,
    ngx_str_t *scheme, ngx_str_t *rest)
{
    u_char                  *p, *last;
    ngx_str_t                path;
    ngx_nango_subscriber_t  *s;

    static ngx_str_t  host = ngx_string("localhost");

    s = ctx->subscriber;
    last = rest->data + rest->len;

    p = ngx_strlchr(rest->data, last, ':');

    s->socket.data = rest->data;
    s->socket.len = (p ? p : last) - rest->data;

    path.data = p ? p + 1 : last;
    path.len = last - path.data;

    if (s->socket.len == 0 || s->socket.data[0] != '/'
        || (p && (path.len == 0 || path.data[0] != '/')))
    {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "the URL of subscriber \"%V\" must be written as "
                           "\"http://unix:/run/app.sock:/path\"", &s->name);
        return NGX_CONF_ERROR;
    }

    if (s->socket.len >= sizeof(((struct sockaddr_un *) NULL)->sun_path)) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "the socket's path in the URL of subscriber "
                           "\"%V\" is too long", &s->name);
        return NGX_CONF_ERROR;
    }

    s->url.len = scheme->len + host.len + path.len;
    s->url.data = ngx_pnalloc(cf->pool, s->url.len + 1);
    if (s->url.data == NULL) {
        return NGX_CONF_ERROR;
    }

    (void) ngx_sprintf(s->url.data, "%V%V%V%Z", scheme, &host, &path);

    /* In place: the colon, or the end of the argument. */

    s->socket.data[s->socket.len] = '\0';

    return NGX_CONF_OK;
}


static char *
ngx_http_nango_deliver_option(ngx_conf_t *cf,
    ngx_http_nango_deliver_ctx_t *ctx, ngx_str_t *arg)
{
    u_char                   *p;
    ngx_str_t                 name;
    ngx_uint_t                i;
    ngx_http_nango_option_t  *option;

    p = ngx_strlchr(arg->data, arg->data + arg->len, '=');

    if (p == NULL) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "an option of \"deliver\" is written as "
                           "\"name=value\"");
        return NGX_CONF_ERROR;
    }

    name.data = arg->data;
    name.len = p - arg->data;

    ctx->value.data = p + 1;
    ctx->value.len = arg->data + arg->len - ctx->value.data;

    for (i = 0; ngx_http_nango_options[i].name.len; i++) {
        option = &ngx_http_nango_options[i];

        if (option->name.len != name.len
            || ngx_strncmp(option->name.data, name.data, name.len) != 0)
        {
            continue;
        }

        if ((ctx->seen & ((ngx_uint_t) 1 << i)) && !option->several) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "\"%V=\" is duplicate", &name);
            return NGX_CONF_ERROR;
        }

        ctx->seen |= (ngx_uint_t) 1 << i;

        return option->handler(cf, ctx, option->offset);
    }

    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "unknown option \"%V=\" of \"deliver\"", &name);

    return NGX_CONF_ERROR;
}


static char *
ngx_http_nango_deliver_types(ngx_conf_t *cf, ngx_http_nango_deliver_ctx_t *ctx,
    size_t offset)
{
    u_char      *p, *last, *comma;
    ngx_str_t    name;
    ngx_uint_t   i, types;

    types = 0;
    p = ctx->value.data;
    last = p + ctx->value.len;

    for ( ;; ) {
        comma = ngx_strlchr(p, last, ',');

        name.data = p;
        name.len = (comma ? comma : last) - p;

        for (i = 0; ngx_http_nango_deliver_type[i].name.len; i++) {
            if (ngx_http_nango_deliver_type[i].name.len == name.len
                && ngx_strncmp(ngx_http_nango_deliver_type[i].name.data,
                               name.data, name.len)
                   == 0)
            {
                break;
            }
        }

        if (ngx_http_nango_deliver_type[i].name.len == 0) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "invalid type \"%V\"; there are auth, sync, "
                               "async_action, forward and other", &name);
            return NGX_CONF_ERROR;
        }

        types |= NANGO_DELIVERY_TYPE(ngx_http_nango_deliver_type[i].type);

        if (comma == NULL) {
            break;
        }

        p = comma + 1;
    }

    *(ngx_uint_t *) ((u_char *) ctx->subscriber + offset) = types;

    return NGX_CONF_OK;
}


static ngx_int_t
ngx_http_nango_deliver_time(ngx_conf_t *cf, ngx_str_t *value)
{
    ngx_int_t  msec;

    msec = ngx_parse_time(value, 0);

    if (msec == NGX_ERROR || msec == 0) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid time \"%V\" in \"deliver\"; write it as "
                           "\"20s\", \"500ms\" or \"3d\"", value);
        return NGX_ERROR;
    }

    return msec;
}


static char *
ngx_http_nango_deliver_msec(ngx_conf_t *cf, ngx_http_nango_deliver_ctx_t *ctx,
    size_t offset)
{
    ngx_int_t  msec;

    msec = ngx_http_nango_deliver_time(cf, &ctx->value);

    if (msec == NGX_ERROR) {
        return NGX_CONF_ERROR;
    }

    if (msec > NGX_HTTP_NANGO_MSEC_MAX) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "the time \"%V\" in \"deliver\" is too long; it "
                           "must be 24d at most", &ctx->value);
        return NGX_CONF_ERROR;
    }

    *(ngx_msec_t *) ((u_char *) ctx->subscriber + offset) = msec;

    return NGX_CONF_OK;
}


static char *
ngx_http_nango_deliver_max_age(ngx_conf_t *cf,
    ngx_http_nango_deliver_ctx_t *ctx, size_t offset)
{
    ngx_int_t  msec;

    msec = ngx_http_nango_deliver_time(cf, &ctx->value);

    if (msec == NGX_ERROR) {
        return NGX_CONF_ERROR;
    }

    *(uint64_t *) ((u_char *) ctx->subscriber + offset) = msec;

    return NGX_CONF_OK;
}


static char *
ngx_http_nango_deliver_concurrency(ngx_conf_t *cf,
    ngx_http_nango_deliver_ctx_t *ctx, size_t offset)
{
    ngx_int_t  n;

    n = ngx_atoi(ctx->value.data, ctx->value.len);

    if (n == NGX_ERROR || n < 1 || n > NGX_HTTP_NANGO_DELIVER_CONCURRENCY_MAX)
    {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid number \"%V\" of concurrent deliveries; "
                           "1 to %d", &ctx->value,
                           NGX_HTTP_NANGO_DELIVER_CONCURRENCY_MAX);
        return NGX_CONF_ERROR;
    }

    *(ngx_uint_t *) ((u_char *) ctx->subscriber + offset) = n;

    return NGX_CONF_OK;
}


static char *
ngx_http_nango_deliver_flag(ngx_conf_t *cf, ngx_http_nango_deliver_ctx_t *ctx,
    size_t offset)
{
    ngx_flag_t  *flag;

    flag = (ngx_flag_t *) ((u_char *) ctx->subscriber + offset);

    if (ngx_strcmp(ctx->value.data, "on") == 0) {
        *flag = 1;

    } else if (ngx_strcmp(ctx->value.data, "off") == 0) {
        *flag = 0;

    } else {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid value \"%V\" in \"deliver\"; it must be "
                           "\"on\" or \"off\"", &ctx->value);
        return NGX_CONF_ERROR;
    }

    return NGX_CONF_OK;
}


static char *
ngx_http_nango_deliver_from(ngx_conf_t *cf, ngx_http_nango_deliver_ctx_t *ctx,
    size_t offset)
{
    ngx_flag_t  *flag;

    flag = (ngx_flag_t *) ((u_char *) ctx->subscriber + offset);

    if (ngx_strcmp(ctx->value.data, "start") == 0) {
        *flag = 1;

    } else if (ngx_strcmp(ctx->value.data, "now") == 0) {
        *flag = 0;

    } else {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid value \"%V\" in \"deliver\"; it must be "
                           "\"from=start\" or \"from=now\"", &ctx->value);
        return NGX_CONF_ERROR;
    }

    return NGX_CONF_OK;
}


static char *
ngx_http_nango_deliver_header(ngx_conf_t *cf,
    ngx_http_nango_deliver_ctx_t *ctx, size_t offset)
{
    char                    *rv;
    u_char                  *p;
    ngx_str_t               *value, name, secret, *h, *v;
    ngx_uint_t               i;
    const char              *wrong;
    ngx_array_t              values;
    ngx_nango_subscriber_t  *s;

    s = ctx->subscriber;

    value = &ctx->value;

    p = ngx_strlchr(value->data, value->data + value->len, ':');

    if (p == NULL) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "a header is written as \"header=Name:SECRET\"");
        return NGX_CONF_ERROR;
    }

    name.data = value->data;
    name.len = p - value->data;

    secret.data = p + 1;
    secret.len = value->data + value->len - secret.data;

    wrong = ngx_http_nango_deliver_header_name(&name);

    if (wrong) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "the header \"%V\" %s",
                           &name, wrong);
        return NGX_CONF_ERROR;
    }

    if (s->headers == NULL) {
        s->headers = ngx_array_create(cf->pool, 2, sizeof(ngx_str_t));
        if (s->headers == NULL) {
            return NGX_CONF_ERROR;
        }
    }

    h = s->headers->elts;

    for (i = 0; i < s->headers->nelts; i++) {
        if (h[i].len > name.len && h[i].data[name.len] == ':'
            && ngx_strncasecmp(h[i].data, name.data, name.len) == 0)
        {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "the header \"%V\" is duplicate", &name);
            return NGX_CONF_ERROR;
        }
    }

    if (ngx_array_init(&values, cf->temp_pool, 1, sizeof(ngx_str_t))
        != NGX_OK)
    {
        return NGX_CONF_ERROR;
    }

    rv = ngx_nango_secret_read(cf, &secret, &values);
    if (rv != NGX_CONF_OK) {
        return rv;
    }

    if (values.nelts != 1) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "the secret of the header \"%V\" has %ui lines; a "
                           "header has one value", &name, values.nelts);
        return NGX_CONF_ERROR;
    }

    v = values.elts;

    h = ngx_array_push(s->headers);
    if (h == NULL) {
        return NGX_CONF_ERROR;
    }

    h->len = name.len + sizeof(": ") - 1 + v->len;
    h->data = ngx_pnalloc(cf->pool, h->len + 1);
    if (h->data == NULL) {
        return NGX_CONF_ERROR;
    }

    (void) ngx_sprintf(h->data, "%V: %V%Z", &name, v);

    OPENSSL_cleanse(v->data, v->len);

    return NGX_CONF_OK;
}


/* NULL, or why not. */

static const char *
ngx_http_nango_deliver_header_name(ngx_str_t *name)
{
    u_char      c;
    ngx_str_t  *own;
    ngx_uint_t  i;

    if (name->len == 0) {
        return "has no name";
    }

    for (i = 0; i < name->len; i++) {
        c = name->data[i];

        if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z')
            || (c >= '0' && c <= '9')
            || (c != '\0' && ngx_strchr("!#$%&'*+-.^_`|~", c)))
        {
            continue;
        }

        return "has a character that is in no header's name";
    }

    if (name->len >= 8
        && ngx_strncasecmp(name->data, (u_char *) "x-nango-", 8) == 0)
    {
        return "is one of those that deliveries have by themselves";
    }

    for (own = ngx_http_nango_deliver_own; own->len; own++) {
        if (name->len == own->len
            && ngx_strncasecmp(name->data, own->data, own->len) == 0)
        {
            return "is one of those that deliveries have by themselves";
        }
    }

    return NULL;
}


static char *
ngx_http_nango_deliver_certificate(ngx_conf_t *cf,
    ngx_http_nango_deliver_ctx_t *ctx, size_t offset)
{
    ngx_str_t  *path;

    path = (ngx_str_t *) ((u_char *) ctx->subscriber + offset);
    *path = ctx->value;

    return ngx_http_nango_conf_certificate(cf, path);
}


static void
ngx_http_nango_deliver_finish(ngx_conf_t *cf,
    ngx_http_nango_deliver_ctx_t *ctx)
{
    ngx_nango_subscriber_t  *s;

    s = ctx->subscriber;

    if (!ctx->https) {

        if (s->trusted_certificate.len || !s->verify) {
            ngx_conf_log_error(NGX_LOG_WARN, cf, 0,
                               "the URL of subscriber \"%V\" is no https; "
                               "there is no certificate to verify", &s->name);
        }

        if (s->headers && s->socket.len == 0
            && !ngx_http_nango_private(&s->url))
        {
            ngx_conf_log_error(NGX_LOG_WARN, cf, 0,
                               "the secrets in the headers for subscriber "
                               "\"%V\" cross the network in the clear; use "
                               "https", &s->name);
        }

        return;
    }

    if (!s->verify) {
        ngx_conf_log_error(NGX_LOG_WARN, cf, 0,
                           "the certificate of subscriber \"%V\" is not "
                           "verified: whoever answers gets its events%s",
                           &s->name, s->headers ? " and secrets" : "");
    }
}


/* When everything has been read: what depends on other directives. */

char *
ngx_http_nango_deliver_init(ngx_conf_t *cf)
{
    ngx_uint_t                    i;
    ngx_nango_environment_t      *env;
    ngx_nango_subscriber_t      **s;
    ngx_http_nango_main_conf_t   *nmcf;

    nmcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_nango_module);
    s = nmcf->subscribers.elts;
    env = NULL;

    for (i = 0; i < nmcf->subscribers.nelts; i++) {

        if (nmcf->store.path.len == 0) {
            ngx_http_nango_conf_error(NGX_LOG_EMERG, cf, &s[i]->file,
                           s[i]->line,
                           "\"deliver\" needs a store: add \"nango_store "
                           "PATH;\" to the http block");
            return NGX_CONF_ERROR;
        }

        if (s[i]->environment != env) {
            env = s[i]->environment;

            if (env->signing_keys == NULL
                && (env->authorization.len == 0 || env->reconcile == 0))
            {
                ngx_http_nango_conf_error(NGX_LOG_WARN, cf, &s[i]->file,
                               s[i]->line,
                               "environment \"%V\" has neither a "
                               "\"webhook_signing_key\" nor \"reconcile\", so "
                               "there is nothing to deliver", &env->name);
            }
        }

        if (ngx_http_nango_deliver_upstream(cf, s[i])) {
            ngx_http_nango_conf_error(NGX_LOG_WARN, cf, &s[i]->file,
                           s[i]->line,
                           "the host in the URL of subscriber \"%V\" is also "
                           "the name of an \"upstream\", which is not used "
                           "here: the host is looked up as a name",
                           &s[i]->name);
        }
    }

    return NGX_CONF_OK;
}


static ngx_uint_t
ngx_http_nango_deliver_upstream(ngx_conf_t *cf, ngx_nango_subscriber_t *s)
{
    ngx_str_t                        host;
    ngx_uint_t                       i;
    ngx_http_upstream_srv_conf_t   **uscf;
    ngx_http_upstream_main_conf_t   *umcf;

    if (s->socket.len) {
        return 0;
    }

    umcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_upstream_module);
    uscf = umcf->upstreams.elts;

    ngx_http_nango_url_host(&s->url, &host);

    for (i = 0; i < umcf->upstreams.nelts; i++) {

        /* Those that a proxy_pass made of a URL are none. */

        if ((uscf[i]->flags & NGX_HTTP_UPSTREAM_CREATE)
            && uscf[i]->host.len == host.len
            && ngx_strncasecmp(uscf[i]->host.data, host.data, host.len) == 0)
        {
            return 1;
        }
    }

    return 0;
}
