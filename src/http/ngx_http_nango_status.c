/*
 * Copyright (C) nginx-nango authors
 *
 * nango_status [manage];
 *
 * How the module is doing, for people and for their monitoring: counts, and
 * with "manage" the events that a subscriber is owed, and what can be done
 * about them.  It answers 200 whatever the store is like, since this is where
 * one looks when something is wrong.
 */

#include "ngx_http_nango_status.h"
#include "ngx_http_nango_look.h"


typedef enum {
    NGX_HTTP_NANGO_STATUS_JSON = 0,
    NGX_HTTP_NANGO_STATUS_PROMETHEUS,
    NGX_HTTP_NANGO_STATUS_HTML
} ngx_http_nango_status_e;


typedef struct {
    ngx_http_nango_look_t      look;
    ngx_http_nango_status_e    format;
    ngx_http_nango_status_t    status;
} ngx_http_nango_status_ctx_t;


/* For what visits the store on behalf of a request. */
typedef struct {
    ngx_http_request_t        *request;
    ngx_http_nango_status_t   *status;
    ngx_uint_t                 failed;
} ngx_http_nango_status_visit_t;


static ngx_int_t ngx_http_nango_status_handler(ngx_http_request_t *r);
static ngx_int_t ngx_http_nango_status_get(ngx_http_request_t *r);
static ngx_int_t ngx_http_nango_status_format(ngx_http_request_t *r,
    ngx_http_nango_status_e *format);
static ngx_uint_t ngx_http_nango_accepts(ngx_str_t *accept, const char *type);
static ngx_int_t ngx_http_nango_status_look(ngx_http_request_t *r,
    nango_reader_t *reader, void *data);
static void ngx_http_nango_status_stored(void *data,
    const nango_stored_t *stored);
static void ngx_http_nango_status_ledger(void *data,
    const nango_ledger_t *ledger);
static ngx_int_t ngx_http_nango_status_then(ngx_http_request_t *r,
    ngx_int_t rc, void *data);
static ngx_int_t ngx_http_nango_status_configured(ngx_http_request_t *r,
    ngx_http_nango_status_t *st);
static void ngx_http_nango_status_live(ngx_http_nango_status_t *st);


char *
ngx_http_nango_status(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_nango_loc_conf_t *nlcf = conf;

    char                        *rv;
    ngx_str_t                   *value;
    ngx_http_nango_endpoint_t   *ep;
    ngx_http_nango_main_conf_t  *nmcf;

    value = cf->args->elts;
    ep = &nlcf->endpoint;

    rv = ngx_http_nango_endpoint(cf, nlcf, ngx_http_nango_status_handler);
    if (rv != NGX_CONF_OK) {
        return rv;
    }

    nmcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_nango_module);
    nmcf->statuses++;

    ep->everywhere = 1;

    ngx_str_set(&ep->methods, "GET, HEAD");

    if (cf->args->nelts == 1) {
        return NGX_CONF_OK;
    }

    if (ngx_strcmp(value[1].data, "manage") != 0) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid parameter \"%V\"; there is \"manage\"",
                           &value[1]);
        return NGX_CONF_ERROR;
    }

    ep->manage = 1;

    ngx_str_set(&ep->methods, "GET, HEAD, POST");

    /* Declared here so that the pool "default" exists in the workers. */

    if (ngx_thread_pool_add(cf, NULL) == NULL) {
        return NGX_CONF_ERROR;
    }

    return NGX_CONF_OK;
}


static ngx_int_t
ngx_http_nango_status_handler(ngx_http_request_t *r)
{
    ngx_http_nango_loc_conf_t  *nlcf;

    nlcf = ngx_http_get_module_loc_conf(r, ngx_http_nango_module);

    switch (r->method) {

    case NGX_HTTP_GET:
    case NGX_HTTP_HEAD:
        return ngx_http_nango_status_get(r);

    case NGX_HTTP_POST:

        if (nlcf->endpoint.manage) {
            return ngx_http_nango_status_act(r);
        }

        /* fall through */

    default:
        return ngx_http_nango_not_allowed(r);
    }
}


static ngx_int_t
ngx_http_nango_status_get(ngx_http_request_t *r)
{
    ngx_int_t                     rc;
    ngx_str_t                     value;
    ngx_uint_t                    dead;
    ngx_http_nango_loc_conf_t    *nlcf;
    ngx_http_nango_status_ctx_t  *s;

    nlcf = ngx_http_get_module_loc_conf(r, ngx_http_nango_module);

    rc = ngx_http_discard_request_body(r);
    if (rc != NGX_OK) {
        return rc;
    }

    dead = (ngx_http_arg(r, (u_char *) "dead", 4, &value) == NGX_OK);

    if (dead || ngx_http_arg(r, (u_char *) "waiting", 7, &value) == NGX_OK) {

        if (!nlcf->endpoint.manage) {
            return ngx_http_nango_error(r, NGX_HTTP_FORBIDDEN, "not_permitted",
                                        "There are only counts here");
        }

        return ngx_http_nango_status_owed(r, dead);
    }

    s = ngx_pcalloc(r->pool, sizeof(ngx_http_nango_status_ctx_t));
    if (s == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    if (ngx_http_nango_status_format(r, &s->format) != NGX_OK) {
        return ngx_http_nango_error(r, NGX_HTTP_BAD_REQUEST, "invalid_body",
                                    "format is json, prometheus or html");
    }

    s->status.manage = nlcf->endpoint.manage;

    s->look.look = ngx_http_nango_status_look;
    s->look.then = ngx_http_nango_status_then;
    s->look.data = s;
    s->look.now = 1;
    s->look.busy = 1;

    rc = ngx_http_nango_look(r, &s->look);

    return (rc == NGX_AGAIN) ? ngx_http_nango_held(r) : rc;
}


/*
 * What was asked for by its name, else the first of these that the client says
 * it takes: monitoring and browsers do, and programs get JSON.
 */

static ngx_int_t
ngx_http_nango_status_format(ngx_http_request_t *r,
    ngx_http_nango_status_e *format)
{
    ngx_str_t         value;
    ngx_table_elt_t  *accept;

    *format = NGX_HTTP_NANGO_STATUS_JSON;

    if (ngx_http_arg(r, (u_char *) "format", 6, &value) == NGX_OK) {

        if (value.len == 4 && ngx_strncmp(value.data, "json", 4) == 0) {
            return NGX_OK;
        }

        if (value.len == 10 && ngx_strncmp(value.data, "prometheus", 10) == 0)
        {
            *format = NGX_HTTP_NANGO_STATUS_PROMETHEUS;
            return NGX_OK;
        }

        if (value.len == 4 && ngx_strncmp(value.data, "html", 4) == 0) {
            *format = NGX_HTTP_NANGO_STATUS_HTML;
            return NGX_OK;
        }

        return NGX_DECLINED;
    }

    accept = ngx_http_nango_find_header(r, "accept", sizeof("accept") - 1,
                                        NULL);

    if (accept == NULL
        || ngx_http_nango_accepts(&accept->value, "application/json"))
    {
        return NGX_OK;
    }

    if (ngx_http_nango_accepts(&accept->value, "text/html")) {
        *format = NGX_HTTP_NANGO_STATUS_HTML;

    } else if (ngx_http_nango_accepts(&accept->value,
                                      "application/openmetrics-text")
               || ngx_http_nango_accepts(&accept->value, "text/plain"))
    {
        *format = NGX_HTTP_NANGO_STATUS_PROMETHEUS;
    }

    return NGX_OK;
}


/* Values of headers end with zero. */

static ngx_uint_t
ngx_http_nango_accepts(ngx_str_t *accept, const char *type)
{
    return ngx_strcasestrn(accept->data, (char *) type, ngx_strlen(type) - 1)
           != NULL;
}


/* NGX_OK; NGX_BUSY: the store cannot be read; NGX_ERROR. */

static ngx_int_t
ngx_http_nango_status_look(ngx_http_request_t *r, nango_reader_t *reader,
    void *data)
{
    ngx_http_nango_status_ctx_t *s = data;

    nango_error_t                   err;
    ngx_http_nango_status_t        *st;
    ngx_http_nango_status_visit_t   v;

    st = &s->status;

    if (ngx_http_nango_status_configured(r, st) != NGX_OK) {
        return NGX_ERROR;
    }

    v.request = r;
    v.status = st;
    v.failed = 0;

    if (nango_reader_usage(reader, &st->usage, &err) != NANGO_OK
        || nango_reader_counts(reader, &st->counts, &err) != NANGO_OK
        || nango_reader_stored(reader, ngx_http_nango_status_stored, &v, &err)
           != 0
        || nango_reader_ledgers(reader, ngx_http_nango_status_ledger, &v,
                                &err)
           != 0)
    {
        return ngx_http_nango_unreadable(r, &err);
    }

    if (v.failed) {
        return NGX_ERROR;
    }

    st->last = nango_reader_last(reader);

    if (st->last > st->counts.applied) {
        st->lag = st->last - st->counts.applied;
    }

    ngx_memcpy(st->log, nango_store_id(ngx_nango_store()),
               NANGO_STORE_ID_LEN);

    st->open = 1;

    return NGX_OK;
}


static void
ngx_http_nango_status_stored(void *data, const nango_stored_t *stored)
{
    ngx_http_nango_status_visit_t *v = data;

    nango_str_t                   name;
    ngx_uint_t                    i;
    ngx_http_nango_status_env_t  *env;

    env = v->status->environments.elts;

    for (i = 0; i < v->status->environments.nelts; i++) {
        if (ngx_memcmp(env[i].key, stored->key, NANGO_KEY_LEN) == 0) {
            goto found;
        }
    }

    name = stored->name;

    env = ngx_array_push(&v->status->environments);

    if (env == NULL
        || ngx_http_nango_copy(v->request->pool, &name) != NGX_OK)
    {
        v->failed = 1;
        return;
    }

    i = 0;

    ngx_memzero(env, sizeof(ngx_http_nango_status_env_t));
    ngx_memcpy(env->key, stored->key, NANGO_KEY_LEN);

    env->name.len = name.len;
    env->name.data = (u_char *) name.data;

found:

    env[i].stored = stored->stored;
    env[i].pruned = stored->pruned;
}


static void
ngx_http_nango_status_ledger(void *data, const nango_ledger_t *ledger)
{
    ngx_http_nango_status_visit_t *v = data;

    nango_str_t                   environment, name;
    ngx_uint_t                    i;
    ngx_http_nango_status_sub_t  *sub;

    sub = v->status->subscribers.elts;

    for (i = 0; i < v->status->subscribers.nelts; i++) {
        if (ngx_memcmp(sub[i].key, ledger->key, NANGO_KEY_LEN) == 0) {
            goto found;
        }
    }

    environment = ledger->environment;
    name = ledger->name;

    sub = ngx_array_push(&v->status->subscribers);

    if (sub == NULL
        || ngx_http_nango_copy(v->request->pool, &environment) != NGX_OK
        || ngx_http_nango_copy(v->request->pool, &name) != NGX_OK)
    {
        v->failed = 1;
        return;
    }

    i = 0;

    ngx_memzero(sub, sizeof(ngx_http_nango_status_sub_t));
    ngx_memcpy(sub->key, ledger->key, NANGO_KEY_LEN);

    sub->environment.len = environment.len;
    sub->environment.data = (u_char *) environment.data;
    sub->name.len = name.len;
    sub->name.data = (u_char *) name.data;

found:

    sub[i].ledger = *ledger;
    sub[i].known = 1;
    sub[i].parked = (ledger->parked_at != 0);
}


static ngx_int_t
ngx_http_nango_status_then(ngx_http_request_t *r, ngx_int_t rc, void *data)
{
    ngx_http_nango_status_ctx_t *s = data;

    ngx_str_t                    text;
    ngx_http_nango_status_t     *st;
    ngx_http_nango_main_conf_t  *nmcf;

    static ngx_str_t  plain = ngx_string("text/plain; version=0.0.4");
    static ngx_str_t  html = ngx_string("text/html");
    static ngx_str_t  policy = ngx_string("default-src 'none'; "
                                          "style-src 'unsafe-inline'; "
                                          "frame-ancestors 'none'");

    st = &s->status;

    if (rc == NGX_ERROR) {
        return NGX_ERROR;
    }

    nmcf = ngx_http_get_module_main_conf(r, ngx_http_nango_module);

    st->store = (nmcf->store.path.len != 0);

    /* What was read before it could be read no further is not told. */

    if (!st->open && ngx_http_nango_status_configured(r, st) != NGX_OK) {
        return NGX_ERROR;
    }

    st->troubled = ngx_nango_store_trouble(&st->trouble);

    ngx_http_nango_status_live(st);

    switch (s->format) {

    case NGX_HTTP_NANGO_STATUS_PROMETHEUS:

        if (ngx_http_nango_status_prometheus(r, st, &text) != NGX_OK) {
            return NGX_ERROR;
        }

        return ngx_http_nango_answer_as(r, NGX_HTTP_OK, &plain, &text);

    case NGX_HTTP_NANGO_STATUS_HTML:

        if (ngx_http_nango_status_html(r, st, &text) != NGX_OK
            || ngx_http_nango_header(r, "Content-Security-Policy", &policy)
               != NGX_OK)
        {
            return NGX_ERROR;
        }

        return ngx_http_nango_answer_as(r, NGX_HTTP_OK, &html, &text);

    default:

        if (ngx_http_nango_status_json(r, st, &text) != NGX_OK) {
            return NGX_ERROR;
        }

        return ngx_http_nango_answer(r, NGX_HTTP_OK, &text);
    }
}


/* Those of the configuration come first, and in its order. */

static ngx_int_t
ngx_http_nango_status_configured(ngx_http_request_t *r,
    ngx_http_nango_status_t *st)
{
    ngx_uint_t                     i;
    ngx_nango_subscriber_t       **s;
    ngx_nango_environment_t      **e;
    ngx_http_nango_main_conf_t    *nmcf;
    ngx_http_nango_status_env_t   *env;
    ngx_http_nango_status_sub_t   *sub;

    nmcf = ngx_http_get_module_main_conf(r, ngx_http_nango_module);

    if (ngx_array_init(&st->environments, r->pool,
                       nmcf->environments.nelts + 1,
                       sizeof(ngx_http_nango_status_env_t))
        != NGX_OK
        || ngx_array_init(&st->subscribers, r->pool,
                          nmcf->subscribers.nelts + 1,
                          sizeof(ngx_http_nango_status_sub_t))
           != NGX_OK)
    {
        return NGX_ERROR;
    }

    e = nmcf->environments.elts;

    for (i = 0; i < nmcf->environments.nelts; i++) {
        env = ngx_array_push(&st->environments);
        if (env == NULL) {
            return NGX_ERROR;
        }

        ngx_memzero(env, sizeof(ngx_http_nango_status_env_t));
        ngx_memcpy(env->key, e[i]->key, NANGO_KEY_LEN);

        env->name = e[i]->name;
        env->configured = 1;
        env->account_blocked = ngx_nango_account_blocked(&e[i]->account);
        env->account_low = ngx_nango_account_low(&e[i]->account);

        if (e[i]->authorization.len && nmcf->store.path.len) {
            env->reconcile = e[i]->reconcile / 1000;
        }
    }

    s = nmcf->subscribers.elts;

    for (i = 0; i < nmcf->subscribers.nelts; i++) {
        sub = ngx_array_push(&st->subscribers);
        if (sub == NULL) {
            return NGX_ERROR;
        }

        ngx_memzero(sub, sizeof(ngx_http_nango_status_sub_t));
        ngx_memcpy(sub->key, s[i]->key, NANGO_KEY_LEN);

        sub->environment = s[i]->environment->name;
        sub->name = s[i]->name;
        sub->configured = 1;
    }

    return NGX_OK;
}


static void
ngx_http_nango_status_live(ngx_http_nango_status_t *st)
{
    ngx_uint_t                    i;
    ngx_atomic_t                 *compared;
    ngx_http_nango_status_env_t  *env;
    ngx_http_nango_status_sub_t  *sub;

    ngx_nango_generation(&st->generation);

    for (i = 0; i < NGX_NANGO_COUNTERS; i++) {
        st->counters[i] = ngx_nango_counted(i);
    }

    st->refused = st->counters[NGX_NANGO_WEBHOOKS_UNSIGNED]
                  + st->counters[NGX_NANGO_WEBHOOKS_FORGED]
                  + st->counters[NGX_NANGO_WEBHOOKS_UNAVAILABLE]
                  + st->counters[NGX_NANGO_WEBHOOKS_LOST]
                  + st->counters[NGX_NANGO_WEBHOOKS_TOO_LARGE]
                  + st->counters[NGX_NANGO_WEBHOOKS_UNREADABLE];

    st->received = st->counters[NGX_NANGO_WEBHOOKS_STORED]
                   + st->counters[NGX_NANGO_WEBHOOKS_DUPLICATE]
                   + st->refused;

    env = st->environments.elts;

    for (i = 0; i < st->environments.nelts; i++) {

        if (!env[i].configured) {
            continue;
        }

        env[i].circuit_open = ngx_nango_circuit_open(env[i].key);

        compared = ngx_nango_compared(env[i].key);

        if (compared) {
            env[i].reconciled_at = *compared;
        }
    }

    sub = st->subscribers.elts;

    for (i = 0; i < st->subscribers.nelts; i++) {
        ngx_nango_delivery_state(sub[i].key, &sub[i].live);
        sub[i].down = (sub[i].live.down_since != 0);
    }
}


ngx_int_t
ngx_http_nango_status_key(ngx_http_request_t *r, nango_str_t environment,
    nango_str_t name, u_char *key)
{
    ngx_nango_environment_t     **e;
    ngx_http_nango_main_conf_t   *nmcf;

    nmcf = ngx_http_get_module_main_conf(r, ngx_http_nango_module);
    e = nmcf->environments.elts;

    if (environment.data == NULL && nmcf->environments.nelts == 1) {
        environment = ngx_nango_str(&e[0]->name);
    }

    return nango_subscriber_key(key, environment, name) == 0 ? NGX_OK
                                                             : NGX_ERROR;
}


ngx_int_t
ngx_http_nango_status_unknown(ngx_http_request_t *r)
{
    return ngx_http_nango_error(r, NGX_HTTP_NOT_FOUND, "subscriber_not_found",
                                "There is no such subscriber");
}
